package main

import (
	"slices"
	"strings"
)

// layouts are the values of --layout, with the programs that read them.
var layouts = []struct{ name, readers string }{
	{"native", "NeMo AutoModel and training code with grouped experts"},
	{"hf", "transformers, vLLM, SGLang, llama.cpp and all else that reads a BF16 Hugging Face checkpoint"},
	{"transformers", "transformers v5 with grouped experts"},
	{"torchtitan", "TorchTitan"},
	{"hf-fp8", "programs that read the FP8 checkpoint as it is published"},
}

func layoutNames() (names []string) {
	for _, l := range layouts {
		names = append(names, l.name)
	}
	return names
}

// readersOf names the programs that read a layout.
func readersOf(layout string) string {
	for _, l := range layouts {
		if l.name == layout {
			return l.readers
		}
	}
	return ""
}

// checkLayouts refuses names that are not layouts.
func checkLayouts(names []string) error {
	for _, name := range names {
		if !slices.Contains(layoutNames(), name) {
			return flagError("layout", name, "one of "+strings.Join(layoutNames(), ", "))
		}
	}
	return nil
}
