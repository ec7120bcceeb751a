package adapter

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Every model_type of the row of Qwen2-MoE has the names and groups of that model, whichever of the
// fields gives its number of experts.
func TestTypesThatOnlyGroupTheirExperts(t *testing.T) {
	for i, modelType := range qwen2Moe.types {
		t.Run(modelType, func(t *testing.T) {
			config := fmt.Sprintf(`{"model_type": %q, %q: 2, "zero_expert_num": 0}`, modelType,
				routedExperts[i%len(routedExperts)])
			c := opened(t, synthetic(t, config, `
				model.layers.0.self_attn.q_proj.weight BF16 8 8
				model.layers.0.mlp.experts.{0,1}.{gate_proj,up_proj}.weight BF16 4 8
				model.layers.0.mlp.experts.{0,1}.down_proj.weight BF16 8 4
				model.layers.0.mlp.gate.weight BF16 2 8`))
			d := dict(t, c, Options{Layout: LayoutTransformers})
			want := map[string][]int64{
				"model.layers.0.self_attn.q_proj.weight":  {8, 8},
				"model.layers.0.mlp.experts.gate_up_proj": {2, 8, 8},
				"model.layers.0.mlp.experts.down_proj":    {2, 8, 4},
				"model.layers.0.mlp.gate.weight":          {2, 8},
			}
			for name, shape := range want {
				if got := mustTensor(t, d, name).Shape(); !slices.Equal(got, shape) {
					t.Errorf("%s: shape %v, want %v", name, got, shape)
				}
			}
			if d.Len() != len(want) {
				t.Errorf("%d tensors, want %d", d.Len(), len(want))
			}
		})
	}
}

// A checkpoint that the layout cannot be made of is refused, with what is missing.
func TestTransformersViewsThatCannotBeMade(t *testing.T) {
	const talker = `{"model_type": "qwen3_omni_moe", "thinker_config": {"text_config": {"num_experts": 1}}, "talker_config": {"text_config": {"num_experts": %s}}}`
	for name, test := range map[string]struct{ config, tensors, want string }{
		"experts without weights": {
			`{"model_type": "longcat_flash", "zero_expert_num": 256}`, `model.norm.weight BF16 8`,
			"zero_expert_num is not 0",
		},
		"no number of heads": {
			`{"model_type": "kimi_k25", "vision_config": {}}`, `
			vision_tower.encoder.blocks.0.wqkv.weight BF16 12 4`,
			"vision_config has no num_attention_heads",
		},
		"rows that do not divide into heads": {
			`{"model_type": "kimi_k25", "vision_config": {"num_attention_heads": 3}}`, `
			vision_tower.encoder.blocks.0.wqkv.weight BF16 12 4`,
			"an even number of rows for each of 3 heads",
		},
		"rows that do not divide into thirds": {
			`{"model_type": "kimi_k25", "vision_config": {"num_attention_heads": 1}}`, `
			vision_tower.encoder.blocks.0.wqkv.bias BF16 8`,
			"8 rows do not divide into 3 equal parts",
		},
		"up without gate": {
			`{"model_type": "minimax_m3_vl"}`, `
			language_model.model.layers.0.mlp.up_proj.weight BF16 4 8`,
			"expected language_model.model.layers.0.mlp.gate_proj.weight beside",
		},
		"a kernel is missing": {
			`{"model_type": "kimi_linear"}`, `
			model.layers.0.self_attn.{q,v}_conv1d.weight BF16 6 1 4`,
			"expected model.layers.0.self_attn.k_conv1d.weight beside",
		},
		"a part of the table is missing": {
			`{"model_type": "qwen4_exp"}`, `
			model.layers.0.ple.ngram_embedding.shard_{0,2}.weight BF16 4 2`,
			"expected model.layers.0.ple.ngram_embedding.shard_1.weight beside",
		},
		"the last part of the table is missing": {
			`{"model_type": "qwen4_exp", "split_ngram_parts": 3}`, `
			model.layers.0.ple.ngram_embedding.shard_{0,1}.weight BF16 4 2`,
			"has 2 such tensors, but config.json has split_ngram_parts = 3",
		},
		"a talker with more experts than it has": {
			fmt.Sprintf(talker, "1"), `
			talker.model.layers.0.mlp.experts.{0,1}.{gate_proj,up_proj}.weight BF16 4 8
			talker.model.layers.0.mlp.experts.{0,1}.down_proj.weight BF16 8 4`,
			"num_experts = 1",
		},
		"a talker with fewer experts than it has": {
			fmt.Sprintf(talker, "2"), `
			talker.model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
			talker.model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4`,
			"expert weights missing",
		},
		"a talker with a number that is none": {
			fmt.Sprintf(talker, `"2"`), `
			talker.model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
			talker.model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4`,
			"expected a whole number",
		},
		"a talker with too many experts": {
			fmt.Sprintf(talker, "100000"), `
			talker.model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
			talker.model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4`,
			"talker_config has 100000 experts",
		},
	} {
		c := opened(t, synthetic(t, test.config, test.tensors))
		_, err := NewPlan(c, Options{Layout: LayoutTransformers})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}
