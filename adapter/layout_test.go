package adapter

import (
	"fmt"
	"strings"
	"testing"
)

// The readers of a layout depend on the experts of the checkpoint: grouped experts are for
// different programs than those that are apart, and a dense model has none.
func TestReadersDependOnTheExperts(t *testing.T) {
	for modelType, layouts := range map[string]map[string][2]string{ // what is said, and what not
		"llama": {
			LayoutNative: {automodel, "grouped"}, LayoutHF: {"vLLM, SGLang", "grouped"},
			LayoutSplit: {"plain Hugging Face", "experts"},
		},
		"olmoe": {
			LayoutNative: {"with grouped experts", "published"}, LayoutHF: {"vLLM, SGLang", "grouped"},
			LayoutTransformers: {"with grouped experts", "published"},
		},
		"qwen3_5_moe": {
			LayoutHF: {"transformers, llama.cpp", "vLLM"}, LayoutSplit: {"vLLM, SGLang", "llama.cpp"},
			LayoutNative: {"with grouped experts", "published"},
		},
		"gpt_oss": {LayoutHF: {"vLLM, SGLang", "grouped"}}, // it has no layout split
		"novel":   {LayoutNative: {automodel, "grouped"}, LayoutTransformers: {"v5", "grouped"}},
	} {
		c := &Checkpoint{Config: &Config{Raw: fmt.Appendf(nil, `{"model_type": %q}`, modelType)}}
		for layout, want := range layouts {
			got := ReadersOf(c, layout)
			if !strings.Contains(got, want[0]) || strings.Contains(got, want[1]) {
				t.Errorf("%s: %s is for %q, not %q and %q", modelType, layout, got, want[0], want[1])
			}
		}
	}
	if got := ReadersOf(new(Checkpoint), "gguf"); got != "" {
		t.Errorf("an unknown layout is for %q", got)
	}
}
