package main

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter"
)

// familiesName is the name of the page about the table of families.
const familiesName = "families"

// familiesTopic is the page about the table of families. It is made of the table.
func familiesTopic() topic {
	var b strings.Builder
	fmt.Fprintf(&b, familiesHead, strings.Join(typesWithoutSplit(), ", "))
	b.WriteString("| layout | names and shapes of |\n|---|---|\n")
	for _, l := range adapter.KnownLayouts() {
		if l.Reference != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", l.Name, l.Reference)
		}
	}
	b.WriteString(familiesMiddle)
	b.WriteString(familiesTable(familyLines()))
	return topic{familiesName, "models, their layouts, and the references of these", b.String()}
}

// familyTopic is the part of the page about one model_type.
func familyTopic(modelType string) (topic, error) {
	lines := slices.DeleteFunc(familyLines(), func(l familyLine) bool {
		return l.modelType != modelType
	})
	if len(lines) == 0 {
		return topic{}, noSuchFamily(modelType)
	}
	return topic{familiesName, "the layouts of " + modelType, familyHead + familiesTable(lines) +
		doctorLine}, nil
}

// noSuchFamily refuses a model_type that is not in the table, and names those that look like it.
func noSuchFamily(modelType string) error {
	err := fmt.Errorf("no model_type %q is in the table of families", modelType)
	if near := similar(modelType, modelTypes()); len(near) > 0 {
		return usageError{withHint(err, "did you mean %s?", strings.Join(near, " or "))}
	}
	return usageError{withHint(err, "dequantfs doctor SOURCE says which layouts a checkpoint has; "+
		"dequantfs help families lists the table")}
}

// modelTypes are the types of the table in alphabetical order.
func modelTypes() (all []string) {
	for _, f := range adapter.Families() {
		all = append(all, f.Types...)
	}
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Compare(strings.ToLower(a), strings.ToLower(b))
	})
	return slices.Compact(all)
}

// typesWithoutSplit are the types whose grouped experts are not shown split.
func typesWithoutSplit() (all []string) {
	for _, f := range adapter.Families() {
		if f.NoSplit != "" {
			all = append(all, f.Types...)
		}
	}
	return all
}

const familiesHead = `The outermost model_type of config.json decides. ` +
	"`dequantfs help families TYPE`" + ` prints the lines
of one type. ` + "`dequantfs doctor SOURCE`" + ` says which layouts your own checkpoint has.

Every model has the layouts hf and hf-fp8, with the published names. It has split too, except where
gate and up alternate (%s), or where an unknown model groups its experts.
The other layouts follow a program and its version:

`

const familiesMiddle = `
A dense model that is not in the table below has native too, with the published names, because NeMo
AutoModel has no adapter for it. So has a model around a dense language model. A model that is not
in the table and may have experts has only the layouts that every model has. So has a model of the
table if its language model is of a type that it is not published with.

The table names split where experts are published grouped. For the other models it equals hf.
## Models

`

const familyHead = `Every model has hf and hf-fp8 too, and split unless a line says "no split".

`

const doctorLine = "\n`dequantfs doctor SOURCE` says which layouts your own checkpoint has.\n"

// explained are sentences about what is in a table or its notes, each with what tells that it is
// there.
var explained = []struct {
	mark   string
	ofNote bool
	text   string
}{
	{" as ", false, `"as ARCHITECTURE": the first of architectures in config.json is this one.`},
	{" around ", false,
		`"around TYPE": the language model inside (text_config) has this model_type.`},
	{"(1", false, "A number behind a layout: the note below says how it differs from the " +
		"source, or when it\nis missing."},
	{"(MTP)", true, "Prediction layers (MTP) that a layout leaves out are shown with " +
		"`--mtp keep`."},
}

// literal keeps keys of tensors from being read as marks of Markdown.
var literal = strings.NewReplacer("_", `\_`, "*", `\*`)

// familyLine is a line of the page: the layouts of a model_type, or of some models of it.
type familyLine struct {
	modelType string
	limit     string // which models of the type; "": all
	layouts   []notedLayout
}

// notedLayout is a layout of a line, with the notes on it.
type notedLayout struct {
	name  string
	notes []string
}

// name is what the line is about.
func (l familyLine) name() string { return strings.TrimSpace(l.modelType + " " + l.limit) }

// familyLines has a line for each model_type in alphabetical order, or several if its models
// differ.
func familyLines() (lines []familyLine) {
	families := adapter.Families()
	for _, modelType := range modelTypes() {
		var rows []familyRow
		for _, f := range families {
			if slices.Contains(f.Types, modelType) {
				rows = withRow(rows, familyRow{
					[]adapter.FamilyInfo{f}, layoutsOf(f, modelType),
				})
			}
		}
		for _, r := range rows {
			for _, limit := range r.limits(rows) {
				lines = append(lines, familyLine{modelType, limit, r.layouts})
			}
		}
	}
	return lines
}

// familyRow is the rows of the table with a model_type that have the same layouts and notes.
type familyRow struct {
	families []adapter.FamilyInfo
	layouts  []notedLayout
}

// withRow adds a row, joined to one with the same layouts and notes.
func withRow(rows []familyRow, r familyRow) []familyRow {
	for i := range rows {
		if reflect.DeepEqual(rows[i].layouts, r.layouts) {
			rows[i].families = append(rows[i].families, r.families...)
			return rows
		}
	}
	return append(rows, r)
}

// limits says which models of a type a row is for, given all rows of the type.
func (r familyRow) limits(all []familyRow) (limits []string) {
	if len(all) == 1 {
		return []string{""}
	}
	for _, f := range r.families {
		switch {
		case f.Inside != "":
			limits = append(limits, "around "+f.Inside)
		case len(f.Architectures) == 0:
			return []string{otherModels(all)}
		}
		for _, a := range f.Architectures {
			limits = append(limits, "as "+a)
		}
	}
	return limits
}

// otherModels says that a row is for the models that the other rows of the type are not for.
func otherModels(all []familyRow) string {
	for _, r := range all {
		for _, f := range r.families {
			if f.Inside != "" {
				return "around other models"
			}
		}
	}
	return "of other architectures"
}

// layoutsOf lists the layouts of a type of a family, besides those that every model has.
func layoutsOf(f adapter.FamilyInfo, modelType string) (all []notedLayout) {
	for _, l := range f.Layouts {
		if len(l.Types) > 0 && !slices.Contains(l.Types, modelType) {
			continue
		}
		n := notedLayout{name: l.Layout}
		if l.Published {
			reference, _ := adapter.LayoutNamed(l.Layout)
			n.notes = append(n.notes, "has the published names: "+reference.Reference+
				" has no adapter for it")
		}
		if why := l.Lacking[modelType]; why != "" {
			n.notes = append(n.notes, "missing if "+why)
		}
		n.notes = append(n.notes, l.Changes...)
		all = append(all, n)
	}
	if f.NoNative != "" {
		all = append(all, notedLayout{"no native", []string{f.NoNative}})
	}
	if f.NoSplit != "" {
		all = append(all, notedLayout{"no split", []string{f.NoSplit}})
	}
	return all
}

// nameWidth is the width of the names in the table. Longer names have a line of their own.
const nameWidth = 32

// familiesTable prints lines below what explains them, and then each of their notes once.
func familiesTable(lines []familyLine) string {
	var b strings.Builder
	var notes []string
	for _, l := range lines {
		name := l.name()
		if len(name) > nameWidth {
			b.WriteString("    " + name + "\n")
			name = ""
		}
		b.WriteString(tableLine(name, l.marked(&notes)))
	}
	table, list := b.String(), ""
	for i, n := range notes {
		list += fmt.Sprintf("%d. %s\n", i+1, literal.Replace(n))
	}
	text := explanations(table, list) + table
	if list != "" {
		text += "\n" + list
	}
	return text
}

// explanations is a paragraph about what is in a table and its notes. It is not a list, since code
// below a list would be a part of it.
func explanations(table, notes string) string {
	var b strings.Builder
	for _, e := range explained {
		in := table
		if e.ofNote {
			in = notes
		}
		if strings.Contains(in, e.mark) {
			b.WriteString(e.text + "\n")
		}
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	return b.String()
}

// tableLine prints a name and words to its right, in lines that fit a terminal.
func tableLine(name string, words []string) string {
	var b strings.Builder
	line := fmt.Sprintf("    %-*s ", nameWidth, name)
	margin := len(line)
	for _, w := range words {
		if len(line) > margin && len(line)+1+len(w) > textWidth {
			b.WriteString(line + "\n")
			line = strings.Repeat(" ", margin)
		}
		line += " " + w
	}
	return b.String() + line + "\n"
}

// marked lists the layouts of a line with the numbers of their notes. It adds notes that are new.
func (l familyLine) marked(notes *[]string) (words []string) {
	if len(l.layouts) == 0 {
		return []string{"only those of every model"}
	}
	for i, layout := range l.layouts {
		var numbers []string
		for _, n := range layout.notes {
			at := slices.Index(*notes, n)
			if at < 0 {
				at = len(*notes)
				*notes = append(*notes, n)
			}
			numbers = append(numbers, fmt.Sprint(at+1))
		}
		word := layout.name
		if numbers != nil {
			word += "(" + strings.Join(numbers, ",") + ")"
		}
		if i < len(l.layouts)-1 {
			word += ","
		}
		words = append(words, word)
	}
	return words
}
