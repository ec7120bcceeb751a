package main

import (
	"slices"
	"testing"
)

func TestSimilarNames(t *testing.T) {
	names := []string{"native", "hf", "split", "hf-fp8"}
	for word, want := range map[string][]string{
		"natve": {"native"}, "NATIVE": {"native"}, "hf-fp16": {"hf-fp8"}, "hf-": {"hf", "hf-fp8"},
		"": nil, "gguf": nil, "frobnicate": nil, "na": {"native"}, "gg": nil,
	} {
		if got := similar(word, names); !slices.Equal(got, want) {
			t.Errorf("%q looks like %q, want %q", word, got, want)
		}
	}
}
