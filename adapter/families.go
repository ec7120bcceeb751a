package adapter

// The names of experts that families share.
var (
	mlpProj = [roles]string{"gate_proj.weight", "up_proj.weight", "down_proj.weight"}
	wProj   = [roles]string{"w1.weight", "w3.weight", "w2.weight"}
)

// mlpExperts is how most checkpoints name experts; count is the config's field.
func mlpExperts(count ...string) *expertKeys {
	return &expertKeys{path: "mlp.experts.", proj: mlpProj, count: count}
}

// The layouts that only group the experts.
var (
	plainNative       = view{layout: LayoutNative}
	plainTransformers = view{layout: LayoutTransformers}
)

// families is the table of families. The layout native has the names of the reference's adapter of
// that name, transformers those that its modules have in memory, and torchtitan those of its own
// adapter. The first row that matches a configuration is its family.
var families = []family{
	{
		name:    "deepseek_v3",
		types:   []string{"deepseek_v3", "kimi_k2"},
		larger:  []string{".weight"},
		experts: mlpExperts("n_routed_experts"),
		views: []view{
			plainNative, titanDeepSeek,
			{layout: LayoutTransformers, types: []string{"deepseek_v3"}},
		},
	},
	{
		name:    "deepseek_v32",
		types:   []string{"deepseek_v32"},
		larger:  []string{".weight"},
		plain:   []string{"indexer.k_norm.", "indexer.weights_proj."},
		experts: mlpExperts("n_routed_experts"),
		views:   []view{plainNative, plainTransformers},
	},
	{
		name:    "kimivl",
		types:   []string{"kimi_vl"},
		inner:   []string{"deepseek_v3"},
		experts: mlpExperts("n_routed_experts"),
		views: []view{{layout: LayoutNative, prefixes: []rename{
			{"^language_model.model.", "model.language_model.model."},
			{"^language_model.lm_head.", "lm_head."},
			{"^language_model.", "model.language_model."},
			{"^vision_tower.", "model.vision_tower."},
			{"^multi_modal_projector.", "model.multi_modal_projector."},
		}}, titanKimi},
	},
	{
		name:  "minimax_m2",
		types: []string{"minimax_m2"},
		plain: []string{"block_sparse_moe.gate.weight"},
		experts: &expertKeys{
			path: "block_sparse_moe.experts.", proj: wProj, count: []string{"num_local_experts"},
		},
		views: []view{
			{layout: LayoutNative, path: "mlp.experts.", renames: []rename{
				{".block_sparse_moe.gate.weight", ".mlp.gate.weight"},
				{".block_sparse_moe.e_score_correction_bias", ".mlp.gate.e_score_correction_bias"},
			}},
			{layout: LayoutTransformers, path: "mlp.experts.", renames: []rename{
				{".block_sparse_moe.", ".mlp."},
			}},
		},
	},
	{
		name:    "mimo_v2_flash",
		types:   []string{"mimo_v2_flash"},
		larger:  []string{".k_proj.weight"},
		scales:  mimoV2FlashScales,
		plain:   []string{"self_attn.o_proj.weight"},
		experts: mlpExperts("n_routed_experts"),
		views: []view{plainNative, {layout: LayoutTransformers, renames: []rename{
			{".self_attn.attention_sink_bias$", ".self_attn.sinks"},
		}}},
	},
	mimoV25,
	mimoV26,
	mimoV2,
	{
		name:    "qwen3_moe",
		types:   []string{"qwen3_moe"},
		experts: mlpExperts(routedExperts...),
		views:   []view{plainNative, plainTransformers, titanQwen3},
	},
	qwen35Moe,
	qwen3Next,
	qwen38FlashNext,
	qwen3Omni,
	qwen3OmniThinker,
	{
		name:    "glm4_moe",
		types:   []string{"glm4_moe", "glm4_moe_lite", "glm_moe_dsa"},
		plain:   []string{"indexer.weights_proj.", "eh_proj.weight"},
		experts: mlpExperts("n_routed_experts"),
		views:   []view{plainNative, plainTransformers},
	},
	glm5Next,
	ernie,
	{name: "ernie4_5_dense", types: []string{"ernie4_5"}, views: []view{plainNative}},
	{
		name:    "hy_v3",
		types:   []string{"hy_v3", "hy_mt2"},
		experts: mlpExperts("num_experts"),
		views: []view{
			{layout: LayoutNative, mtp: dropAfter, renames: []rename{
				{".mlp.expert_bias$", ".mlp.gate.e_score_correction_bias"},
				{".mlp.router.gate.weight$", ".mlp.gate.weight"},
				{".mlp.shared_mlp.", ".mlp.shared_experts."},
			}},
			{layout: LayoutTransformers, types: []string{"hy_v3"}, renames: []rename{
				{".mlp.expert_bias$", ".mlp.e_score_correction_bias"},
				{".mlp.router.gate.weight$", ".mlp.gate.weight"},
				{".mlp.shared_mlp.", ".mlp.shared_experts."},
			}},
		},
	},
	laguna,
	ling,
	mistral3Reranker,
	{
		name:  "mistral3",
		types: []string{"mistral3", "ministral3"},
		inner: []string{"mistral"},
		views: []view{{layout: LayoutNative, marks: []string{"^model.language_model."},
			prefixes: []rename{
				{"^language_model.lm_head.weight$", "lm_head.weight"},
				{"^language_model.model.", "model.language_model."},
				{"^language_model.", "model.language_model."},
				{"^vision_tower.", "model.vision_tower."},
				{"^multi_modal_projector.", "model.multi_modal_projector."},
			}}},
	},
	encoders,
	crossEncoders,
	qwen35,
	qwen25Omni,
	qwen25OmniThinker,
	gptOSS,
	kimiK25,
	kimiK3,
	kimiLinear,
	deepSeekV4,
	deepSeekV41,
	miniMaxM3,
	miniMaxM3VL,
	mistral4,
	mistral4VL,
	nemotronH,
	nemotronOmniRadio,
	nemotronOmni,
	llavaOneVision,
	gemma4Unified,
	museGlimmer,
	bagel,
	qwen3VLMoe,
	hunyuanImage3,
	step3p5,
	step3p7,
	gemma4,
	diffusionGemma,
	inkling,
	qwen2Moe,
	exaoneMoe,
	flint,
	axk1,
	axk2,
	kolibri1,
	mixtral,
	phimoe,
	graniteMoe,
	aria,
	lfm2Moe,
	jamba,
	sarvamMoe,
	bailingHybrid,
	mistralLarge4,
	{name: "llama", types: []string{"llama"}, views: []view{titanLlama}},
	{name: "mistral", types: []string{"mistral"}},
	{name: "qwen2", types: []string{"qwen2"}},
	{name: "qwen3", types: []string{"qwen3"}, views: []view{titanQwen3}},
	deepSeekOCR2,
	unlimitedOCR,
}
