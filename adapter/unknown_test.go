package adapter

import (
	"fmt"
	"os"
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
		if said := Missing(c); said != "" {
			t.Errorf("%s: %s", config, said)
		}
		published := dict(t, c, Options{Layout: LayoutHF})
		equal(t, dict(t, c, Options{Layout: LayoutNative}), tensorsOf(t, published))
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
		said := Missing(c)
		if one := len(want) == 1; one != strings.Contains(said, key) || !one && said != "" {
			t.Errorf("%s: said %q", key, said)
		}
		if PublishedNative(c) == (len(want) == 1) {
			t.Errorf("%s: native is published", key)
		}
	}
}

// Nothing is said where another message says it, or where there are more layouts.
func TestMissingLayoutsAreSaidWithTheirReasons(t *testing.T) {
	for config, want := range map[string]string{
		`{}`:                          "",
		`{"model_type": "novel"}`:     "",
		`{"model_type": "mixtral"}`:   "",
		`{"model_type": "qwen3_moe"}`: "",
		`{"model_type": "glm4_moe"}`:  "",
		`{"model_type": "novel_moe"}`: `model_type "novel_moe" is not known: no layout native: by model_type in config.json`,
		`{"model_type": "n", "moe": 2}`: `model_type "n" is not known: no layout native: by moe ` +
			"in config.json it may have experts, and no reference says how they are grouped; " +
			"no layouts transformers and torchtitan: dequantfs has no rule for it",
		`{"model_type": "qwen3-moe", "moe": 2}`: `model_type "qwen3-moe" is not known (did you mean "qwen3_moe"?): no layout`,
		`{"model_type": "bagel"}`: "no layout native: NeMo AutoModel has two for it, one for " +
			"each stage of training, " +
			"and config.json does not say which; no layout transformers: transformers 5.24.0 " +
			"merges nothing in it; " +
			"no layout torchtitan: TorchTitan 0.3.0 has no such model",
		`{"model_type": "longcat_flash", "zero_expert_num": 4}`: "no layouts native and " +
			"torchtitan: " +
			"NeMo AutoModel 0.7.0 and TorchTitan 0.3.0 have no such model; no layout " +
			"transformers: zero_expert_num is not 0",
		`{"model_type": "longcat_flash", "zero_expert_num": 0}`: "",
		`{"model_type": "step3p7"}`:                             "no layout transformers: vision_config has no num_attention_heads",
		`{"model_type": "kimi_k25", "vision_config": {"num_attention_heads": 0}}`: "no layout transformers: " +
			"vision_config has no num_attention_heads",
		`{"model_type": "kimi_k25", "vision_config": {"num_attention_heads": 4}}`: "",
		`{"model_type": "qwen3_5_moe"}`:                                           "",
		`{"model_type": "mimo_v2"}`:                                               "no layout native: NeMo AutoModel 0.7.0 has it only for architectures",
		`{"model_type": "deepseek_v3", "text_config": {"model_type": "x"}}`: "no layouts native, transformers " +
			`and torchtitan: it is known only with text_config.model_type "kimi_k2", and config.json has "x"`,
	} {
		c := &Checkpoint{Config: &Config{Raw: []byte(config)}}
		if got := Missing(c); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
	if got := Missing(&Checkpoint{Config: &Config{}}); got != "" {
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
	published := dict(t, c, Options{Layout: LayoutHF})
	equal(t, dict(t, c, Options{Layout: LayoutSplit}), tensorsOf(t, published))

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

// A message that lists the layouts of a model leaves split out where it is refused.
func TestMessagesNameNoSplitThatIsRefused(t *testing.T) {
	const grouped, apart = "mlp.experts.gate_up_proj BF16 2 8 6",
		"mlp.experts.0.up_proj.weight BF16 8 6"
	for _, test := range []struct {
		modelType, tensor string
		split             bool
	}{
		{"novel", grouped, false},
		{"novel", apart, true},
		{"llama", grouped, false},
		{"gpt_oss", "mlp.router.weight BF16 8 6", false},
		{"inkling_mm_model", "mlp.router.weight BF16 8 6", false},
		{"qwen3_5_moe", grouped, true},
		{"qwen3_moe", grouped, true},
	} {
		c := opened(t, synthetic(t, `{"model_type": "`+test.modelType+`", "num_experts": 2}`,
			"model.layers.0."+test.tensor))
		for layout, list := range map[string]string{"gguf": "there are ",
			LayoutTorchTitan: "it has "} {
			_, err := NewPlan(c, Options{Layout: layout})
			if f := c.row(c.Config.fields()); layout != "gguf" && f.hasView(layout) {
				continue
			}
			_, names, _ := strings.Cut(err.Error(), list)
			if !strings.Contains(names, "hf") || strings.Contains(names, "split") != test.split {
				t.Errorf("%v: %v", test, err)
			}
		}
	}
}

// The default is without split if the source has no grouped experts: then it equals hf.
func TestSplitIsShownWhereItDiffersFromHF(t *testing.T) {
	for _, test := range []struct {
		modelType string
		tensors   []string
		want      bool
	}{
		{"qwen3_5_moe", []string{"mlp.experts.gate_up_proj BF16 2 8 6", "mlp.experts.down_proj BF16 2 6 4"}, true},
		{"qwen3_5_moe", []string{"mlp.experts.gate_and_up_projs BF16 2 6 8", "mlp.experts.down_projs BF16 2 4 6"}, true},
		{"qwen3_5_moe", []string{"mlp.experts.0.up_proj.weight BF16 4 6"}, false},
		{"qwen3_5_moe", []string{"mlp.experts.0.up_proj.weight BF16 4 6", "mlp.experts.down_proj BF16 2 6 4"}, true},
		{"qwen3_5_moe", []string{"input_layernorm.weight BF16 6"}, false},
		{"step3p5", []string{"moe.gate_proj.weight BF16 2 4 6"}, true},
		{"step3p5", []string{"moe.experts.0.gate_proj.weight BF16 4 6"}, false},
		{"qwen3_moe", []string{"mlp.experts.gate_up_proj BF16 2 8 6"}, false},
	} {
		var tensors []string
		for _, x := range test.tensors {
			tensors = append(tensors, "model.layers.0."+x)
		}
		c := opened(t, synthetic(t, `{"model_type": "`+test.modelType+`"}`,
			strings.Join(tensors, "\n")))
		if got := slices.Contains(Layouts(c), LayoutSplit); got != test.want {
			t.Errorf("%v: split is shown: %v", test, got)
		}
	}
}

// adapters are the values of model_type of the models that have an adapter in NeMo AutoModel 0.7.0,
// by the adapter's class without "StateDictAdapter".
var adapters = map[string]string{
	"Bagel":              "bagel",
	"BailingMoeV2":       "bailing_moe bailing_moe_v2",
	"DeepSeekV3":         "deepseek_v3 kimi_k2",
	"DeepSeekV32":        "deepseek_v32",
	"DeepSeekV4":         "deepseek_v4",
	"DeepseekV41":        "deepseek_v41",
	"DiffusionGemma":     "diffusion_gemma",
	"Encoder":            "llama_bidirec ministral3_bidirec mistral3_bidirec",
	"Ernie4_5":           "ernie4_5",
	"Ernie4_5_Moe":       "ernie4_5_moe",
	"Gemma4MoE":          "gemma4",
	"Gemma4Unified":      "gemma4_unified",
	"Glm4Moe":            "glm4_moe glm4_moe_lite",
	"Glm5Next":           "glm5_next",
	"GlmMoeDsa":          "glm_moe_dsa",
	"GPTOSS":             "gpt_oss",
	"HunyuanImage3":      "hunyuan_image_3_moe",
	"HyMT2":              "hy_mt2",
	"HYV3":               "hy_v3",
	"Inkling":            "inkling_mm_model",
	"KimiK25VL":          "kimi_k25",
	"KimiK3":             "kimi_k3",
	"KimiLinear48B":      "kimi_linear kimi_linear_48b_a3b",
	"KimiVL":             "kimi_vl",
	"Laguna":             "laguna",
	"LlavaOneVision":     "llavaonevision1_5",
	"MiMoV2":             "mimo_v2",
	"MiMoV2Flash":        "mimo_v2_flash mimo_v2",
	"MiniMaxM2":          "minimax_m2",
	"MiniMaxM3":          "minimax_m3",
	"MiniMaxM3VL":        "minimax_m3_vl",
	"Mistral3FP8":        "mistral3 ministral3",
	"Mistral3Reranker":   "mistral3",
	"Mistral4Multimodal": "mistral3",
	"DeepseekV41DSpark":  "deepseek_v41",
	"Mistral4":           "mistral4",
	"MuseGlimmer":        "muse_glimmer",
	"NemotronOmni":       "NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Omni_Reasoning_V3",
	"NemotronV3":         "nemotron_h",
	"Qwen2_5Omni":        "qwen2_5_omni qwen2_5_omni_thinker",
	"Qwen3Moe":           "qwen3_moe",
	"Qwen3Next":          "qwen3_next",
	"Qwen3OmniMoe":       "qwen3_omni_moe qwen3_omni_moe_thinker",
	"Qwen3VLMoe":         "qwen3_vl_moe",
	"Qwen3_5Dense":       "qwen3_5 qwen3_5_text",
	"Qwen3_5Moe":         "qwen3_5_moe qwen3_5_moe_text",
	"Qwen3_8_FlashNext":  "qwen3_8_flash_next qwen4_exp",
	"Step3p5":            "step3p5",
	"Step3p7":            "step3p7 step3p5v",
}

// No model that has an adapter in the reference gets the published names by default.
func TestModelsWithAnAdapterAreNotTakenForOthers(t *testing.T) {
	for name, types := range adapters {
		for _, modelType := range strings.Fields(types) {
			hasRow := slices.ContainsFunc(families, func(f family) bool {
				return slices.Contains(f.types, modelType)
			})
			if !hasRow {
				t.Errorf("%s: %s has no row", name, modelType)
			}
			s := settings{"model_type": modelType, "text_config": map[string]any{"model_type": "?"}}
			if f := new(Checkpoint).row(s); f.unknown && f.noNative == "" {
				t.Errorf("%s: %s around an unknown model has published names", name, modelType)
			}
		}
	}
}

// typesOfTransformers are the values of model_type that transformers 5.24.0 has models for.
const typesOfTransformers = "../testdata/types/transformers.txt"

// The layout transformers is only for models that transformers itself has.
func TestTransformersHasTheModelsOfItsLayout(t *testing.T) {
	text, err := os.ReadFile(typesOfTransformers)
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(text))
	checked := 0
	for _, f := range families {
		for _, m := range f.types {
			if _, ok := f.of(settings{"model_type": m}).viewNamed(LayoutTransformers); !ok {
				continue
			}
			checked++
			if !slices.Contains(known, m) {
				t.Errorf("%s: transformers has no model of type %s", f.name, m)
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d types have the layout", checked)
	}
}
