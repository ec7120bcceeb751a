package adapter

import (
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

func TestRanksShareExpertsAsDivmodDoes(t *testing.T) {
	for _, test := range []struct {
		n, size int
		want    [][2]int
	}{
		{8, 2, [][2]int{{0, 4}, {4, 8}}},
		{7, 3, [][2]int{{0, 3}, {3, 5}, {5, 7}}},
		{2, 4, [][2]int{{0, 1}, {1, 2}, {2, 2}, {2, 2}}},
		{0, 2, [][2]int{{0, 0}, {0, 0}}},
	} {
		for r, want := range test.want {
			lo, hi := EP{r, test.size}.Range(test.n)
			if lo != want[0] || hi != want[1] {
				t.Errorf("rank %d of %d of %d experts: [%d, %d), want %v", r, test.size, test.n, lo,
					hi, want)
			}
		}
	}
	if lo, hi := (EP{}).Range(5); lo != 0 || hi != 5 {
		t.Errorf("no ranks: [%d, %d), want all", lo, hi)
	}
}

func TestRanksThatDoNotExistAreRefused(t *testing.T) {
	for _, e := range []EP{{2, 2}, {-1, 2}, {0, -1}, {1, 0}} {
		if e.check() == nil {
			t.Errorf("%+v: no error", e)
		}
	}
	for _, e := range []EP{{}, {0, 1}, {3, 4}} {
		if err := e.check(); err != nil {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

// A user who asks for ranks learns where they make no difference, and which ranks are empty.
func TestRanksThatAreWholeOrEmptyAreNoted(t *testing.T) {
	const whole, empty = "no experts that ranks could share", "has no experts"
	dense := synthetic(t, `{"model_type": "llama"}`, "model.norm.weight BF16 8")
	for _, test := range []struct {
		source *synth.Checkpoint
		ep     EP
		want   string
	}{
		{dense, EP{}, ""},
		{dense, EP{0, 1}, ""},
		{dense, EP{0, 2}, whole},
		{synth.DeepSeek(small(synth.Options{Experts: 2})), EP{1, 2}, ""},
		{synth.DeepSeek(small(synth.Options{Experts: 2})), EP{1, 7}, ""},
		{synth.DeepSeek(small(synth.Options{Experts: 2})), EP{6, 7}, "rank 6 of 7 " + empty},
	} {
		for _, layout := range []string{LayoutNative, LayoutHF} {
			p, err := NewPlan(opened(t, test.source), Options{Layout: layout, EP: test.ep})
			if err != nil {
				t.Fatal(err)
			}
			notes := strings.Join(p.Notes, "\n")
			if !strings.Contains(notes, test.want) || test.want == "" &&
				strings.Contains(notes, "ep:") {
				t.Errorf("%v in layout %s: notes %q, want %q", test.ep, layout, notes, test.want)
			}
		}
	}
}

// Ranks share the experts of checkpoints that are stored in a layout, also if the language model
// has another prefix there than in published checkpoints.
func TestRanksShareTheExpertsOfStoredCheckpoints(t *testing.T) {
	const two = "model.language_model.model.layers.0.mlp.experts."
	const mtp = "model.language_model.mtp.layers.0.transformer_layer.mlp.experts."
	native, transformers := [2]string{"gate_and_up_projs", "down_projs"},
		[2]string{"gate_up_proj", "down_proj"}
	for _, test := range []struct {
		config, layout, path string
		groups               [2]string
	}{
		{`{"model_type": "kimi_k25"}`, LayoutNative, two, native},
		{`{"model_type": "kimi_vl"}`, LayoutNative, two, native},
		{`{"model_type": "mistral3", "text_config": {"model_type": "mistral4"}}`, LayoutNative, two, native},
		{`{"model_type": "qwen3_omni_moe"}`, LayoutTransformers, "thinker.model.language_model.layers.0.mlp.experts.", transformers},
		{`{"model_type": "minimax_m3_vl"}`, LayoutTransformers, mtp, transformers},
	} {
		c := opened(t, filled(t, test.config, test.path+test.groups[0]+" BF16 3 8 8\n"+
			test.path+test.groups[1]+" BF16 3 8 8"))
		for rank, want := range []int64{2, 1} {
			d := dict(t, c, Options{Layout: test.layout, EP: EP{rank, 2}})
			for _, name := range test.groups {
				if got := mustTensor(t, d, test.path+name).Shape()[0]; got != want {
					t.Errorf("%s: rank %d has %d experts in %s, want %d", test.config, rank, got,
						name, want)
				}
			}
		}
	}
}
