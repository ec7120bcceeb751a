package adapter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// novel is a checkpoint of a type without a row.
func novel(t *testing.T, tensors ...string) *Checkpoint {
	t.Helper()
	return opened(t, synthetic(t, `{"model_type": "novel"}`, strings.Join(tensors, "\n")))
}

// The layout native of a dense model without an adapter has the tensors of hf, also if FP8 is
// decoded, and around a known language model.
func TestDenseModelsWithoutAnAdapterHaveTheirPublishedNames(t *testing.T) {
	for _, config := range []string{
		`{"model_type": "novel"}`,
		`{"model_type": "llama"}`,
		`{"model_type": "internvl", "text_config": {"model_type": "qwen2"}}`,
	} {
		c := opened(t, synthetic(t, config, `
			language_model.model.layers.0.mlp.up_proj.weight FP8 130 140
			vision.encoder.layers.0.norm.weight F32 8
			language_model.lm_head.weight BF16 9 4`))
		if !PublishedNative(c) {
			t.Errorf("%s: native is not published", config)
		}
		if said := OnlyPublished(c); said != "" {
			t.Errorf("%s: %s", config, said)
		}
		equal(t, dict(t, c, Options{Layout: LayoutNative}), tensorsOf(t, dict(t, c, Options{Layout: LayoutHF})))
	}
}

// A key that speaks of experts is enough to leave the layout native out.
func TestModelsThatMayHaveExpertsAreNotDense(t *testing.T) {
	for key, want := range map[string][]string{
		"model.layers.0.mlp.up_proj.weight":                  nativeToo,
		"model.layers.0.mlp.experts.0.up_proj.weight":        hfAlone,
		"model.layers.0.block_sparse_moe.w1.weight":          hfAlone,
		"model.layers.0.SharedExpert.weight":                 hfAlone,
		"model.layers.0.mlp.experts.gate_up_proj":            hfAlone,
		"model.vision.memories_of_a_model_of_embeddings.bin": nativeToo,
	} {
		c := novel(t, key+" BF16 2 4 6")
		if got := Layouts(c); !slices.Equal(got, want) {
			t.Errorf("%s: layouts %v, want %v", key, got, want)
		}
		said := OnlyPublished(c)
		if one := len(want) == 1; one != strings.Contains(said, key) || !one && said != "" {
			t.Errorf("%s: said %q", key, said)
		}
		if PublishedNative(c) == (len(want) == 1) {
			t.Errorf("%s: native is published", key)
		}
	}
}

// Nothing is said where another message says it, or where there are more layouts.
func TestOnlyPublishedIsSaidOfModelsThatLackLayouts(t *testing.T) {
	for config, want := range map[string]string{
		`{}`:                            "",
		`{"model_type": "novel"}`:       "",
		`{"model_type": "mixtral"}`:     "",
		`{"model_type": "qwen3_moe"}`:   "",
		`{"model_type": "glm4_moe"}`:    "",
		`{"model_type": "novel_moe"}`:   "",
		`{"model_type": "n", "moe": 2}`: "there are no layouts native, transformers, torchtitan: by moe in config.json",
	} {
		c := &Checkpoint{Config: &Config{Raw: []byte(config)}}
		if got := OnlyPublished(c); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
	if got := OnlyPublished(&Checkpoint{Config: &Config{}}); got != "" {
		t.Errorf("without config.json: %q", got)
	}
}

// The layout split of a type without a row equals hf if experts are apart. Grouped experts are
// refused, because nothing says how they are joined.
func TestExpertsOfUnknownTypesAreNotTakenApart(t *testing.T) {
	apart := []string{"model.norm.weight BF16 8"}
	for e := range 3 {
		apart = append(apart, fmt.Sprintf("model.layers.0.mlp.experts.%d.w.weight BF16 4 6", e))
	}
	c := novel(t, apart...)
	equal(t, dict(t, c, Options{Layout: LayoutSplit}), tensorsOf(t, dict(t, c, Options{Layout: LayoutHF})))

	for tensor, refused := range map[string]bool{
		"model.layers.0.mlp.experts.gate_up_proj BF16 3 4 6":    true,
		"model.layers.0.mlp.experts.down_proj.weight F32 3 4 6": true,
		"model.layers.0.mlp.experts.bias BF16 3 4":              false,
		"model.layers.0.mlp.experts.0.conv BF16 3 4 1 6":        false,
		"model.layers.0.conv1d.weight BF16 3 1 4":               false,
	} {
		c := novel(t, tensor, "model.norm.weight BF16 8")
		key, _, _ := strings.Cut(tensor, " ")
		_, err := NewPlan(c, Options{Layout: LayoutSplit})
		switch {
		case refused != (err != nil):
			t.Errorf("%s: %v", tensor, err)
		case refused && (!strings.Contains(err.Error(), key) ||
			!strings.Contains(err.Error(), "it is not known in which order") ||
			!strings.Contains(err.Error(), "--layout hf")):
			t.Errorf("%s: %v", tensor, err)
		}
		if _, err := NewPlan(c, Options{Layout: LayoutHF}); err != nil {
			t.Errorf("%s: %v", tensor, err)
		}
	}
}

// A rank of a model without experts has all its tensors, as for a model with a row.
func TestRanksOfUnknownDenseModelsAreWhole(t *testing.T) {
	c := novel(t, "model.norm.weight BF16 8", "lm_head.weight BF16 4 8")
	equal(t, dict(t, c, Options{EP: EP{1, 2}}), tensorsOf(t, dict(t, c, Options{})))
	s := synth.DeepSeek(small(synth.Options{}))
	s.Config["model_type"] = "novel"
	if _, err := NewPlan(opened(t, s), Options{EP: EP{1, 2}}); err == nil {
		t.Error("a rank of unknown experts was planned")
	}
}
