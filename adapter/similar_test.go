package adapter

import (
	"os"
	"strings"
	"testing"
)

func TestMisspelledTypesResembleKnownOnes(t *testing.T) {
	for given, want := range map[string]string{
		"qwen3-moe": "qwen3_moe", "Qwen3_MoE": "qwen3_moe", "qwen3moe": "qwen3_moe",
		"deepseekv3": "deepseek_v3", "deepsekv3": "", "deepseek_v4x": "",
		"Mixtral": "mixtral", "minsitral3": "", "GPT-OSS": "gpt_oss", "nemotron-h": "nemotron_h",

		"qwen3_moe": "", "": "", "novel": "", "mymoe": "", "llama4": "", "gemma2": "", "qwen4_moe": "",
		"internvl_chat": "", "frobnicate": "", "deepseek": "", "mixtrl": "", "pixtral": "",
	} {
		if got := similarType(given); got != want {
			t.Errorf("%q: resembles %q, want %q", given, got, want)
		}
		c := &Checkpoint{Config: &Config{Raw: []byte(`{"model_type": "` + given + `"}`)}}
		model, similar := Unknown(c)
		if known := given == "qwen3_moe" || given == ""; known != (model == "") || similar != want {
			t.Errorf("%q: %q, resembles %q", given, model, similar)
		}
	}
}

// A model that transformers has is not taken for a misspelling of another one.
func TestTypesOfTransformersAreNotTakenForMisspellings(t *testing.T) {
	text, err := os.ReadFile(typesOfTransformers)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(text)) {
		if got := similarType(name); got != "" {
			t.Errorf("%s: taken for %s", name, got)
		}
	}
}
