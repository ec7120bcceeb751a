package adapter

import (
	"slices"
	"strings"
	"testing"
)

// Names in the native layout of keys that a listing does not have: those that a reference adapter
// takes too, and those that look like a rule's without being one.
var nativeNames = []struct{ config, tensors, names string }{
	{
		`{"model_type": "nemotron_h", "num_hidden_layers": 2, "mlp_hidden_act": "relu2"}`, `
		{backbone.embedding,backbone.layers.0.mixer.norm_f,backbone.layers.0.embeddings}.weight BF16 4
		model.norm_f.weight BF16 4
		backbone.layers.1.mixer.{A_log2,inner.D} BF16 4
		mtp.layers.7.norm_f.weight BF16 4`, `
		model.embed_tokens.weight BF16
		model.layers.0.mixer.norm_f.weight BF16
		model.layers.0.embeddings.weight BF16
		model.norm.weight BF16
		model.layers.1.mixer.A_log2 BF16
		model.layers.1.mixer.inner.D BF16
		mtp.layers.7.norm_f.weight BF16`,
	},
	{
		`{"model_type": "laguna", "num_hidden_layers": 1, "num_experts": 1}`, `
		layers.0.mlp.experts.0.{gate_proj,up_proj,down_proj}.weight BF16 4 4
		layers.0.mlp.experts.e_score_correction_bias F32 1
		layers.0.mlp.shared_expert_gate.weight BF16 1 4
		layers.9.mlp.shared_expert.up_proj.weight BF16 4 4`, `
		layers.0.mlp.experts.gate_and_up_projs BF16
		layers.0.mlp.experts.down_projs BF16
		layers.0.mlp.gate.e_score_correction_bias F32
		layers.0.mlp.shared_expert_gate.weight BF16
		layers.9.mlp.shared_experts.up_proj.weight BF16`,
	},
	{
		`{"model_type": "kimi_linear_48b_a3b", "num_hidden_layers": 1, "num_experts": 1}`, `
		layers.0.block_sparse_moe.experts.0.{w1,w2,w3}.weight BF16 4 4
		layers.0.block_sparse_moe.gates.weight BF16 4
		layers.0.linear_attn.dt_bias BF16 4`, `
		layers.0.mlp.experts.gate_and_up_projs BF16
		layers.0.mlp.experts.down_projs BF16
		layers.0.block_sparse_moe.gates.weight BF16
		layers.0.linear_attn.dt_bias F32`,
	},
	{
		`{"model_type": "glm5_next", "text_config": {"model_type": "glm5_next_text", "num_hidden_layers": 1}}`, `
		model.layers.0.{hc_attn_base,self_attn.A_log} BF16 4
		model.language_model.layers.0.{hc_attn_base,self_attn.dt_bias,mlp.e_score_correction_bias} BF16 4`, `
		model.layers.0.hc_attn_base BF16
		model.layers.0.self_attn.A_log BF16
		model.language_model.layers.0.attn_hc._fp32_params.base BF16
		model.language_model.layers.0.self_attn._fp32_params.dt_bias F32
		model.language_model.layers.0.mlp.e_score_correction_bias F32`,
	},
	{
		`{"model_type": "qwen3_omni_moe", "thinker_config": {"text_config": {"num_hidden_layers": 1, "num_experts": 1}}}`, `
		model.layers.0.mlp.experts.0.{gate_proj,up_proj,down_proj}.weight BF16 4 4
		visual.merger.weight BF16 4`, `
		model.layers.0.mlp.experts.gate_and_up_projs BF16
		model.layers.0.mlp.experts.down_projs BF16
		visual.merger.weight BF16`,
	},
	{
		`{"model_type": "gemma4_unified"}`, `
		vision_embedder.{patch_ln1,patch_ln10}.weight BF16 4
		model.vision_embedder.pos_embedding_scale BF16 4
		embed_vision.embedding_projection.weight BF16 4`, `
		embed_vision.patch_ln1.weight BF16
		vision_embedder.patch_ln10.weight BF16
		model.vision_embedder.pos_embedding_scale BF16
		embed_vision.multimodal_embedder.embedding_projection.weight BF16`,
	},
	{
		`{"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalForSequenceClassification"]}`, `
		model.layers.0.self_attn.q_proj.weight BF16 4 4
		score.weight F32 1 4`, `
		model.model.layers.0.self_attn.q_proj.weight BF16
		model.score.weight F32`,
	},
	{
		`{"model_type": "mistral3_bidirec", "architectures": ["Mistral3BidirectionalModel"], "text_config": {"model_type": "ministral3_bidirec"}}`, `
		language_model.layers.0.self_attn.q_proj.weight BF16 4 4
		vision_tower.patch_conv.weight BF16 4`, `
		model.language_model.layers.0.self_attn.q_proj.weight BF16
		model.vision_tower.patch_conv.weight BF16`,
	},
	{
		`{"model_type": "NemotronH_Nano_Omni_Reasoning_V3", "architectures": ["NemotronH_Nano_Omni_Reasoning_V3"], "llm_config": {"model_type": "nemotron_h", "num_hidden_layers": 1}}`, `
		language_model.model.embeddings.weight BF16 4
		vision_model.radio_model.model.blocks.0.attn.qkv.weight BF16 6 4
		vision_projector.vision_final_layernorm.bias BF16 4
		mlp1.10.weight BF16 4`, `
		language_model.model.embed_tokens.weight BF16
		vision_model.radio_model.model.blocks.0.attn.qkv.weight BF16
		vision_projector.vision_final_layernorm.bias BF16
		mlp1.10.weight BF16`,
	},
	{
		`{"model_type": "muse_glimmer", "architectures": ["MuseGlimmerForConditionalGeneration"]}`, `
		model.layers.0.post_attention_layernorm.weight BF16 4
		model.layers.0.self_attn.gate_proj.weight BF16 4
		model.vision_encoder.transformer.0.norm1.weight BF16 4
		model.rotary_emb.freqs F32 4`, `
		model.layers.0.post_attention_layernorm.weight BF16
		model.layers.0.self_attn.gate_proj.weight BF16
		model.vision_encoder.transformer.0.norm1.weight BF16
		model.rotary_emb.freqs F32`,
	},
}

func TestNativeNamesOfOtherKeys(t *testing.T) {
	for _, x := range nativeNames {
		c := opened(t, synthetic(t, x.config, x.tensors))
		var got, want []string
		for l := range dict(t, c, Options{Layout: LayoutNative}).All() {
			got = append(got, l.Name()+" "+l.DType().String())
		}
		for line := range strings.Lines(strings.TrimSpace(x.names)) {
			want = append(want, strings.TrimSpace(line))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: names\n%s\nwant\n%s", x.config, strings.Join(got, "\n"),
				strings.Join(want, "\n"))
		}
	}
}

// The talker has a number of experts of its own, which are all shown on every rank.
func TestTalkersExpertsAreOnEveryRank(t *testing.T) {
	l := listed["qwen3_omni_moe"]
	c := opened(t, synthetic(t, l.config, l.tensors))
	for rank := range 2 {
		d := dict(t, c, Options{Layout: LayoutNative, EP: EP{rank, 2}})
		if g := mustTensor(t, d, "model.layers.0.mlp.experts.down_projs"); g.Shape()[0] != 1 {
			t.Errorf("rank %d: the thinker's experts have shape %v, want one", rank, g.Shape())
		}
		mustTensor(t, d, "talker.model.layers.0.mlp.experts.2.up_proj.weight")
	}
}

// A fused matrix of query, key and value that does not divide into three is refused.
func TestFusedMatrixInUnequalParts(t *testing.T) {
	c := opened(t, synthetic(t, listed["nemotron_omni_radio"].config,
		"vision_model.radio_model.model.blocks.0.attn.qkv.weight BF16 7 4"))
	_, err := NewPlan(c, Options{Layout: LayoutNative})
	if err == nil || !strings.Contains(err.Error(), "7 rows do not divide into 3 equal parts") {
		t.Errorf("error %v, want one about 7 rows", err)
	}
}
