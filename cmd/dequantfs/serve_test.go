package main

import (
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/fs/serve"
)

func TestServeNamesAreThoseOfTheSource(t *testing.T) {
	for name, want := range map[string]string{
		"/models/DeepSeek-V3": "DeepSeek-V3", "/models/DeepSeek-V3/": "DeepSeek-V3",
		"/models/x.safetensors": "x", "org/name": "name", "org/name@0123abc": "name",
		"hf://org/name@refs/pr/1": "name", "https://huggingface.co/org/name/tree/main": "name",
		"s3://bucket/folder/name/": "name", "https://host/f/name?sig=secret/x": "name",
		"/cache/models--org--name/snapshots/0123": "name", "gs://model": "my-model",
	} {
		if got := nameOfSource(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestProgressOfServingIsOneLine(t *testing.T) {
	before := serve.Stats{Sent: 1 << 20}
	now := serve.Stats{Sent: 3 << 20, Active: 2, Aborted: 1}
	const want = "served 3MiB, 1MiB/s, 2 files under way, 1 ended early"
	if got := progressLine(before, now, 2*time.Second); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
