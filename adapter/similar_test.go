package adapter

import (
	"os"
	"strings"
	"testing"
)

func TestMisspelledTypesResembleKnownOnes(t *testing.T) {
	for given, want := range map[string]string{
		"qwen3-moe": "qwen3_moe", "Qwen3_MoE": "qwen3_moe", "qwen3moe": "qwen3_moe",
		"deepseekv3": "deepseek_v3", "deepsekv3": "deepseek_v3", "deepseek_v4x": "deepseek_v4",
		"Mixtral": "mixtral", "minsitral3": "ministral3", "GPT-OSS": "gpt_oss", "nemotron-h": "nemotron_h",

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
		if got := similarType(name); got != "" && plainType(got) != plainType(name) {
			t.Errorf("%s: taken for %s", name, got)
		}
	}
}

func TestEditDistanceOfSmallTexts(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1},
		{"abc", "xbc", 1}, {"abcd", "acd", 1}, {"ca", "abc", 3}, {"kitten", "sitting", 3},
	} {
		for _, pair := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
			if got := editDistance(pair[0], pair[1]); got != test.want {
				t.Errorf("%q: %d, want %d", pair, got, test.want)
			}
		}
	}
}
