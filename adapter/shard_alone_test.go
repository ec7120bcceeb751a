package adapter

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// shardAlone opens one file of a checkpoint, under a name.
func shardAlone(t *testing.T, c *synth.Checkpoint, name string) *Checkpoint {
	t.Helper()
	dir := t.TempDir()
	c.Single = true
	if err := c.Write(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.Rename(filepath.Join(dir, "model.safetensors"), path); err != nil {
		t.Fatal(err)
	}
	return openedAt(t, path)
}

// One file of several does not tell what the others lack, so nothing is made in its place.
func TestNothingIsMadeInPlaceOfWhatAnotherFileMayHave(t *testing.T) {
	const layer = "model.layers.0.mlp.gate."
	for _, test := range []struct{ config, tensor, layout, made string }{
		{
			`{"model_type": "qwen3_5"}`, "model.language_model.embed_tokens.weight BF16 8 4",
			LayoutTorchTitan, "lm_head.weight",
		},
		{
			`{"model_type": "diffusion_gemma"}`, "model.decoder.embed_tokens.weight BF16 8 4",
			LayoutNative, "lm_head.weight",
		},
		{
			`{"model_type": "mistral4", "n_routed_experts": 8}`, layer + "weight BF16 8 4",
			LayoutNative, layer + "e_score_correction_bias",
		},
	} {
		for name, want := range map[string]bool{
			"model-00002-of-00003.safetensors": false,
			"model-00001-of-00001.safetensors": true,
			"model.safetensors":                true,
		} {
			c := shardAlone(t, filled(t, test.config, test.tensor), name)
			if _, ok := dict(t, c, Options{Layout: test.layout}).Tensor(test.made); ok != want {
				t.Errorf("%s: has %s: %v, want %v", name, test.made, ok, want)
			}
		}
	}
}

// A tensor that two layouts have under one name, with other axes, is not shown without a key that
// tells which layout it is.
func TestAxesThatNothingTellsAreRefused(t *testing.T) {
	const key = "model.language_model.layers.0.mlp.shared_experts.down_proj"
	for _, layout := range []string{LayoutNative, LayoutHF, LayoutTransformers} {
		s := filled(t, `{"model_type": "inkling_mm_model"}`, key+" BF16 2 3 7")
		_, err := NewPlan(shardAlone(t, s, "model-00002-of-00003.safetensors"),
			Options{Layout: layout})
		if err == nil || !strings.Contains(err.Error(), key+": its axes depend on the layout") ||
			!strings.Contains(err.Error(), "show the whole checkpoint") {
			t.Errorf("layout %s: error %v", layout, err)
		}
	}
}

// A shard of a checkpoint that is stored in a layout keeps its names there, whatever it holds.
func TestShardsOfStoredLayoutsKeepTheirNames(t *testing.T) {
	for _, test := range []struct{ modelType, layout, key string }{
		{"deepseek_v4", LayoutNative, "mtp.layers.0.input_layernorm.weight"},
		{"qwen3_omni_moe", LayoutTransformers, "thinker.model.visual.blocks.0.attn.qkv.weight"},
		{"qwen3_omni_moe", LayoutTransformers, "thinker.model.audio_tower.conv2d1.weight"},
		{"qwen3_omni_moe_thinker", LayoutTransformers, "model.visual.blocks.0.attn.qkv.weight"},
		{"axk1", LayoutTransformers, "model.layers.0.mlp.post_mlp_layernorm.weight"},
	} {
		s := filled(t, fmt.Sprintf(`{"model_type": %q, "num_nextn_predict_layers": 1}`,
			test.modelType), test.key+" BF16 8 4")
		c := shardAlone(t, s, "model-00002-of-00003.safetensors")
		mustTensor(t, dict(t, c, Options{Layout: test.layout}), test.key)
	}
}
