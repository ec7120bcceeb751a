package adapter

import (
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

var (
	hfAlone       = []string{LayoutHF}
	memoryAlone   = []string{LayoutHF, LayoutTransformers}
	nativeToo     = []string{LayoutNative, LayoutHF}
	splitToo      = []string{LayoutNative, LayoutHF, LayoutSplit}
	inMemory      = []string{LayoutNative, LayoutHF, LayoutTransformers}
	inMemorySplit = []string{LayoutNative, LayoutHF, LayoutSplit, LayoutTransformers}
	titanToo      = []string{LayoutNative, LayoutHF, LayoutTorchTitan}
	all           = []string{LayoutNative, LayoutHF, LayoutTransformers, LayoutTorchTitan}
)

// The layouts of a configuration. A language model with a row does not give its layouts to a model
// around it, since no reference has them for the whole.
var layoutsOfConfigs = []struct {
	name, config string
	want         []string
}{
	{"DeepSeek-V3", `{"model_type": "deepseek_v3"}`, all},
	{"Kimi-K2", `{"model_type": "kimi_k2"}`, titanToo},
	{"Qwen3-30B-A3B", `{"model_type": "qwen3_moe"}`, all},
	{"Qwen3-8B", `{"model_type": "qwen3"}`, titanToo},
	{"Llama-3.1", `{"model_type": "llama"}`, titanToo},

	// Types that a reference has for a model and its language model together.
	{"Kimi-VL", `{"model_type": "kimi_vl", "text_config": {"model_type": "deepseek_v3"}}`, titanToo},
	{"Mistral-Small-3.2", `{"model_type": "mistral3", "text_config": {"model_type": "mistral"}}`, nativeToo},
	{"Ministral-3", `{"model_type": "mistral3", "text_config": {"model_type": "ministral3"}}`, nativeToo},
	{"Mistral 3 that says no more", `{"model_type": "mistral3", "text_config": {}}`, nativeToo},
	{"Kimi-K2.5", `{"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2"}, "vision_config": {"vt_num_attention_heads": 16}}`, all},
	{"Kimi-K2.5, as BF16", `{"model_type": "kimi_k25", "text_config": {"model_type": "deepseek_v3"}, "vision_config": {"vt_num_attention_heads": 16}}`, all},
	{"Kimi-K2.5 without vision_config", `{"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2"}}`, []string{LayoutNative, LayoutHF, LayoutTorchTitan}},
	{"Mistral-Small-4", `{"model_type": "mistral3", "text_config": {"model_type": "mistral4"}}`, splitToo},
	{"gpt-oss", `{"model_type": "gpt_oss"}`, titanToo},
	{"Kimi-K3", `{"model_type": "kimi_k3", "text_config": {"model_type": "kimi_linear"}}`, nativeToo},
	{"DeepSeek-V4", `{"model_type": "deepseek_v4"}`, inMemory},
	{"DeepSeek-V4.1", `{"model_type": "deepseek_v41", "text_config": {"model_type": "deepseek_v41_text"}}`, nativeToo},
	{"MiniMax-M3", `{"model_type": "minimax_m3_vl", "text_config": {"model_type": "minimax_m2"}}`, inMemory},
	{"MiniMax-M3 that says no more", `{"model_type": "minimax_m3_vl", "text_config": {}}`, inMemory},
	{"Kimi Linear", `{"model_type": "kimi_linear"}`, inMemory},
	{"LongCat-Flash", `{"model_type": "longcat_flash", "zero_expert_num": 256}`, hfAlone},
	{"LongCat-Flash that says no more", `{"model_type": "longcat_flash"}`, hfAlone},
	{"LongCat-Flash without zero experts", `{"model_type": "longcat_flash", "zero_expert_num": 0}`, memoryAlone},
	{"Mistral 4's language model", `{"model_type": "mistral4"}`, splitToo},
	{"Nemotron 3", `{"model_type": "nemotron_h"}`, inMemory},
	{"Qwen3.5-35B-A3B", `{"model_type": "qwen3_5_moe", "text_config": {"model_type": "qwen3_5_moe_text"}}`, inMemorySplit},
	{"Qwen3.5's language model", `{"model_type": "qwen3_5_moe_text"}`, inMemorySplit},
	{"Qwen3.5-27B's language model", `{"model_type": "qwen3_5_text"}`, nativeToo},
	{"Qwen3.5-27B", `{"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text"}}`, titanToo},
	{"a vision tower with a type", `{"model_type": "kimi_vl", "text_config": {"model_type": "deepseek_v3"}, "vision_config": {"model_type": "moonvit"}}`, titanToo},

	// Models around a language model with a row.
	{"InternVL3.5 with experts", `{"model_type": "internvl_chat", "llm_config": {"model_type": "qwen3_moe"}}`, hfAlone},
	{"InternVL3 in transformers", `{"model_type": "internvl", "text_config": {"model_type": "qwen2"}}`, nativeToo},
	{"BAGEL", `{"model_type": "bagel", "llm_config": {"model_type": "qwen2"}}`, hfAlone},
	{"Llama-Nemotron-VL", `{"model_type": "llama_nemotron_vl", "llm_config": {"model_type": "llama"}}`, nativeToo},
	{"LLaVA", `{"model_type": "llava", "text_config": {"model_type": "llama"}}`, nativeToo},
	{"Pixtral", `{"model_type": "llava", "text_config": {"model_type": "mistral"}}`, nativeToo},
	{"LLaVA-OneVision", `{"model_type": "llava_onevision", "text_config": {"model_type": "qwen2"}}`, nativeToo},
	{"SmolVLM", `{"model_type": "smolvlm", "text_config": {"model_type": "llama"}}`, nativeToo},
	{"Voxtral", `{"model_type": "voxtral", "text_config": {"model_type": "llama"}}`, nativeToo},
	{"Qwen2-Audio", `{"model_type": "qwen2_audio", "text_config": {"model_type": "qwen2"}}`, nativeToo},
	{"Ming", `{"model_type": "bailingmm_moe_v2", "llm_config": {"model_type": "bailing_moe_v2"}}`, hfAlone},
	{"a language model two levels down", `{"model_type": "omni", "thinker_config": {"model_type": "thinker", "text_config": {"model_type": "qwen3_moe"}}}`, hfAlone},
	{"Kimi-K2.5 around another model", `{"model_type": "kimi_k25", "text_config": {"model_type": "mistral4"}}`, []string{LayoutHF, LayoutSplit}},
	{"a model around gpt-oss", `{"model_type": "internvl", "text_config": {"model_type": "gpt_oss"}}`, hfAlone},
	{"Kimi-VL around another model", `{"model_type": "kimi_vl", "text_config": {"model_type": "qwen3_moe"}}`, hfAlone},
	{"a language model, the whole without a type", `{"text_config": {"model_type": "deepseek_v3"}}`, hfAlone},

	{"a type without a row", `{"model_type": "novel"}`, nativeToo},
	{"a dense model with one expert", `{"model_type": "novel", "num_experts": 1, "moe_layers": [], "use_moe": false, "moe_intermediate_size": null}`, nativeToo},
	{"a type with experts", `{"model_type": "novel", "num_local_experts": 8}`, hfAlone},
	{"experts deep inside", `{"model_type": "novel", "parts": [{"ffn_config": {"moe_top_k": 2}}]}`, hfAlone},
	{"a list of layers with experts", `{"model_type": "novel", "moe_layers": [3]}`, hfAlone},
	{"a flag for experts", `{"model_type": "novel", "text_config": {"model_type": "qwen2", "use_moe": true}}`, hfAlone},
	{"an object about experts", `{"model_type": "novel", "moe": {"count": 4}}`, hfAlone},
	{"a type that is not text", `{"model_type": 3}`, hfAlone},
	{"no type", `{}`, hfAlone},
}

func TestLayoutsOfConfigurations(t *testing.T) {
	for _, test := range layoutsOfConfigs {
		c := &Checkpoint{Config: &Config{Raw: []byte(test.config)}}
		if got := Layouts(c); !slices.Equal(got, test.want) {
			t.Errorf("%s: layouts %v, want %v", test.name, got, test.want)
		}
	}
	if got := Layouts(&Checkpoint{Config: &Config{}}); !slices.Equal(got, hfAlone) {
		t.Errorf("without config.json: layouts %v, want %v", got, hfAlone)
	}
}

// A layout that the model lacks is refused. The error names the model's types, the reason, and the
// layouts that there are.
func TestLayoutsThatAModelLacksAreRefused(t *testing.T) {
	const published = "it has hf, split and hf-fp8"
	for _, test := range []struct {
		layout, config string
		want           []string
	}{
		{LayoutNative, `{"model_type": "internvl", "text_config": {"model_type": "deepseek_v3"}}`, []string{
			`"internvl" around "deepseek_v3" is not known, so it has no layout native`, "the language model inside has experts", published,
		}},
		{LayoutNative, `{"model_type": "mistral3", "text_config": {"model_type": "llama4"}}`, []string{
			`"mistral3" around "llama4" has no layout native: it is known only with text_config.model_type `,
			`"mistral", "ministral3" or "mistral4", and config.json has "llama4"`, published,
		}},
		{LayoutNative, `{"text_config": {"model_type": "deepseek_v3"}}`, []string{"config.json has no model_type, which says what layout native is like: give --layout hf"}},
		{LayoutNative, `{"model_type": "novel", "ffn_config": {"moe_num_experts": 16}}`, []string{
			`"novel" is not known, so it has no layout native`, "by ffn_config.moe_num_experts in config.json it may have experts", published,
		}},
		{LayoutNative, `{"model_type": "mixtral"}`, []string{"NeMo AutoModel 0.7.0 has no such model"}},
		{LayoutTransformers, `{"model_type": "llama"}`, []string{"transformers 5.24.0 merges nothing in it", "it has native, hf, split, torchtitan and hf-fp8"}},
		{LayoutTransformers, `{"model_type": "kimi_k2"}`, []string{`transformers 5.24.0 has it only for model_type "deepseek_v3"`}},
		{LayoutTransformers, `{"model_type": "kimi_k3"}`, []string{"transformers 5.24.0 has no rule to merge its experts"}},
		{LayoutTorchTitan, `{"model_type": "novel"}`, []string{
			`model_type "novel" is not known, so it has no layout torchtitan: dequantfs has no rule for it; `,
			"it has native, hf, split and hf-fp8",
		}},
		{LayoutTorchTitan, `{"model_type": "mixtral"}`, []string{"TorchTitan 0.3.0 has no such model"}},
		{LayoutNative, `{"model_type": "qwen3-moe", "num_experts": 4}`, []string{
			`model_type "qwen3-moe" is not known (did you mean "qwen3_moe"?), so it has no layout native: by num_experts`,
		}},
		{LayoutTorchTitan, `{"model_type": "qwen3_5_moe"}`, []string{"TorchTitan 0.3.0 has it, but takes the axes", "the other way round"}},
		{LayoutTorchTitan, `{"model_type": "qwen3_5_text"}`, []string{`TorchTitan 0.3.0 has it only for model_type "qwen3_5"; it has`}},
		{LayoutTorchTitan, `{"model_type": "internvl", "text_config": {"model_type": "qwen3_5_moe"}}`, []string{"dequantfs has no rule for it"}},
		{LayoutNative, `{"model_type": "mimo_v2", "architectures": ["Mine"]}`, []string{
			`NeMo AutoModel 0.7.0 has it only for architectures "MiMoV25ForCausalLM" or "MiMoV2ForCausalLM", and config.json has "Mine"`,
		}},
		{LayoutNative, `{"model_type": "mimo_v2"}`, []string{`"MiMoV2ForCausalLM", and config.json has none`}},
		{LayoutNative, `{"model_type": "muse_glimmer", "architectures": ["Mine"]}`, []string{
			`it is known only with architectures "MuseGlimmerForConditionalGeneration", and config.json has "Mine"`,
		}},
		{LayoutTransformers, `{"model_type": "mistral3", "text_config": {"model_type": "qwen3"}}`, []string{
			`it is known only with text_config.model_type "mistral", "ministral3" or "mistral4", and config.json has "qwen3"`,
		}},
		{LayoutNative, `{"model_type": "qwen3_moe", "llm_config": {"text_config": {"model_type": "x"}}}`, []string{
			`it is known only with llm_config.text_config.model_type "qwen3_moe", and config.json has "x"`,
		}},
	} {
		c := opened(t, synthetic(t, test.config, "model.norm.weight BF16 8"))
		_, err := NewPlan(c, Options{Layout: test.layout})
		for _, w := range test.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: error %v does not say %q", test.config, err, w)
			}
		}
	}
}

// The language model's row still decides how weights are stored, so layout "hf" is unchanged: the
// rank's own experts, and a grid that is larger than needed.
func TestWrappedModelsAreStoredAsTheirLanguageModel(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{
		Prefix: "language_model.model.", Experts: 5, Hidden: 150, ExpertIntermediate: 140, PaddedGrid: 2, MTP: 1,
	}))
	text := s.Config
	s.Config = map[string]any{"model_type": "internvl_chat", "text_config": text,
		"quantization_config": text["quantization_config"]}
	c := opened(t, s)
	equal(t, dict(t, c, Options{}), s.HF("BF16"))
	equal(t, dict(t, c, Options{EP: EP{1, 2}}), ofRank(s.HF("BF16"), 5, 1, 2))

	without(s, `experts\.3\.up_proj`)
	if _, err := NewPlan(opened(t, s), Options{}); err == nil ||
		!strings.Contains(err.Error(), "experts.3.up_proj.weight") {
		t.Errorf("error %v, want one about expert 3", err)
	}
}

// Rows of one type differ by architecture, and the first match counts.
func TestRowsMatchArchitectures(t *testing.T) {
	f := family{types: []string{"two"}, inner: []string{"text"},
		architectures: []string{"OneOfTwo"}}
	for config, want := range map[string]bool{
		`{"model_type": "two", "architectures": ["OneOfTwo"]}`:                                        true,
		`{"model_type": "two", "architectures": ["OneOfTwo"], "text_config": {"model_type": "text"}}`: true,
		`{"model_type": "two", "architectures": ["OneOfTwo"], "text_config": {"model_type": "else"}}`: false,
		`{"model_type": "two", "architectures": ["TheOther", "OneOfTwo"]}`:                            false,
		`{"model_type": "two", "architectures": []}`:                                                  false,
		`{"model_type": "two"}`:                                 false,
		`{"model_type": "text", "architectures": ["OneOfTwo"]}`: false,
	} {
		s, err := parseSettings([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		if f.matches(s) != want {
			t.Errorf("%s: matches is %v", config, !want)
		}
	}
}

// A row that names the language model inside is not for others, where it is in the table.
func TestRowsMatchTheLanguageModelInside(t *testing.T) {
	f := family{types: []string{"outer"}, inner: []string{"vision"}, inside: "text"}
	for config, want := range map[string]bool{
		`{"model_type": "outer", "text_config": {"model_type": "text"}}`:   true,
		`{"model_type": "outer", "text_config": {"model_type": "vision"}}`: false,
		`{"model_type": "outer", "text_config": {"model_type": "else"}}`:   false,
		`{"model_type": "outer", "text_config": {}}`:                       false,
		`{"model_type": "outer"}`:                                          false,
		`{"model_type": "text"}`:                                           false,
	} {
		s, err := parseSettings([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		if f.matches(s) != want {
			t.Errorf("%s: matches is %v", config, !want)
		}
	}
}
