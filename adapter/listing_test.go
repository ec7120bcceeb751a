package adapter

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

var update = flag.Bool("update", false,
	"write testdata/plans, testdata/hostile/errors.txt and testdata/partitions/refused.txt again")

// listing is a small source: a config.json and lines "key dtype shape". "FP8" means F8_E4M3
// with its scale in F32 beside it.
type listing struct{ config, tensors string }

// listed are small sources, one for each family.
var listed = map[string]listing{
	"deepseek_v3": {
		`{"model_type": "deepseek_v3", "num_hidden_layers": 2, "n_routed_experts": 2, "num_nextn_predict_layers": 1}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.mlp.gate_proj.weight FP8 200 8
		model.layers.1.input_layernorm.weight BF16 8
		model.layers.1.self_attn.q_a_proj.weight FP8 6 8
		model.layers.1.self_attn.kv_a_proj_with_mqa.weight FP8 6 8
		model.layers.1.mlp.gate.weight BF16 2 8
		model.layers.1.mlp.gate.e_score_correction_bias F32 2
		model.layers.1.mlp.experts.{0,1}.{gate_proj,up_proj}.weight FP8 4 8
		model.layers.1.mlp.experts.{0,1}.down_proj.weight FP8 8 4
		model.layers.1.mlp.shared_experts.up_proj.weight FP8 4 8
		model.layers.2.eh_proj.weight BF16 8 16
		model.layers.2.embed_tokens.weight BF16 16 8
		model.layers.2.shared_head.head.weight BF16 16 8
		model.layers.2.shared_head.norm.weight BF16 8
		model.layers.2.mlp.experts.{0,1}.{gate_proj,up_proj}.weight FP8 4 8
		model.layers.2.mlp.experts.{0,1}.down_proj.weight FP8 8 4
		model.norm.weight BF16 8
		lm_head.weight BF16 16 8`,
	},
	"deepseek_v32": {
		`{"model_type": "deepseek_v32", "num_hidden_layers": 2, "n_routed_experts": 1}`, `
		model.layers.1.self_attn.indexer.wq_b.weight FP8 8 8
		model.layers.1.self_attn.indexer.k_norm.weight BF16 8
		model.layers.1.self_attn.indexer.k_norm.bias BF16 8
		model.layers.1.self_attn.indexer.weights_proj.weight BF16 8 8
		model.layers.1.mlp.experts.0.{gate_proj,up_proj}.weight FP8 4 8
		model.layers.1.mlp.experts.0.down_proj.weight FP8 8 4`,
	},
	"kimi_vl": {
		`{"model_type": "kimi_vl", "text_config": {"model_type": "deepseek_v3", "num_hidden_layers": 2, "n_routed_experts": 1}}`, `
		language_model.model.embed_tokens.weight BF16 16 8
		language_model.model.layers.1.mlp.experts.0.{gate_proj,up_proj}.weight FP8 4 8
		language_model.model.layers.1.mlp.experts.0.down_proj.weight FP8 8 4
		language_model.lm_head.weight BF16 16 8
		vision_tower.encoder.blocks.0.wqkv.weight BF16 9 8
		multi_modal_projector.linear_1.weight BF16 8 8`,
	},
	"minimax_m2": {
		`{"model_type": "minimax_m2", "num_hidden_layers": 1, "num_local_experts": 2}`, `
		model.layers.0.block_sparse_moe.gate.weight F32 2 8
		model.layers.0.block_sparse_moe.e_score_correction_bias F32 2
		model.layers.0.block_sparse_moe.experts.{0,1}.{w1,w3}.weight FP8 4 8
		model.layers.0.block_sparse_moe.experts.{0,1}.w2.weight FP8 8 4`,
	},
	"mimo_v2_flash": {
		`{"model_type": "mimo_v2_flash", "num_hidden_layers": 1, "n_routed_experts": 1}`, `
		model.layers.0.self_attn.attention_sink_bias BF16 4
		model.layers.0.self_attn.k_proj.weight FP8 8 8
		model.layers.0.self_attn.o_proj.weight BF16 8 8
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight FP8 4 8
		model.layers.0.mlp.experts.0.down_proj.weight FP8 8 4
		model.mtp.layers.0.mlp.up_proj.weight FP8 8 8`,
	},
	"qwen3_moe": {
		`{"model_type": "qwen3_moe", "num_hidden_layers": 1, "num_experts": 2}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.self_attn.q_proj.weight FP8 8 8
		model.layers.0.self_attn.q_norm.weight BF16 8
		model.layers.0.mlp.gate.weight BF16 2 8
		model.layers.0.mlp.experts.{0,1}.{gate_proj,up_proj}.weight FP8 4 8
		model.layers.0.mlp.experts.{0,1}.down_proj.weight FP8 8 4
		model.norm.weight BF16 8
		lm_head.weight BF16 16 8`,
	},
	"qwen3_5_moe": {
		`{"model_type": "qwen3_5_moe", "architectures": ["Qwen3_5MoeForConditionalGeneration"], "text_config": {"num_hidden_layers": 1, "num_experts": 2}}`, `
		model.language_model.layers.0.linear_attn.A_log BF16 4
		model.language_model.layers.0.linear_attn.dt_bias F32 4
		model.language_model.layers.0.linear_attn.in_proj_qkv.weight BF16 8 8
		model.language_model.layers.0.mlp.experts.gate_up_proj BF16 2 8 6
		model.language_model.layers.0.mlp.experts.down_proj BF16 2 6 4
		model.language_model.layers.0.mlp.shared_expert.up_proj.weight BF16 4 6
		model.language_model.layers.0.mlp.shared_expert_gate.weight BF16 1 6
		mtp.fc.weight BF16 6 12
		mtp.layers.0.mlp.experts.{0,1}.{gate_proj,up_proj}.weight BF16 4 6
		mtp.layers.0.mlp.experts.{0,1}.down_proj.weight BF16 6 4
		mtp.norm.weight BF16 6
		model.visual.blocks.0.attn.qkv.weight BF16 6 2
		model.lm_head.weight BF16 16 6`,
	},
	"qwen3_5": {
		`{"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text", "num_hidden_layers": 2, "linear_num_key_heads": 1, "linear_key_head_dim": 2, "linear_num_value_heads": 2, "linear_value_head_dim": 2}}`, `
		model.language_model.embed_tokens.weight BF16 16 8
		model.language_model.layers.0.linear_attn.A_log BF16 4
		model.language_model.layers.0.linear_attn.in_proj_qkv.weight FP8 8 8
		model.language_model.layers.0.linear_attn.conv1d.weight BF16 8 1 4
		model.language_model.layers.0.linear_attn.{norm,out_proj}.weight BF16 8 8
		model.language_model.layers.0.mlp.up_proj.weight FP8 8 8
		model.language_model.layers.1.self_attn.{q,o}_proj.weight BF16 8 8
		model.language_model.layers.1.self_attn.q_norm.weight BF16 8
		model.language_model.layers.1.{input,post_attention}_layernorm.weight BF16 8
		model.visual.patch_embed.proj.weight BF16 8 3 2 2 2
		model.visual.pos_embed.weight BF16 9 8
		model.visual.blocks.0.attn.qkv.{weight,bias} BF16 24 8
		model.visual.blocks.0.{attn.proj,mlp.linear_fc1,norm1}.weight BF16 8 8
		model.visual.merger.norm.weight BF16 8
		mtp.pre_fc_norm_hidden.weight BF16 8`,
	},
	"qwen3_8_flash_next": {
		`{"model_type": "qwen4_exp", "text_config": {"model_type": "qwen4_exp_text", "num_hidden_layers": 1, "num_experts": 2, "mtp_num_hidden_layers": 1, "split_ngram_parts": 11}}`, `
		model.language_model.layers.0.linear_attn.{A_log,dt_bias} F32 4
		model.language_model.layers.0.linear_attn.in_proj_qkv.weight BF16 8 8
		model.language_model.layers.0.ple.ple_embedding.ngram_embedding.shard_{0,1,2,3,4,5,6,7,8,9,10}.weight BF16 4 6
		model.language_model.layers.0.ple.ple_embedding.value_proj.weight BF16 6 4
		{model.language_model.layers.0,mtp.layers.0}.mlp.experts.gate_up_proj BF16 2 8 6
		{model.language_model.layers.0,mtp.layers.0}.mlp.experts.down_proj BF16 2 6 4
		{model.language_model.layers.0,mtp.layers.0}.mlp.shared_expert.up_proj.weight BF16 4 6
		mtp.fc.weight BF16 6 12
		model.visual.blocks.0.attn.qkv.weight BF16 6 2
		lm_head.weight BF16 16 6`,
	},
	"qwen3_omni_moe": {
		`{"model_type": "qwen3_omni_moe", "thinker_config": {"model_type": "qwen3_omni_moe_thinker", "text_config": {"model_type": "qwen3_omni_moe_text", "num_hidden_layers": 1, "num_experts": 2}}, "talker_config": {"model_type": "qwen3_omni_moe_talker", "text_config": {"num_experts": 3}}}`, `
		thinker.model.embed_tokens.weight BF16 16 8
		{thinker,talker}.model.layers.0.mlp.experts.{0,1}.{gate_proj,up_proj}.weight FP8 4 8
		{thinker,talker}.model.layers.0.mlp.experts.{0,1}.down_proj.weight FP8 8 4
		talker.model.layers.0.mlp.experts.2.{gate_proj,up_proj}.weight FP8 4 8
		talker.model.layers.0.mlp.experts.2.down_proj.weight FP8 8 4
		talker.model.layers.0.mlp.shared_expert.up_proj.weight BF16 4 8
		thinker.audio_tower.layers.0.self_attn.q_proj.weight BF16 8 8
		thinker.visual.blocks.0.attn.qkv.weight BF16 24 8
		thinker.lm_head.weight BF16 16 8
		code2wav.pre_transformer.layers.0.self_attn.q_proj.weight BF16 8 8`,
	},
	"qwen3_omni_moe_thinker": {
		`{"model_type": "qwen3_omni_moe_thinker", "text_config": {"model_type": "qwen3_omni_moe_text", "num_hidden_layers": 1, "num_experts": 1}}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4
		visual.blocks.0.attn.qkv.weight BF16 24 8`,
	},
	"qwen2_5_omni": {
		`{"model_type": "qwen2_5_omni", "thinker_config": {"model_type": "qwen2_5_omni_thinker", "text_config": {"model_type": "qwen2_5_omni_text", "num_hidden_layers": 1}}, "talker_config": {"model_type": "qwen2_5_omni_talker"}}`, `
		{thinker,talker}.model.layers.0.mlp.up_proj.weight FP8 4 8
		thinker.audio_tower.audio_bos_eos_token.weight BF16 2 8
		thinker.audio_tower.conv1.weight BF16 8 4 3
		thinker.visual.blocks.0.attn.qkv.weight BF16 24 8
		thinker.lm_head.weight BF16 16 8
		token2wav.code2wav_dit_model.text_embed.codec_embed.weight BF16 9 8`,
	},
	"qwen2_5_omni_thinker": {
		`{"model_type": "qwen2_5_omni_thinker", "text_config": {"model_type": "qwen2_5_omni_text", "num_hidden_layers": 1}}`, `
		model.layers.0.mlp.up_proj.weight BF16 4 8
		audio_tower.audio_bos_eos_token.weight BF16 2 8
		audio_tower.conv1.weight BF16 8 4 3`,
	},
	"qwen3_next": {
		`{"model_type": "qwen3_next", "num_hidden_layers": 1, "num_experts": 1}`, `
		model.layers.0.linear_attn.A_log BF16 4
		model.layers.0.linear_attn.dt_bias BF16 4
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4
		model.layers.0.mlp.shared_expert.up_proj.weight BF16 4 8
		mtp.layers.0.mlp.experts.0.up_proj.weight FP8 4 8
		mtp.layers.0.mlp.shared_expert.up_proj.weight BF16 4 8`,
	},
	"glm4_moe": {
		`{"model_type": "glm4_moe", "num_hidden_layers": 1, "n_routed_experts": 1, "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"strategy": "channel"}}}}}`, `
		model.layers.0.self_attn.q_proj.weight F8_E4M3 4 8
		model.layers.0.self_attn.q_proj.weight_scale BF16 4 1
		model.layers.0.self_attn.k_proj.k_scale F32
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4
		model.layers.1.eh_proj.weight BF16 8 16`,
	},
	"glm5_next": {
		`{"model_type": "glm5_next", "text_config": {"model_type": "glm5_next_text", "num_hidden_layers": 2, "n_routed_experts": 2, "num_nextn_predict_layers": 1}}`, `
		model.language_model.layers.{0,1,2}.hc_{attn,ffn}_{fn,base,scale} F32 6
		model.language_model.layers.0.self_attn.{A_log,dt_bias} BF16 4
		model.language_model.layers.0.self_attn.{q_proj,f_b_proj}.weight BF16 8 8
		model.language_model.layers.0.self_attn.{q,k,v}_conv1d.weight BF16 8 1 4
		model.language_model.layers.0.mlp.up_proj.weight FP8 8 8
		model.language_model.layers.1.self_attn.q_b_proj.weight FP8 8 8
		model.language_model.layers.1.mlp.gate.e_score_correction_bias BF16 2
		{model.language_model.layers.1,model.language_model.layers.2}.mlp.experts.{0,1}.{gate_proj,up_proj}.weight FP8 4 8
		{model.language_model.layers.1,model.language_model.layers.2}.mlp.experts.{0,1}.down_proj.weight FP8 8 4
		model.language_model.layers.2.eh_proj.weight BF16 8 16
		model.visual.blocks.0.attn.qkv.weight BF16 24 8
		lm_head.weight BF16 16 8`,
	},
	"ernie4_5_moe": {
		`{"model_type": "ernie4_5_moe", "num_hidden_layers": 1, "moe_num_experts": 1}`, `
		model.layers.0.mlp.moe_statics.e_score_correction_bias F32 1 4
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4
		model.mtp_emb_norm.0.weight BF16 8`,
	},
	"hy_v3": {
		`{"model_type": "hy_v3", "num_hidden_layers": 1, "num_experts": 1, "num_nextn_predict_layers": 1}`, `
		model.layers.0.mlp.expert_bias F32 1
		model.layers.0.mlp.router.gate.weight BF16 1 8
		model.layers.0.mlp.shared_mlp.up_proj.weight BF16 4 8
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4
		model.layers.1.eh_proj.weight BF16 8 16`,
	},
	"hy_mt2": {
		`{"model_type": "hy_mt2", "num_hidden_layers": 1, "num_experts": 1}`, `
		model.layers.0.mlp.expert_bias F32 1
		model.layers.0.mlp.router.gate.weight BF16 1 8
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4
		model.layers.1.mlp.router.gate.weight BF16 1 8`,
	},
	"laguna": {
		`{"model_type": "laguna", "num_hidden_layers": 1, "num_experts": 2}`, `
		model.layers.0.mlp.experts.e_score_correction_bias F32 2
		model.layers.0.mlp.gate.weight BF16 2 8
		model.layers.0.mlp.experts.{0,1}.{gate_proj,up_proj}.weight FP8 4 8
		model.layers.0.mlp.experts.{0,1}.down_proj.weight FP8 8 4
		model.layers.0.mlp.shared_expert.up_proj.weight FP8 4 8
		lm_head.weight BF16 16 8`,
	},
	"ling_v2": {
		`{"model_type": "bailing_moe", "num_hidden_layers": 1, "num_experts": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 3}`, `
		model.word_embeddings.weight BF16 16 8
		model.layers.0.attention.query_key_value.weight FP8 24 8
		model.layers.0.attention.dense.weight BF16 8 12
		model.layers.0.attention.query_layernorm.weight BF16 3
		model.layers.0.mlp.gate.expert_bias F32 1
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4`,
	},
	"mistral3": {
		`{"model_type": "mistral3", "text_config": {"model_type": "ministral3", "num_hidden_layers": 1}, "quantization_config": {"quant_method": "fp8", "weight_block_size": null}}`, `
		language_model.model.layers.0.self_attn.q_proj.weight F8_E4M3 4 8
		language_model.model.layers.0.self_attn.q_proj.weight_scale_inv BF16
		language_model.model.layers.0.self_attn.q_proj.activation_scale BF16
		language_model.lm_head.weight BF16 16 8
		vision_tower.patch_conv.weight BF16 8 3 2 2
		multi_modal_projector.norm.weight BF16 8`,
	},
	"mistral3_reranker": {
		`{"model_type": "mistral3", "architectures": ["Mistral3ForSequenceClassification"], "text_config": {"model_type": "ministral3", "num_hidden_layers": 1}}`, `
		model.language_model.embed_tokens.weight BF16 16 8
		model.language_model.layers.0.self_attn.q_proj.weight BF16 4 8
		language_model.score.weight F32 1 8
		model.vision_tower.patch_conv.weight BF16 8 3 2 2`,
	},
	"cross_encoder": {
		`{"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalForSequenceClassification"], "num_hidden_layers": 1}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.self_attn.q_proj.weight BF16 4 8
		score.weight F32 1 8`,
	},
	"encoder": {
		`{"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalModel"], "num_hidden_layers": 1}`, `
		embed_tokens.weight BF16 16 8
		layers.0.self_attn.q_proj.weight BF16 4 8
		norm.weight BF16 8`,
	},
	"aria": {
		`{"model_type": "aria", "text_config": {"model_type": "aria_text", "num_hidden_layers": 1, "moe_num_experts": 2}, "vision_config": {"model_type": "idefics3_vision"}}`, `
		language_model.model.embed_tokens.weight BF16 16 6
		language_model.model.layers.0.mlp.router.weight BF16 2 6
		language_model.model.layers.0.mlp.experts.fc1.weight BF16 2 6 8
		language_model.model.layers.0.mlp.experts.fc2.weight BF16 2 4 6
		language_model.lm_head.weight BF16 16 6
		vision_tower.encoder.layers.0.self_attn.q_proj.weight BF16 2 2
		multi_modal_projector.query BF16 4 2`,
	},
	"aria_text": {
		`{"model_type": "aria_text", "num_hidden_layers": 1, "moe_num_experts": 2}`, `
		model.embed_tokens.weight BF16 16 6
		model.layers.0.mlp.experts.fc1.weight BF16 2 6 8
		model.layers.0.mlp.experts.fc2.weight BF16 2 4 6
		lm_head.weight BF16 16 6`,
	},
	"deepseek_ocr2": {
		`{"model_type": "deepseek_ocr2", "text_config": {"model_type": "deepseek_ocr2_text", "num_hidden_layers": 1, "n_routed_experts": 2}}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.mlp.gate.weight BF16 2 8
		model.layers.0.mlp.experts.{0,1}.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.{0,1}.down_proj.weight BF16 8 4
		model.norm.weight BF16 8
		model.projector.layers.{weight,bias} BF16 8 4
		model.qwen2_model.model.model.layers.0.mlp.up_proj.weight BF16 4 4
		model.qwen2_model.model.model.norm.weight BF16 4
		model.qwen2_model.{query_768,query_1024}.weight BF16 4 4
		model.sam_model.blocks.0.{attn.qkv,mlp.lin1,norm1,norm2}.weight BF16 4 4
		model.sam_model.neck.{0,1,2,3}.weight BF16 4
		model.sam_model.{net_2,net_3,patch_embed.proj}.weight BF16 4 4 3 3
		model.sam_model.pos_embed BF16 1 2 2 4
		model.view_seperator BF16 8
		lm_head.weight BF16 16 8`,
	},
	"unlimited_ocr": {
		`{"model_type": "unlimited_ocr", "text_config": {"model_type": "unlimited_ocr_text", "num_hidden_layers": 1, "n_routed_experts": 2}}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.self_attn.{q_proj,k_proj,v_proj}.weight BF16 8 8
		model.layers.0.mlp.experts.{0,1}.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.{0,1}.down_proj.weight BF16 8 4
		model.projector.layers.{weight,bias} BF16 8 4
		model.sam_model.blocks.0.attn.qkv.weight BF16 12 4
		model.vision_model.pre_layrnorm.weight BF16 4
		model.vision_model.transformer.layers.0.self_attn.qkv_proj.{weight,bias} BF16 12
		model.vision_model.transformer.layers.0.self_attn.out_proj.weight BF16 4 4
		{model.image_newline,model.view_seperator} BF16 8
		lm_head.weight BF16 16 8`,
	},
	"qwen3_vl_moe": {
		`{"model_type": "qwen3_vl_moe", "text_config": {"model_type": "qwen3_vl_moe_text", "hidden_size": 6, "num_hidden_layers": 2, "num_experts": 2}}`, `
		model.language_model.embed_tokens.weight BF16 16 6
		model.language_model.layers.0.mlp.gate.weight BF16 2 6
		model.language_model.layers.{0,1}.mlp.experts.gate_up_proj BF16 2 6 8
		model.language_model.layers.{0,1}.mlp.experts.down_proj BF16 2 4 6
		model.visual.blocks.0.attn.qkv.weight BF16 6 2
		lm_head.weight BF16 16 6`,
	},
	"qwen3_vl_moe_saved": {
		`{"model_type": "qwen3_vl_moe", "text_config": {"model_type": "qwen3_vl_moe_text", "hidden_size": 6, "num_hidden_layers": 1, "num_experts": 2}}`, `
		language_model.embed_tokens.weight BF16 16 6
		language_model.layers.0.mlp.experts.gate_up_proj BF16 2 8 6
		language_model.layers.0.mlp.experts.down_proj BF16 2 6 4
		visual.blocks.0.attn.qkv.weight BF16 6 2
		lm_head.weight BF16 16 6`,
	},
	"hunyuan_image3": {
		`{"model_type": "hunyuan_image_3_moe", "num_hidden_layers": 2, "num_experts": [2, 2], "moe_intermediate_size": [4, 4]}`, `
		model.wte.weight BF16 16 8
		model.layers.0.mlp.gate.wg.weight F32 2 8
		model.layers.0.mlp.experts.{0,1}.gate_and_up_proj.weight BF16 8 8
		model.layers.0.mlp.experts.{0,1}.down_proj.weight BF16 8 4
		model.layers.0.mlp.shared_mlp.gate_and_up_proj.weight BF16 8 8
		model.layers.1.mlp.experts.{0,1}.gate_and_up_proj.weight FP8 8 8
		model.layers.1.mlp.experts.{0,1}.down_proj.weight FP8 8 4
		model.ln_f.weight BF16 8
		model.timestep_emb.mlp.0.weight BF16 8 8
		vae.encoder.conv_in.weight BF16 8 3 3 3
		vision_model.embeddings.patch_embedding.weight BF16 8 3 2 2
		vision_aligner.layers.0.weight BF16 8 8
		lm_head.weight BF16 16 8`,
	},
	"step3p5": {
		`{"model_type": "step3p5", "num_hidden_layers": 2, "moe_num_experts": 2, "num_nextn_predict_layers": 1}`, `
		model.layers.0.self_attn.g_proj.weight BF16 2 8
		model.layers.0.mlp.up_proj.weight FP8 8 8
		model.layers.1.moe.gate.weight BF16 2 8
		model.layers.1.moe.router_bias F32 2
		model.layers.1.moe.{gate_proj,up_proj}.weight BF16 2 4 8
		model.layers.1.moe.down_proj.weight BF16 2 8 4
		model.layers.1.share_expert.up_proj.weight BF16 4 8
		model.layers.2.mlp.up_proj.weight FP8 8 8
		model.layers.2.transformer.shared_head.output.weight BF16 16 8
		model.norm.weight BF16 8
		lm_head.weight BF16 16 8`,
	},
	"step3p7": {
		`{"model_type": "step3p7", "text_config": {"model_type": "step3p5", "num_hidden_layers": 1, "moe_num_experts": 2, "num_nextn_predict_layers": 1}}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.{0,1,2}.moe.router_bias F32 2
		model.layers.{0,1,2}.moe.{gate_proj,up_proj}.weight BF16 2 4 8
		model.layers.{0,1,2}.moe.down_proj.weight BF16 2 8 4
		model.layers.1.eh_proj.weight BF16 8 16
		model.norm.weight BF16 8
		vision_model.conv1.weight BF16 8 3 2 2
		vit_large_projector.weight BF16 8 8
		lm_head.weight BF16 16 8`,
	},
	"gemma4": {
		`{"model_type": "gemma4", "text_config": {"model_type": "gemma4_text", "num_hidden_layers": 1, "num_experts": 2}}`, `
		model.language_model.layers.0.experts.gate_up_proj BF16 2 8 6
		model.language_model.layers.0.experts.down_proj BF16 2 6 4
		model.language_model.layers.0.router.proj.weight BF16 2 6
		model.language_model.layers.0.router.scale BF16 6
		model.language_model.layers.0.router.per_expert_scale F32 2
		model.language_model.layers.0.mlp.up_proj.weight FP8 8 6
		model.embed_vision.embedding_projection.weight BF16 6 6`,
	},
	"diffusion_gemma": {
		`{"model_type": "diffusion_gemma", "text_config": {"model_type": "diffusion_gemma_text", "num_hidden_layers": 1, "num_experts": 2}}`, `
		model.decoder.embed_tokens.weight BF16 16 6
		model.decoder.layers.0.experts.gate_up_proj BF16 2 8 6
		model.decoder.layers.0.experts.down_proj BF16 2 6 4
		model.decoder.layers.0.router.proj.weight BF16 2 6
		model.decoder.layers.0.router.{scale,per_expert_scale} BF16 2
		model.decoder.self_conditioning.up_proj.weight BF16 8 6
		model.decoder.norm.weight BF16 6
		model.encoder.language_model.layers.0.layer_scalar BF16 1`,
	},
	"inkling": {
		`{"model_type": "inkling_mm_model", "text_config": {"model_type": "inkling_text", "num_hidden_layers": 2, "n_routed_experts": 2}}`, `
		model.llm.{embed,unembed}.weight BF16 16 6
		model.llm.{embed_norm,norm}.weight BF16 6
		model.llm.layers.0.attn.{wq_du,wk_dv,wv_dv,wr_du,wo_ud}.weight BF16 6 6
		model.llm.layers.0.attn.{q_norm,k_norm}.weight BF16 6
		model.llm.layers.0.attn.{k_sconv,v_sconv}.weight BF16 6 1 4
		model.llm.layers.0.attn.rel_logits_proj.proj BF16 4 6
		model.llm.layers.0.{attn_sconv,mlp_sconv}.weight BF16 6 1 4
		model.llm.layers.0.{attn_norm,mlp_norm}.weight BF16 6
		model.llm.layers.0.mlp.w13_dn.weight BF16 8 6
		model.llm.layers.0.mlp.w2_md.weight BF16 6 4
		model.llm.layers.1.mlp.gate.{weight,bias} BF16 3 6
		model.llm.layers.1.mlp.gate.global_scale F32 1
		model.llm.layers.1.mlp.experts.w13_weight BF16 2 8 6
		model.llm.layers.1.mlp.experts.w2_weight BF16 2 6 4
		model.llm.layers.1.mlp.shared_experts.shared_w13_weight BF16 1 8 6
		model.llm.layers.1.mlp.shared_experts.shared_w2_weight BF16 1 6 4
		model.mtp.layers.0.input_proj.weight BF16 6 12
		model.audio.{encoder,final_norm}.weight BF16 6
		model.visual.layers.{linear_0,norm_0}.weight BF16 8
		model.visual.final_norm.weight BF16 8`,
	},
	"mimo_v25": {
		`{"model_type": "mimo_v2", "architectures": ["MiMoV25ForCausalLM"], "num_hidden_layers": 2, "n_routed_experts": 1, "hybrid_layer_pattern": [0, 1], "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "v_head_dim": 2, "swa_num_attention_heads": 2, "swa_num_key_value_heads": 1, "swa_head_dim": 4, "swa_v_head_dim": 2}`, `
		model.layers.0.self_attn.qkv_proj.weight F8_E4M3 28 8
		model.layers.0.self_attn.qkv_proj.weight_scale_inv F32 2 1
		model.layers.1.self_attn.qkv_proj.weight F8_E4M3 20 8
		model.layers.1.self_attn.qkv_proj.weight_scale_inv F32 2 1
		model.layers.1.self_attn.attention_sink_bias BF16 4
		model.layers.1.self_attn.o_proj.weight BF16 8 8
		model.layers.1.mlp.gate.weight F32 1 8
		model.layers.1.mlp.experts.0.{gate_proj,up_proj}.weight FP8 4 8
		model.layers.1.mlp.experts.0.down_proj.weight FP8 8 4`,
	},
	"mimo_v2": {
		`{"model_type": "mimo_v2", "architectures": ["MiMoV2ForCausalLM"], "num_hidden_layers": 1, "n_routed_experts": 1, "hybrid_layer_pattern": [0], "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "v_head_dim": 2}`, `
		model.layers.0.self_attn.qkv_proj.weight FP8 28 8
		model.layers.0.self_attn.o_proj.weight BF16 8 8
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4
		visual.blocks.0.attn.qkv.weight BF16 6 2`,
	},
	"gpt_oss": {
		`{"model_type": "gpt_oss", "num_hidden_layers": 1, "num_local_experts": 2}`, `
		model.embed_tokens.weight BF16 16 6
		model.layers.0.input_layernorm.weight BF16 6
		model.layers.0.self_attn.{q,k,v,o}_proj.{weight,bias} BF16 6 6
		model.layers.0.self_attn.sinks BF16 4
		model.layers.0.mlp.router.{weight,bias} BF16 2 6
		model.layers.0.mlp.experts.gate_up_proj BF16 2 6 8
		model.layers.0.mlp.experts.gate_up_proj_bias BF16 2 8
		model.layers.0.mlp.experts.down_proj BF16 2 4 6
		model.layers.0.mlp.experts.down_proj_bias BF16 2 6
		model.norm.weight BF16 6
		lm_head.weight BF16 16 6`,
	},
	"kimi_k25": {
		`{"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2", "num_hidden_layers": 2, "n_routed_experts": 2}, "vision_config": {"vt_num_attention_heads": 1}}`, `
		language_model.model.embed_tokens.weight BF16 16 8
		language_model.model.layers.1.mlp.gate.e_score_correction_bias F32 2
		language_model.model.layers.1.mlp.experts.{0,1}.{gate_proj,up_proj}.weight BF16 4 8
		language_model.model.layers.1.mlp.experts.{0,1}.down_proj.weight BF16 8 4
		language_model.model.layers.2.eh_proj.weight BF16 8 16
		language_model.lm_head.weight BF16 16 8
		mm_projector.pre_norm.weight BF16 8
		mm_projector.proj.{0,2}.{weight,bias} BF16 8
		vision_tower.patch_embed.proj.weight F32 8 3 2 2
		vision_tower.patch_embed.pos_emb.weight BF16 2 2 8
		vision_tower.encoder.blocks.0.wqkv.{weight,bias} BF16 24 8
		vision_tower.encoder.blocks.0.{norm0,norm1,wo,mlp.fc0,mlp.fc1}.{weight,bias} BF16 8
		vision_tower.encoder.final_layernorm.bias BF16 8`,
	},
	"kimi_linear": {
		`{"model_type": "kimi_linear", "num_hidden_layers": 2, "num_experts": 2}`, `
		model.layers.0.self_attn.A_log F32 1 1 2 1
		model.layers.0.self_attn.dt_bias BF16 6
		model.layers.0.self_attn.{q,k,v}_conv1d.weight BF16 6 1 4
		model.layers.0.self_attn.f_a_proj.weight BF16 8 8
		model.layers.0.mlp.up_proj.weight FP8 4 8
		model.layers.1.block_sparse_moe.gate.weight BF16 2 8
		model.layers.1.block_sparse_moe.gate.e_score_correction_bias BF16 2
		model.layers.1.block_sparse_moe.shared_experts.up_proj.weight FP8 4 8
		model.layers.1.block_sparse_moe.experts.{0,1}.{w1,w3}.weight FP8 4 8
		model.layers.1.block_sparse_moe.experts.{0,1}.w2.weight FP8 8 4
		lm_head.weight BF16 16 8`,
	},
	"kimi_k3": {
		`{"model_type": "kimi_k3", "text_config": {"model_type": "kimi_linear", "num_hidden_layers": 2, "num_experts": 2, "linear_attn_config": {"num_heads": 3}}}`, `
		language_model.model.layers.0.self_attn.A_log F32 128
		language_model.model.layers.0.self_attn.dt_bias BF16 6
		language_model.model.layers.0.self_attn.{q,k,v}_conv1d.weight BF16 6 1 4
		language_model.model.layers.0.self_attn.o_norm.weight BF16 2
		language_model.model.layers.0.mlp.up_proj.weight BF16 4 8
		language_model.model.layers.1.block_sparse_moe.gate.weight BF16 2 8
		language_model.model.layers.1.block_sparse_moe.gate.e_score_correction_bias BF16 2
		language_model.model.layers.1.block_sparse_moe.shared_experts.up_proj.weight BF16 4 8
		language_model.model.layers.1.block_sparse_moe.routed_expert_{down_proj,up_proj,norm}.weight BF16 8 8
		language_model.model.layers.1.block_sparse_moe.experts.{0,1}.{w1,w3}.weight BF16 4 8
		language_model.model.layers.1.block_sparse_moe.experts.{0,1}.w2.weight BF16 8 4
		language_model.lm_head.weight BF16 16 8
		vision_tower.encoder.blocks.0.wqkv.weight BF16 8 8
		mm_projector.proj.0.weight BF16 8 8`,
	},
	"deepseek_v4": {
		`{"model_type": "deepseek_v4", "num_hidden_layers": 2, "n_routed_experts": 2, "num_nextn_predict_layers": 1}`, `
		embed.weight BF16 16 8
		norm.weight BF16 8
		head.weight BF16 16 8
		hc_head_{fn,base,scale} F32 2
		layers.0.{attn,ffn}_norm.weight BF16 8
		layers.0.hc_{attn,ffn}_{fn,base,scale} F32 2
		layers.0.attn.attn_sink F32 2
		layers.0.attn.{q_norm,kv_norm}.weight BF16 8
		layers.0.attn.compressor.ape F32 4 8
		layers.0.attn.compressor.{norm,wkv}.weight BF16 8
		layers.0.attn.indexer.compressor.ape F32 4 8
		layers.0.attn.indexer.compressor.{norm,wgate,wkv}.weight BF16 8
		layers.0.attn.indexer.{wq_b,weights_proj}.weight BF16 8
		layers.0.ffn.gate.tid2eid I64 16 2
		layers.0.ffn.gate.{weight,bias} F32 2 8
		layers.0.ffn.{fc1,fc2}_latent_proj.weight BF16 8 8
		layers.0.ffn.shared_experts.{w1,w2,w3}.weight BF16 8 8
		{layers.1,mtp.0,mtp.1}.ffn.experts.{0,1}.{w1,w3}.weight BF16 4 8
		{layers.1,mtp.0,mtp.1}.ffn.experts.{0,1}.w2.weight BF16 8 4
		mtp.0.attn.attn_sink F32 2
		mtp.0.attn.indexer.wq_b.weight BF16 8
		mtp.0.ffn.gate.bias F32 2
		mtp.0.hc_head_fn F32 2
		mtp.0.{attn_norm,enorm,norm,e_proj}.weight BF16 8
		vision.blocks.0.attn.wqkv.weight BF16 8 8
		{image_start,image_end,image_newline,image_pad} BF16 8
		aligner.linear.weight BF16 8 8`,
	},
	"deepseek_v41": {
		`{"model_type": "deepseek_v41", "text_config": {"model_type": "deepseek_v41_text", "num_hidden_layers": 1, "n_routed_experts": 2}}`, `
		embed.weight BF16 16 8
		norm.weight BF16 8
		head.weight BF16 16 8
		layers.0.attn_norm.weight BF16 8
		layers.0.hc_{attn,ffn}_{fn,base,scale} F32 2
		layers.0.attn.attn_sink F32 2
		layers.0.attn.indexer.compressor.norm.weight BF16 8
		layers.0.engram.embed.weight BF16 50 64
		layers.0.ffn.gate.{weight,bias} F32 2 8
		layers.0.ffn.shared_experts.{w1,w2,w3}.weight BF16 8 8
		{layers.0,layers.1,mtp.0}.ffn.experts.{0,1}.{w1,w3}.weight BF16 4 8
		{layers.0,layers.1,mtp.0}.ffn.experts.{0,1}.w2.weight BF16 8 4
		mtp.0.enorm.weight BF16 8
		vision.blocks.0.attn.wqkv.weight BF16 8 8
		image_newline BF16 8`,
	},
	"minimax_m3": {
		`{"model_type": "minimax_m3", "num_hidden_layers": 1, "num_local_experts": 2, "num_mtp_modules": 1}`, `
		model.layers.0.block_sparse_moe.gate.weight F32 2 8
		model.layers.0.block_sparse_moe.experts.{0,1}.{w1,w3}.weight BF16 4 8
		model.layers.0.block_sparse_moe.experts.{0,1}.w2.weight BF16 8 4
		model.mtp.layers.0.transformer_layer.block_sparse_moe.e_score_correction_bias F32 2
		model.mtp.layers.0.transformer_layer.block_sparse_moe.experts.{0,1}.{w1,w3}.weight BF16 4 8
		model.mtp.layers.0.transformer_layer.block_sparse_moe.experts.{0,1}.w2.weight BF16 8 4
		model.mtp.layers.0.eh_proj.weight BF16 8 16
		lm_head.weight BF16 16 8`,
	},
	"minimax_m3_vl": {
		`{"model_type": "minimax_m3_vl", "text_config": {"num_hidden_layers": 1, "num_local_experts": 2, "num_mtp_modules": 0}}`, `
		language_model.model.embed_tokens.weight BF16 16 8
		language_model.model.layers.0.self_attn.index_q_proj.weight BF16 8 8
		language_model.model.layers.0.block_sparse_moe.gate.weight F32 2 8
		language_model.model.layers.0.block_sparse_moe.e_score_correction_bias F32 2
		language_model.model.layers.0.block_sparse_moe.shared_experts.{gate_proj,up_proj}.weight BF16 4 8
		language_model.model.layers.0.block_sparse_moe.experts.{0,1}.{w1,w3}.weight BF16 4 8
		language_model.model.layers.0.block_sparse_moe.experts.{0,1}.w2.weight BF16 8 4
		language_model.model.mtp.layers.0.transformer_layer.block_sparse_moe.experts.{0,1}.{w1,w3}.weight BF16 4 8
		language_model.model.mtp.layers.0.transformer_layer.block_sparse_moe.experts.{0,1}.w2.weight BF16 8 4
		language_model.lm_head.weight BF16 16 8
		vision_tower.vision_model.embeddings.patch_embedding.weight BF16 8 3 2 2
		multi_modal_projector.linear_1.weight BF16 8 8
		patch_merge_mlp.linear_1.weight BF16 8 8`,
	},
	"mistral4": {
		`{"model_type": "mistral4", "num_hidden_layers": 1, "n_routed_experts": 2}`, `
		model.layers.0.mlp.gate.weight BF16 2 6
		model.layers.0.mlp.gate.e_score_correction_bias F32 2
		model.layers.0.mlp.experts.gate_up_proj BF16 2 8 6
		model.layers.0.mlp.experts.down_proj BF16 2 6 4
		lm_head.weight BF16 16 6`,
	},
	"mistral4_vl": {
		`{"model_type": "mistral3", "text_config": {"model_type": "mistral4", "num_hidden_layers": 2, "n_routed_experts": 2, "first_k_dense_replace": 1}, "vision_config": {"model_type": "pixtral"}, "quantization_config": {"quant_method": "fp8", "weight_block_size": null}}`, `
		language_model.model.embed_tokens.weight BF16 16 6
		language_model.model.layers.0.mlp.up_proj.weight BF16 8 6
		language_model.model.layers.1.mlp.gate.weight BF16 2 6
		language_model.model.layers.1.mlp.experts.gate_up_proj F8_E4M3 2 8 6
		language_model.model.layers.1.mlp.experts.gate_up_proj_scale_inv BF16 2 1 1
		language_model.model.layers.1.mlp.experts.gate_up_proj_activation_scale BF16 2
		language_model.model.layers.1.mlp.experts.down_proj F8_E4M3 2 6 4
		language_model.model.layers.1.mlp.experts.down_proj_scale_inv BF16 2 1 1
		language_model.lm_head.weight BF16 16 6
		vision_tower.patch_conv.weight BF16 8 3 2 2
		multi_modal_projector.linear_1.weight BF16 8 8`,
	},
	"nemotron_v3": {
		`{"model_type": "nemotron_h", "num_hidden_layers": 2, "n_routed_experts": 2, "mlp_hidden_act": "relu2", "num_nextn_predict_layers": 1}`, `
		backbone.embeddings.weight BF16 16 8
		backbone.layers.0.norm.weight BF16 8
		backbone.layers.0.mixer.{A_log,D} F32 2
		backbone.layers.0.mixer.dt_bias BF16 2
		backbone.layers.0.mixer.in_proj.weight FP8 8 8
		{backbone.layers.1,mtp.layers.0}.mixer.experts.{0,1}.up_proj.weight BF16 4 8
		{backbone.layers.1,mtp.layers.0}.mixer.experts.{0,1}.down_proj.weight BF16 8 4
		backbone.layers.1.mixer.gate.weight F32 2 8
		backbone.layers.2.norm.weight BF16 8
		mtp.layers.0.eh_proj.weight BF16 8 16
		backbone.norm_f.weight BF16 8
		lm_head.weight BF16 16 8`,
	},
	"nemotron_v3_dense": {
		`{"model_type": "nemotron_h", "num_hidden_layers": 1, "mlp_hidden_act": "relu2"}`, `
		backbone.embeddings.weight BF16 16 8
		backbone.layers.0.mixer.{A_log,D,dt_bias} BF16 2
		backbone.layers.0.mixer.up_proj.weight FP8 8 8
		backbone.norm_f.weight BF16 8`,
	},
	"nemotron_omni": {
		`{"model_type": "NemotronH_Nano_Omni_Reasoning_V3", "llm_config": {"model_type": "nemotron_h", "num_hidden_layers": 2, "n_routed_experts": 2, "mlp_hidden_act": "relu2"}}`, `
		language_model.backbone.embeddings.weight BF16 16 8
		language_model.backbone.layers.0.mixer.{A_log,D} F32 2
		language_model.backbone.layers.0.mixer.in_proj.weight FP8 8 8
		{language_model.backbone.layers.1,language_model.mtp.layers.0}.mixer.experts.{0,1}.up_proj.weight FP8 4 8
		{language_model.backbone.layers.1,language_model.mtp.layers.0}.mixer.experts.{0,1}.down_proj.weight FP8 8 4
		language_model.backbone.layers.2.norm.weight BF16 8
		language_model.backbone.norm_f.weight BF16 8
		language_model.lm_head.weight BF16 16 8
		mlp1.{0,1,3}.weight BF16 8
		sound_encoder.encoder.layers.0.self_attn.q_proj.weight BF16 8 8
		sound_projection.linear1.weight BF16 8 8
		vision_model.radio_model.input_conditioner.norm_mean F32 3 1 1
		vision_model.radio_model.model.patch_generator.{embedder.weight,video_embedder.weight,pos_embed,cls_token.token} BF16 8 8
		vision_model.radio_model.model.blocks.0.attn.{qkv,proj}.{weight,bias} BF16 24
		vision_model.radio_model.model.blocks.0.mlp.fc1.weight BF16 8 8`,
	},
	"nemotron_omni_radio": {
		`{"model_type": "NemotronH_Omni_Reasoning_V3", "architectures": ["NemotronH_Omni_Reasoning_V3"], "llm_config": {"model_type": "nemotron_h", "num_hidden_layers": 2, "n_routed_experts": 2, "mlp_hidden_act": "relu2"}}`, `
		language_model.backbone.embeddings.weight BF16 16 8
		language_model.backbone.layers.0.mixer.{A_log,D} F32 2
		language_model.backbone.layers.0.mixer.in_proj.weight FP8 8 8
		{language_model.backbone.layers.1,language_model.mtp.layers.0}.mixer.experts.{0,1}.up_proj.weight FP8 4 8
		{language_model.backbone.layers.1,language_model.mtp.layers.0}.mixer.experts.{0,1}.down_proj.weight FP8 8 4
		language_model.backbone.layers.2.norm.weight BF16 8
		language_model.backbone.norm_f.weight BF16 8
		language_model.lm_head.weight BF16 16 8
		mlp1.{0,1,3}.weight BF16 8
		sound_encoder.encoder.layers.0.self_attn.q_proj.weight BF16 8 8
		sound_projection.linear1.weight BF16 8 8
		vision_model.radio_model.input_conditioner.norm_mean F32 3 1 1
		vision_model.radio_model.model.patch_generator.{embedder.weight,video_embedder.weight,pos_embed,cls_token.token} BF16 8 8
		vision_model.radio_model.model.blocks.0.attn.{qkv,proj}.{weight,bias} BF16 24
		vision_model.radio_model.model.blocks.0.mlp.fc1.weight BF16 8 8`,
	},
	"llava_onevision": {
		`{"model_type": "llavaonevision1_5", "text_config": {"model_type": "LLaVAOneVision1_5_text", "num_hidden_layers": 1}}`, `
		visual.class_embedding BF16 8
		visual.blocks.0.attn.qkv.weight BF16 24 8
		model.embed_tokens.weight BF16 16 8
		model.layers.0.mlp.up_proj.weight FP8 4 8
		model.norm.weight BF16 8
		lm_head.weight BF16 16 8`,
	},
	"gemma4_unified": {
		`{"model_type": "gemma4_unified", "text_config": {"model_type": "gemma4_unified_text", "num_hidden_layers": 1}}`, `
		model.embed_audio.embedding_projection.weight BF16 8 8
		model.embed_vision.embedding_projection.weight BF16 8 8
		model.language_model.layers.0.mlp.up_proj.weight FP8 4 8
		model.vision_embedder.patch_dense.{weight,bias} BF16 8 8
		model.vision_embedder.{patch_ln1,patch_ln12,patch_ln2,pos_norm}.weight BF16 8
		model.vision_embedder.pos_embedding BF16 4 2 8`,
	},
	"muse_glimmer": {
		`{"model_type": "muse_glimmer", "architectures": ["MuseGlimmerForConditionalGeneration"], "text_config": {"model_type": "muse_glimmer_text", "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}, "vision_config": {"model_type": "muse_glimmer_vision", "num_attention_heads": 4}}`, `
		model.language_model.embed_tokens.weight BF16 16 8
		model.language_model.layers.0.{input,post_attention,pre_feedforward,post_feedforward}_layernorm.weight BF16 8
		model.language_model.layers.0.mlp.gate_proj.weight BF16 4 8
		model.language_model.layers.0.self_attn.gate_proj.weight BF16 4 8
		model.language_model.layers.0.self_attn.q_proj.weight BF16 8 8
		model.language_model.layers.0.self_attn.{k,v,o}_proj.weight BF16 4 8
		model.language_model.norm.weight BF16 8
		model.vision_tower.layers.0.attn.{q,k,v}_proj.{weight,bias} BF16 16
		model.vision_tower.layers.0.attn.proj.weight BF16 8 8
		model.vision_tower.layers.0.mlp.{fc1,fc2}.weight BF16 8 8
		model.vision_tower.layers.0.{norm1,norm2}.weight BF16 8
		model.vision_tower.ln_post.weight BF16 8
		model.vision_tower.patch_embedder.{patch_embedding,position_embedding_table}.weight BF16 8 12
		model.vision_adapter.{fc1,fc2}.weight BF16 8 8`,
	},
	"ernie4_5_dense": {
		`{"model_type": "ernie4_5", "num_hidden_layers": 1}`, `
		model.layers.0.mlp.up_proj.weight FP8 4 8
		model.norm.weight BF16 8`,
	},
	"bagel": {
		`{"model_type": "bagel", "llm_config": {"model_type": "qwen2", "num_hidden_layers": 1}}`, `
		language_model.model.layers.0.mlp.up_proj.weight FP8 4 8
		language_model.model.layers.0.mlp_moe_gen.up_proj.weight FP8 4 8
		vit_model.vision_model.embeddings.patch_embedding.weight BF16 8 12`,
	},
	"qwen2_moe": {
		`{"model_type": "qwen2_moe", "num_hidden_layers": 1, "num_experts": 2}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.self_attn.q_proj.{weight,bias} BF16 8
		model.layers.0.mlp.gate.weight BF16 2 8
		model.layers.0.mlp.experts.{0,1}.{gate_proj,up_proj}.weight FP8 4 8
		model.layers.0.mlp.experts.{0,1}.down_proj.weight FP8 8 4
		model.layers.0.mlp.shared_expert.up_proj.weight BF16 4 8
		model.layers.0.mlp.shared_expert_gate.weight BF16 1 8
		model.norm.weight BF16 8
		lm_head.weight BF16 16 8`,
	},
	"exaone_moe": {
		`{"model_type": "exaone_moe", "num_hidden_layers": 1, "num_experts": 1}`, `
		model.layers.0.mlp.e_score_correction_bias F32 1
		model.layers.0.mlp.gate.weight BF16 1 8
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4
		model.layers.0.mlp.shared_experts.up_proj.weight BF16 4 8
		mtp.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		mtp.layers.0.mlp.experts.0.down_proj.weight BF16 8 4`,
	},
	"flint": {
		`{"model_type": "flint", "num_hidden_layers": 1, "num_experts": 1}`, `
		model.layers.0.self_attn.softmax_offset F32 4
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4`,
	},
	"axk1": {
		`{"model_type": "axk1", "num_hidden_layers": 2, "n_routed_experts": 1}`, `
		model.layers.{0,1}.post_mlp_layernorm.weight BF16 8
		model.layers.0.mlp.up_proj.weight BF16 4 8
		model.layers.1.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.1.mlp.experts.0.down_proj.weight BF16 8 4`,
	},
	"axk2": {
		`{"model_type": "axk2", "num_hidden_layers": 1, "n_routed_experts": 1}`, `
		model.layers.0.input_layernorm.{weight,W_down.weight,W_up.weight} BF16 8
		model.layers.0.self_attn.q_b_proj.weight BF16 8 8
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4
		model.norm.W_up.weight BF16 8`,
	},
	"kolibri1": {
		`{"model_type": "kolibri1", "num_hidden_layers": 1, "num_experts": 1}`, `
		model.layers.0.moe.router.expert_bias F32 1
		model.layers.0.{post_attn_norm,post_ffn_norm}.weight BF16 8
		model.layers.0.mlp.gate.weight BF16 1 8
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4`,
	},
	"mixtral": {
		`{"model_type": "mixtral", "num_hidden_layers": 1, "num_local_experts": 2}`, `
		model.layers.0.block_sparse_moe.gate.weight BF16 2 8
		model.layers.0.block_sparse_moe.experts.{0,1}.{w1,w3}.weight FP8 4 8
		model.layers.0.block_sparse_moe.experts.{0,1}.w2.weight FP8 8 4
		lm_head.weight BF16 16 8`,
	},
	"phimoe": {
		`{"model_type": "phimoe", "num_hidden_layers": 1, "num_local_experts": 1}`, `
		model.layers.0.input_layernorm.{weight,bias} BF16 8
		model.layers.0.block_sparse_moe.gate.weight BF16 1 8
		model.layers.0.block_sparse_moe.experts.0.{w1,w3}.weight BF16 4 8
		model.layers.0.block_sparse_moe.experts.0.w2.weight BF16 8 4`,
	},
	"granitemoe": {
		`{"model_type": "granitemoehybrid", "num_hidden_layers": 1, "num_local_experts": 2}`, `
		model.layers.0.block_sparse_moe.router.layer.weight BF16 2 6
		model.layers.0.block_sparse_moe.input_linear.weight BF16 2 8 6
		model.layers.0.block_sparse_moe.output_linear.weight BF16 2 6 4
		model.layers.0.shared_mlp.{input_linear,output_linear}.weight BF16 8 6`,
	},
	"lfm2_moe": {
		`{"model_type": "lfm2_moe", "num_hidden_layers": 2, "num_experts": 1}`, `
		model.layers.0.feed_forward.{w1,w3}.weight BF16 4 8
		model.layers.1.feed_forward.expert_bias F32 1
		model.layers.1.feed_forward.experts.0.{w1,w3}.weight BF16 4 8
		model.layers.1.feed_forward.experts.0.w2.weight BF16 8 4
		model.embedding_norm.weight BF16 8`,
	},
	"jamba": {
		`{"model_type": "jamba", "num_hidden_layers": 2, "num_experts": 1}`, `
		model.layers.0.mamba.{A_log,D} BF16 4
		model.layers.0.feed_forward.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.1.feed_forward.router.weight BF16 1 8
		model.layers.1.feed_forward.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.1.feed_forward.experts.0.down_proj.weight BF16 8 4`,
	},
	"sarvam_moe": {
		`{"model_type": "sarvam_moe", "num_hidden_layers": 1, "num_experts": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 3}`, `
		model.word_embeddings.weight BF16 16 8
		model.layers.0.attention.query_key_value.{weight,bias} BF16 24
		model.layers.0.attention.dense.weight BF16 8 12
		model.layers.0.attention.{query_layernorm,key_layernorm}.weight BF16 3
		model.layers.0.mlp.gate.expert_bias F32 1
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4`,
	},
	"bailing_hybrid": {
		`{"model_type": "bailing_hybrid", "num_hidden_layers": 2, "num_experts": 1}`, `
		model.word_embeddings.weight BF16 16 8
		model.layers.0.attention.{q,k,v}_conv1d.weight BF16 6 1 4
		model.layers.0.attention.{dt_bias,A_log} F32 6
		model.layers.0.attention.{f_proj,q_proj,g_norm}.weight BF16 6 8
		model.layers.{0,1}.attention.dense.weight BF16 8 6
		model.layers.1.attention.{kv_a_proj_with_mqa,kv_b_proj}.weight BF16 6 8
		model.layers.1.mlp.gate.expert_bias F32 1
		model.layers.1.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.1.mlp.experts.0.down_proj.weight BF16 8 4`,
	},
	"mistral_large4": {
		`{"model_type": "mistral_large4", "text_config": {"model_type": "mistral_large4_text", "num_hidden_layers": 2, "n_routed_experts": 1}, "vision_config": {"model_type": "pixtral", "num_attention_heads": 2}}`, `
		tok_embeddings.weight BF16 16 8
		layers.0.attention.{wq,wkv_a_with_mqa,wkv_b,wo,kv_a_norm}.weight BF16 8 8
		layers.0.attention.{indexer.,}ssmax_scaling.{s,b} BF16 2
		layers.0.attention.indexer.{wk,wq_b,weights_proj}.weight BF16 8 8
		layers.0.{attention_norm,ffn_norm}.weight BF16 8
		layers.0.feed_forward.{w1,w2,w3}.weight BF16 8 8
		layers.1.gate.weight F32 1 8
		layers.1.experts.0.{w1,w3}.weight BF16 4 8
		layers.1.experts.0.w2.weight BF16 8 4
		layers.1.shared_experts.{w1,w2,w3}.weight BF16 8 8
		lerope.alpha F32 2
		norm.weight BF16 8
		output.weight BF16 16 8
		vision_encoder.patch_conv.weight BF16 8 3 2 2
		vision_encoder.transformer.layers.0.attention.{wq,wk,wv,wo}.weight BF16 8 8
		vision_encoder.transformer.layers.0.feed_forward.{w1,w2,w3}.weight BF16 8 8
		{patch_merger.merging_layer,pre_mm_projector_norm}.weight BF16 8 8
		vision_language_adapter.{w_in,w_out}.weight BF16 8 8`,
	},
	"qwen4_exp": {
		`{"model_type": "qwen4_exp_text", "num_hidden_layers": 1, "num_experts": 1, "split_ngram_parts": 3}`, `
		model.layers.0.ple.ple_embedding.ngram_embedding.shard_{0,1}.weight BF16 4 2
		model.layers.0.ple.ple_embedding.ngram_embedding.shard_2.weight BF16 3 2
		model.layers.0.ple.ple_embedding.layer_multipliers I64 2
		model.layers.0.mlp.experts.0.{gate_proj,up_proj}.weight BF16 4 8
		model.layers.0.mlp.experts.0.down_proj.weight BF16 8 4`,
	},
	"llama": {
		`{"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": true, "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.input_layernorm.weight BF16 8
		model.layers.0.self_attn.q_proj.weight F8_E4M3 8 8
		model.layers.0.self_attn.q_proj.weight_scale F32
		model.layers.0.self_attn.q_proj.input_scale F32
		model.layers.0.self_attn.{k,v,o}_proj.weight BF16 4 8
		model.layers.0.mlp.{gate,up,down}_proj.weight BF16 8 8
		model.layers.0.self_attn.rotary_emb.inv_freq F32 2
		model.norm.weight BF16 8`,
	},
	"qwen3": {
		`{"model_type": "qwen3", "num_hidden_layers": 1, "tie_word_embeddings": true}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.self_attn.{q,k}_norm.weight BF16 4
		model.layers.0.self_attn.{q,k,v,o}_proj.weight BF16 8 8
		model.layers.0.mlp.{gate,up,down}_proj.weight BF16 8 8
		model.norm.weight BF16 8`,
	},
}

// synthetic makes the checkpoint that lines describe, filled with zeros.
func synthetic(t testing.TB, config, lines string) *synth.Checkpoint {
	t.Helper()
	s, err := parseSettings([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	c := &synth.Checkpoint{Config: s}
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		f := strings.Fields(line)
		var shape []int64
		for _, d := range f[2:] {
			n, err := strconv.ParseInt(d, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			shape = append(shape, n)
		}
		for _, key := range expanded(f[0]) {
			if f[1] != "FP8" {
				with(c, key, f[1], shape...)
				continue
			}
			with(c, key, "F8_E4M3", shape...)
			with(c, key+"_scale_inv", "F32", ceilDiv(shape[0], BlockSize),
				ceilDiv(shape[1], BlockSize))
		}
	}
	return c
}

// expanded writes "a.{b,c}" out as a.b and a.c.
func expanded(key string) []string {
	head, tail, ok := strings.Cut(key, "{")
	if !ok {
		return []string{key}
	}
	choices, tail, _ := strings.Cut(tail, "}")
	var all []string
	for c := range strings.SplitSeq(choices, ",") {
		all = append(all, expanded(head+c+tail)...)
	}
	return all
}

// listedGoldens are the goldens that are listed for families without a small source, by the name
// of the family.
var listedGoldens = map[string]string{}

// Every layout of every family, as a listing that a person can check and a change shows up in.
func TestPlansOfTheFamilies(t *testing.T) {
	for name, s := range listed {
		t.Run(name, func(t *testing.T) {
			wantPlans(t, name, opened(t, synthetic(t, s.config, s.tensors)))
		})
	}
	for name, golden := range listedGoldens {
		t.Run(name, func(t *testing.T) {
			wantPlans(t, name, openedAt(t, "../testdata/golden/families/"+golden))
		})
	}
	for _, f := range families {
		_, byName := listed[f.name]
		_, byType := listed[f.types[0]]
		if _, asGolden := listedGoldens[f.name]; !byName && !byType && !asGolden {
			t.Errorf("%s: no listing", f.name)
		}
	}
}

// wantPlans compares the plans of a checkpoint with their listing.
func wantPlans(t *testing.T, name string, c *Checkpoint) {
	t.Helper()
	var got strings.Builder
	for _, layout := range append(Layouts(c), "hf-fp8") {
		p, err := NewPlan(c, Options{Layout: layout})
		if err != nil {
			t.Fatalf("%s: %v", layout, err)
		}
		write(&got, layout, p)
	}
	path := filepath.Join("..", "testdata", "plans", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("not as in %s (go test ./adapter -update writes it again):\n%s", path,
			got.String())
	}
}

// write lists a plan: tensors by file group, and what was dropped.
func write(w *strings.Builder, layout string, p *Plan) {
	fmt.Fprintf(w, "# %s\n", layout)
	group := ""
	for _, x := range p.Tensors {
		if x.Group != group {
			group = x.Group
			fmt.Fprintf(w, "[%s]\n", group)
		}
		recipe := " = " + x.Node.String()
		if x.Node.String() == x.Name {
			recipe = ""
		}
		fmt.Fprintf(w, "%s %s %v%s\n", x.Name, x.Node.DType(), x.Node.Shape(), recipe)
	}
	for _, a := range p.Account {
		if a.Fate == Dropped {
			fmt.Fprintf(w, "- %s: %s\n", a.Key, a.Reason)
		}
	}
	fmt.Fprintln(w)
}
