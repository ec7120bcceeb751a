package adapter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// emptyShard is a .safetensors file without tensors.
const emptyShard = "\x02\x00\x00\x00\x00\x00\x00\x00{}"

// TestFilesThatDescribeTheQuantizationAreReadAndNotShown opens folders and single files with
// a description of the quantization beside config.json.
func TestFilesThatDescribeTheQuantizationAreReadAndNotShown(t *testing.T) {
	const text = `{"quantization": {"quant_algo": "FP8", "other": NaN}}`
	for _, name := range quantizeNames {
		for _, source := range []string{"", "model.safetensors"} {
			for _, config := range []string{"{}", ""} {
				dir := t.TempDir()
				files := map[string]string{name: text, "model.safetensors": emptyShard,
					configName: config}
				if source == "" {
					files[configName] = "{}"
				} else if config == "" {
					delete(files, configName)
				}
				for name, data := range files {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(data),
						0o644); err != nil {
						t.Fatal(err)
					}
				}
				c, err := Open(t.Context(), filepath.Join(dir, source), OpenOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if got := string(c.quantizeFiles[name]); got != text || len(c.quantizeFiles) != 1 {
					t.Errorf("%s of %q: got %q", name, source, c.quantizeFiles)
				}
				if len(c.SideFiles()) != 0 {
					t.Errorf("%s of %q: shown as %v", name, source, c.SideFiles())
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestAFileThatDescribesTheQuantizationAndIsNotAnObjectIsRefused(t *testing.T) {
	for _, name := range quantizeNames {
		for text, want := range map[string]string{
			"[]": "not a JSON object", "null": "not a JSON object", "{": "not a JSON object", "{} {}": "not a JSON object",
			"{\"\xff\":1}": "not a JSON object", strings.Repeat(`{"a":`, 100): "nested deeper than 64",
		} {
			dir := t.TempDir()
			for name, data := range map[string]string{name: text, "model.safetensors": emptyShard,
				configName: "{}"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			c, err := Open(t.Context(), dir, OpenOptions{})
			if err == nil {
				_ = c.Close()
			}
			if err == nil || !strings.Contains(err.Error(), name+": "+want) {
				t.Errorf("%s of %.20q: got %v", name, text, err)
			}
		}
	}
}
