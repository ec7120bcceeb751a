package adapter

// Names that checkpoints share whatever their family is. They hold for models without a row too.

// innerConfigs are the members of a configuration that describe the language model inside, in the
// order in which they are searched.
var innerConfigs = []string{"text_config", "language_config", "llm_config", "thinker_config"}

// language lists the prefixes under which a language model's layers are found.
// Layers elsewhere (vision towers) have no experts and are not prediction layers.
var language = map[string]bool{
	"": true, "model.": true, "language_model.": true,
	"model.language_model.": true, "language_model.model.": true,
	"model.language_model.model.": true, "thinker.model.language_model.": true,
	"backbone.": true, "language_model.backbone.": true, "thinker.model.": true,
}

// predictionPrefix begins the keys of prediction layers that are not among the model's layers.
const predictionPrefix = "mtp."

// predictionPrefixes begin the keys of prediction layers, and of what belongs to them.
var predictionPrefixes = []string{
	predictionPrefix, "model.mtp", "language_model.mtp.", "language_model.model.mtp.",
	"model.language_model.mtp.",
}

// predictionFields give the number of prediction layers.
var predictionFields = []string{
	"num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers",
}

// activationFields name the activation of the experts, ungated the activation of experts that have
// no gate.
var activationFields = []string{"mlp_hidden_act", "hidden_act"}

const ungated = "relu2"

// plainWeights are parts of keys whose weights no published FP8 checkpoint quantizes: norms,
// embeddings, heads, routers, and the parts of prediction layers outside their block.
var plainWeights = []string{
	"norm.weight", "norm1.weight", "norm2.weight", "lm_head.", "embed_tokens.", "word_embeddings.",
	".gate.weight", "shared_expert_gate.", "eh_proj.", "shared_head.", "mtp.fc.",
	"visual.", "vision_tower.", "vision_model.", "multi_modal_projector.", "mm_projector.", "audio",
}
