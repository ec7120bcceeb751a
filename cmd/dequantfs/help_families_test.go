package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
)

// linesOf returns the lines about a model_type.
func linesOf(modelType string) (lines []familyLine) {
	for _, l := range familyLines() {
		if l.modelType == modelType {
			lines = append(lines, l)
		}
	}
	return lines
}

// The page has every model of the table, each of its layouts, and all notes on these.
func TestFamiliesPageSaysWhatTheTableSays(t *testing.T) {
	for _, f := range adapter.Families() {
		for _, modelType := range f.Types {
			want := layoutsOf(f, modelType)
			if !slices.ContainsFunc(linesOf(modelType), func(l familyLine) bool {
				return cmp.Equal(l.layouts, want, cmp.AllowUnexported(notedLayout{}))
			}) {
				t.Errorf("%s: no line has %v", modelType, want)
			}
			for _, l := range f.Layouts {
				if len(l.Types) > 0 && !slices.Contains(l.Types, modelType) {
					continue
				}
				i := slices.IndexFunc(want, func(n notedLayout) bool { return n.name == l.Layout })
				if i < 0 {
					t.Errorf("%s: no layout %s", modelType, l.Layout)
					continue
				}
				notes := strings.Join(want[i].notes, "\n")
				for _, say := range append(l.Changes, l.Lacking[modelType]) {
					if !strings.Contains(notes, say) {
						t.Errorf("%s: %s: the notes lack %q", modelType, l.Layout, say)
					}
				}
				if l.Published != strings.Contains(notes, "has the published names") {
					t.Errorf("%s: %s: published names: %v", modelType, l.Layout, l.Published)
				}
			}
		}
	}
}

// pageLine is a line of the table as it is printed, without those that continue it.
var pageLine = regexp.MustCompile(`(?m)^    (\S+(?: (?:as|of|around) \S.*?)?)  +(\S.*)$`)

// noteLine begins a note as it is printed.
var noteLine = regexp.MustCompile(`(?m)^(\d+)\. `)

// The lines of the page are in alphabetical order, fit a terminal, and have the notes that their
// numbers say.
func TestFamiliesPageIsAnIndexOfTypes(t *testing.T) {
	text := topicText(familiesTopic())
	var names []string
	for _, m := range pageLine.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	if len(names) != len(familyLines()) {
		t.Errorf("%d lines are printed of %d", len(names), len(familyLines()))
	}
	for i, l := range familyLines() {
		if i < len(names) && names[i] != l.name() {
			t.Errorf("line %d is about %q, not %q", i, names[i], l.name())
		}
	}
	if !slices.IsSortedFunc(familyLines(), func(a, b familyLine) int {
		return strings.Compare(strings.ToLower(a.modelType), strings.ToLower(b.modelType))
	}) {
		t.Errorf("the lines are not in order: %q", names)
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > textWidth {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
}

// Each note is printed once, and the numbers behind the layouts are those of the list.
func TestFamiliesPagePrintsEachNoteOnce(t *testing.T) {
	text := topicText(familiesTopic())
	flat := strings.Join(strings.Fields(text), " ")
	var notes []string
	for _, l := range familyLines() {
		words := strings.Join(l.marked(&notes), " ")
		if !strings.Contains(flat, l.name()+" "+words) {
			t.Errorf("the page lacks %s %s", l.name(), words)
		}
	}
	for i, n := range notes {
		printed := fmt.Sprintf("%d. %s", i+1, n)
		if !strings.Contains(flat, printed) {
			t.Errorf("the page lacks note %q", printed)
		}
		if slices.Index(notes, n) != i {
			t.Errorf("note %q is there twice", n)
		}
	}
	if got := len(noteLine.FindAllString(text, -1)); got != len(notes) || got < 10 {
		t.Errorf("%d notes are printed of %d", got, len(notes))
	}
}

// The lines of types with several rows, with conditions or without layouts say so.
func TestFamiliesOfOneType(t *testing.T) {
	for modelType, want := range map[string][]string{
		"aria":      {"aria split, transformers"},
		"aria_text": {"aria_text split, transformers"},
		"mimo_v2": {
			"mimo_v2 as MiMoV25ForCausalLM native", "mimo_v2 as MiMoV2ForCausalLM native",
			"mimo_v2 of other architectures only those of every model",
			`"as ARCHITECTURE"`,
		},
		"mistral3": {
			"mistral3 around other models native", "mistral3 around mistral4 native(1), split",
			`"around TYPE"`,
		},
		"gpt_oss": {"gpt_oss native, torchtitan, no split(1)", "1. the columns of gate and up"},
		"longcat_flash": {"longcat_flash transformers(1)",
			"1. missing if zero_expert_num is not 0"},
		"olmoe":      {"olmoe transformers `dequantfs doctor SOURCE`"},
		"kimi_k25":   {"1. missing if vision_config has no num_attention_heads"},
		"step3p7":    {"1. missing if vision_config has no num_attention_heads"},
		"step3p5v":   {"step3p5v native, split `dequantfs doctor SOURCE`"},
		"nemotron_h": {"1. no prediction layers (MTP) after the last layer", "`--mtp keep`"},
	} {
		status, out, stderr := runHere("help", "families", modelType)
		flat := strings.Join(strings.Fields(out), " ")
		for _, say := range want {
			if status != 0 || !strings.Contains(flat, say) {
				t.Errorf("%s: status %d, no %q in\n%s%s", modelType, status, say, out, stderr)
			}
		}
		for _, m := range pageLine.FindAllStringSubmatch(out, -1) {
			if name, _, _ := strings.Cut(m[1], " "); name != modelType {
				t.Errorf("%s: a line about %s", modelType, m[1])
			}
		}
	}
	for word, hint := range map[string]string{
		"qwen3moe":   "did you mean qwen2_moe or qwen3_moe?",
		"QWEN3_MOE":  "qwen3_moe",
		"frobnicate": "dequantfs doctor SOURCE",
	} {
		status, out, stderr := runHere("help", "families", word)
		if status != 2 || out != "" || !strings.Contains(stderr, hint) ||
			!strings.Contains(stderr, `no model_type "`+word+`" is in the table`) {
			t.Errorf("%s: status %d, %q, %q", word, status, out, stderr)
		}
	}
	_, out, _ := runHere(cobra.ShellCompRequestCmd, "help", "families", "")
	if !strings.Contains(out, "\nqwen3_moe\n") {
		t.Errorf("types are not completed: %s", out)
	}
}

// A long name has a line of its own, and many layouts have several.
func TestTableLinesWrap(t *testing.T) {
	line := familyLine{modelType: strings.Repeat("n", 40)}
	for range 4 {
		line.layouts = append(line.layouts, notedLayout{name: strings.Repeat("l", 30)})
	}
	want := "    " + line.modelType + "\n"
	for i := range 4 {
		end := ",\n"
		if i == 3 {
			end = "\n"
		}
		want += strings.Repeat(" ", 38) + strings.Repeat("l", 30) + end
	}
	if got := familiesTable([]familyLine{line}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The page names the layouts that the checkpoint of a type has, which Layouts finds by itself.
func TestFamiliesPageEqualsWhatCheckpointsHave(t *testing.T) {
	checked := 0
	for _, f := range adapter.Families() {
		if f.Inside != "" || len(f.Architectures) > 0 {
			continue
		}
		for _, modelType := range f.Types {
			c := &adapter.Checkpoint{Config: &adapter.Config{
				Raw: []byte(`{"model_type": "` + modelType + `"}`),
			}}
			for _, layout := range adapter.Layouts(c) {
				if layout == adapter.LayoutHF {
					continue
				}
				checked++
				i := slices.IndexFunc(f.Layouts, func(l adapter.LayoutInfo) bool {
					return l.Layout == layout &&
						(len(l.Types) == 0 || slices.Contains(l.Types, modelType))
				})
				if i < 0 {
					t.Errorf("%s has layout %s, which the page does not name", modelType, layout)
				}
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d layouts were checked", checked)
	}
}

// Each program whose names a layout has is there with its version.
func TestFamiliesPageNamesTheReferences(t *testing.T) {
	body := familiesTopic().body
	for _, l := range adapter.KnownLayouts() {
		if l.Reference == "" {
			continue
		}
		if !strings.Contains(body, "| "+l.Name+" | "+l.Reference+" |") {
			t.Errorf("the page does not say that %s is the reference of %s", l.Reference, l.Name)
		}
	}
	for _, want := range []string{
		"NeMo AutoModel 0.7.0", "transformers 5.24.0", "TorchTitan 0.3.0",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not name %s", want)
		}
	}
}
