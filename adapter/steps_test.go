package adapter

import (
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// inConfig gives an object of a configuration, by the names on its path.
func inConfig(c *synth.Checkpoint, path ...string) map[string]any {
	o := c.Config
	for _, name := range path {
		o = o[name].(map[string]any)
	}
	return o
}

// defectOfSteps is a source that a step of a view cannot take.
type defectOfSteps struct {
	family, layout string
	spoil          func(*synth.Checkpoint)
	want           []string
}

// defectsOfSteps has a defect of each kind for each type of step.
var defectsOfSteps = map[string]defectOfSteps{
	"fused rows that the heads do not fill": {"ling_v2", LayoutNative, func(c *synth.Checkpoint) {
		c.Config["num_attention_heads"] = 5
	}, []string{"[24 8]", "27 rows"}},
	"fused rows without a number of heads": {"ling_v2", LayoutNative, func(c *synth.Checkpoint) {
		delete(c.Config, "num_attention_heads")
	}, []string{"needs num_attention_heads"}},
	"fused rows without a size of heads": {"sarvam_moe", LayoutTransformers,
		func(c *synth.Checkpoint) {
			delete(c.Config, "head_dim")
		}, []string{"head_dim"}},
	"fused rows of a number without axes": {"sarvam_moe", LayoutTransformers,
		func(c *synth.Checkpoint) {
			reshaped(c, "model.layers.0.attention.query_key_value.weight", "BF16")
		}, []string{"no rows", "3 parts"}},
	"thirds of a number of rows": {"kimi_k25", LayoutTransformers, func(c *synth.Checkpoint) {
		reshaped(c, "vision_tower.encoder.blocks.0.wqkv.weight", "BF16", 25, 8)
	}, []string{"25 rows", "3 equal parts"}},
	"heads that do not divide the rows": {"kimi_k25", LayoutTransformers,
		func(c *synth.Checkpoint) {
			inConfig(c, "vision_config")["vt_num_attention_heads"] = 3
		}, []string{"[8 8]", "3 heads"}},
	"heads of an odd number of rows": {"llama", LayoutTorchTitan, func(c *synth.Checkpoint) {
		reshaped(c, "model.layers.0.self_attn.k_proj.weight", "BF16", 3, 8)
	}, []string{"[3 8]", "even number of rows"}},
	"no number of heads of the language model": {"llama", LayoutTorchTitan,
		func(c *synth.Checkpoint) {
			delete(c.Config, "num_attention_heads")
		}, []string{"config.json", "num_attention_heads"}},
	"a number of heads that is text": {"llama", LayoutTorchTitan, func(c *synth.Checkpoint) {
		c.Config["num_attention_heads"] = "two"
	}, []string{"num_attention_heads is \"two\"", "whole number"}},
	"no size of keys": {"qwen3_5", LayoutTorchTitan, func(c *synth.Checkpoint) {
		delete(inConfig(c, "text_config"), "linear_key_head_dim")
	}, []string{"config.json", "linear_key_head_dim"}},
	"keys of another size": {"qwen3_5", LayoutTorchTitan, func(c *synth.Checkpoint) {
		inConfig(c, "text_config")["linear_key_head_dim"] = 3
	}, []string{"[8 8]", "10 rows"}},
	"a kernel missing": {"kimi_linear", LayoutTransformers, func(c *synth.Checkpoint) {
		without(c, `k_conv1d`)
	}, []string{"expected model.layers.0.self_attn.k_conv1d.weight"}},
	"the first kernel missing": {"kimi_linear", LayoutTransformers, func(c *synth.Checkpoint) {
		without(c, `q_conv1d`)
	}, []string{"expected model.layers.0.self_attn.q_conv1d.weight"}},
	"a kernel of another length": {"kimi_linear", LayoutTransformers, func(c *synth.Checkpoint) {
		reshaped(c, "model.layers.0.self_attn.k_conv1d.weight", "BF16", 6, 1, 3)
	}, []string{"[6 1 3]", "[6 1 4]"}},
	"kernels of other channels": {"kimi_linear", LayoutTransformers, func(c *synth.Checkpoint) {
		reshaped(c, "model.layers.0.self_attn.k_conv1d.weight", "BF16", 4, 1, 4)
	}, []string{"16 rows", "3 equal parts"}},
	"a gate without up": {"minimax_m3_vl", LayoutTransformers, func(c *synth.Checkpoint) {
		without(c, `shared_experts.up_proj`)
	}, []string{"expected language_model.model.layers.0.block_sparse_moe.shared_experts.up_proj.weight"}},
	"a shard of the table missing": {"qwen4_exp", LayoutTransformers, func(c *synth.Checkpoint) {
		without(c, `shard_1`)
	}, []string{"expected model.layers.0.ple.ple_embedding.ngram_embedding.shard_1.weight"}},
	"the last shard of the table missing": {"qwen4_exp", LayoutTransformers,
		func(c *synth.Checkpoint) {
			without(c, `shard_2`)
		}, []string{"2 such tensors", "split_ngram_parts = 3"}},
	"a shard of another width": {"qwen4_exp", LayoutTransformers, func(c *synth.Checkpoint) {
		reshaped(c, "model.layers.0.ple.ple_embedding.ngram_embedding.shard_1.weight", "BF16", 4, 3)
	}, []string{"[4 3]", "[4 2]"}},
	"no scale of the experts": {"gemma4", LayoutNative, func(c *synth.Checkpoint) {
		without(c, `per_expert_scale`)
	}, []string{"expected model.language_model.layers.0.router.per_expert_scale"}},
	"scales of another number of experts": {"gemma4", LayoutNative, func(c *synth.Checkpoint) {
		reshaped(c, "model.language_model.layers.0.router.per_expert_scale", "F32", 3)
	}, []string{"[2 6 4]", "[3]", "each entry"}},
	"scales that are whole numbers": {"gemma4", LayoutNative, func(c *synth.Checkpoint) {
		reshaped(c, "model.language_model.layers.0.router.per_expert_scale", "I32", 2)
	}, []string{"I32", "expected F32, BF16 or F16"}},
	"scales with two axes": {"gemma4", LayoutNative, func(c *synth.Checkpoint) {
		reshaped(c, "model.language_model.layers.0.router.per_expert_scale", "F32", 2, 1)
	}, []string{"[2 1]", "expected a vector"}},
	"scales without experts": {"gemma4", LayoutNative, func(c *synth.Checkpoint) {
		without(c, `experts.down_proj`)
	}, []string{"expected model.language_model.layers.0.experts.down_proj"}},
	"groups with two axes": {"gemma4", LayoutNative, func(c *synth.Checkpoint) {
		reshaped(c, "model.language_model.layers.0.experts.gate_up_proj", "BF16", 16, 6)
	}, []string{"[16 6]", "three axes"}},
	"groups of another number of experts": {"qwen3_vl_moe", LayoutNative,
		func(c *synth.Checkpoint) {
			reshaped(c, "model.language_model.layers.0.mlp.experts.down_proj", "BF16", 3, 4, 6)
		}, []string{"[3 4 6]", "expected 2"}},
	"groups that do not divide into gate and up": {"qwen3_5_moe", LayoutSplit,
		func(c *synth.Checkpoint) {
			reshaped(c, "model.language_model.layers.0.mlp.experts.gate_up_proj", "BF16", 2, 7, 6)
		}, []string{"[2 7 6]", "2 projections"}},
	"a group missing": {"step3p5", LayoutNative, func(c *synth.Checkpoint) {
		without(c, `moe.up_proj`)
	}, []string{"moe.down_proj.weight", "up projections of layer 1", "incomplete"}},
	"groups of other sizes": {"step3p5", LayoutNative, func(c *synth.Checkpoint) {
		reshaped(c, "model.layers.1.moe.up_proj.weight", "BF16", 2, 5, 8)
	}, []string{"[2 5 8]", "[2 4 8]"}},
	"halves of an odd number of rows": {"hunyuan_image3", LayoutNative, func(c *synth.Checkpoint) {
		reshaped(c, "model.layers.0.mlp.experts.1.gate_and_up_proj.weight", "BF16", 9, 8)
	}, []string{"[9 8]", "as many rows of up as of gate"}},
	"halves of an expert missing": {"hunyuan_image3", LayoutNative, func(c *synth.Checkpoint) {
		without(c, `layers.0.mlp.experts.1.gate_and_up`)
	}, []string{"experts.1.gate_and_up_proj.weight", "incomplete"}},
	"a vector that is turned": {"inkling", LayoutNative, func(c *synth.Checkpoint) {
		reshaped(c, "model.llm.layers.0.mlp.w13_dn.weight", "BF16", 8)
	}, []string{"[8]", "two axes"}},
	"turned whole numbers": {"inkling", LayoutNative, func(c *synth.Checkpoint) {
		reshaped(c, "model.llm.layers.0.mlp.w13_dn.weight", "I32", 8, 6)
	}, []string{"w13_dn.weight", "integers"}},
	"shards that the heads do not fill": {"mimo_v25", LayoutNative, func(c *synth.Checkpoint) {
		c.Config["v_head_dim"] = 3
	}, []string{"[28 8]", "15 rows", "2 shards"}},
	"layers without a pattern": {"mimo_v25", LayoutNative, func(c *synth.Checkpoint) {
		delete(c.Config, "hybrid_layer_pattern")
	}, []string{"hybrid_layer_pattern"}},
	"prediction layers that are text": {"step3p7", LayoutNative, func(c *synth.Checkpoint) {
		inConfig(c, "text_config")["num_nextn_predict_layers"] = "one"
	}, []string{"num_nextn_predict_layers is \"one\"", "whole number"}},
}

// Each source is wrong in one way. The message names the file and the key, what was found, and what
// was expected. If a step fails, it names the layout that needs no steps, and that layout is shown.
func TestDefectsOfStepsAreRefused(t *testing.T) {
	for name, d := range defectsOfSteps {
		t.Run(name, func(t *testing.T) {
			s := randomListed(t, d.family)
			d.spoil(s)
			c := opened(t, s)
			_, err := NewPlan(c, Options{Layout: d.layout})
			if err == nil {
				t.Fatal("not refused")
			}
			says(t, err, d.want)
			if !strings.HasPrefix(err.Error(), "config.json: ") &&
				!strings.HasPrefix(err.Error(), "expert weights missing: ") {
				says(t, err, []string{"model-00001-of-000001.safetensors: "})
			}
			if strings.Contains(err.Error(), "give --layout hf") {
				dict(t, c, Options{Layout: LayoutHF})
			}
		})
	}
}
