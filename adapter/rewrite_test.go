package adapter

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

func TestConfigIsRewritten(t *testing.T) {
	const source = `{"b": 1.0, "transformers_weights": "x.safetensors", "model_type": "x", "torch_dtype": "float8_e4m3fn", "num_nextn_predict_layers": 1, "rope": {"z": 1e-06, "a": [1, {"torch_dtype": "k"}]},
 "quantization_config": {"quant_method": "fp8"}, "text_config": {"dtype": "auto", "compression_config": {}, "num_nextn_predict_layers": 2, "y": "<é>"}, "vision_config": {"torch_dtype": "float16", "quantization_config": 1}, "big": 123456789012345678901234567890}`
	for _, test := range []struct {
		name string
		p    planner
		want string
	}{
		{
			"computed, prediction layers dropped",
			planner{layout: &layouts[0], computed: true, sawMTP: true, view: &view{mtp: dropMTP}, o: Options{MTP: "auto"}, dtype: safetensors.F32},
			`{"b": 1.0, "model_type": "x", "torch_dtype": "float32", "num_nextn_predict_layers": 0, "rope": {"z": 1e-06, "a": [1, {"torch_dtype": "k"}]},
 "text_config": {"dtype": "float32", "num_nextn_predict_layers": 0, "y": "<é>"}, "vision_config": {"torch_dtype": "float16"}, "big": 123456789012345678901234567890, "dtype": "float32"}`,
		},
		{
			"all in one dtype",
			planner{layout: &layouts[0], view: &view{}, o: Options{Cast: CastAll}, dtype: safetensors.F16},
			`{"b": 1.0, "model_type": "x", "torch_dtype": "float16", "num_nextn_predict_layers": 1, "rope": {"z": 1e-06, "a": [1, {"torch_dtype": "k"}]},
 "text_config": {"dtype": "float16", "num_nextn_predict_layers": 2, "y": "<é>"}, "vision_config": {"torch_dtype": "float16"}, "big": 123456789012345678901234567890, "dtype": "float16"}`,
		},
		{
			"nothing computed",
			planner{layout: &layouts[0], view: &view{}, o: Options{MTP: "drop"}, dtype: safetensors.BF16},
			`{"b": 1.0, "model_type": "x", "torch_dtype": "float8_e4m3fn", "num_nextn_predict_layers": 1, "rope": {"z": 1e-06, "a": [1, {"torch_dtype": "k"}]},
 "text_config": {"dtype": "auto", "num_nextn_predict_layers": 2, "y": "<é>"}, "vision_config": {"torch_dtype": "float16"}, "big": 123456789012345678901234567890}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.p.c = &Checkpoint{Config: &Config{Raw: []byte(source)}}
			got, err := test.p.rewriteConfig()
			if err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			if err := json.Indent(&want, []byte(test.want), "", "  "); err != nil {
				t.Fatal(err)
			}
			want.WriteByte('\n')
			if !bytes.Equal(got, want.Bytes()) {
				t.Errorf("got\n%s\nwant\n%s", got, want.Bytes())
			}
		})
	}
}

// Fields that only describe the quantization are removed at every depth. All else is kept as it
// was written, also in lists.
func TestNothingSpeaksOfTheQuantization(t *testing.T) {
	for source, want := range map[string]string{
		`{"quantization": {"bits": 4, "group_size": 64}, "quantization_config": {"bits": 4}, "a": 1e-06}`: `{"a": 1e-06}`,
		`{"expert_dtype": "fp4", "torch_dtype": "bfloat16"}`:                                              `{"torch_dtype": "bfloat16"}`,
		`{"text_config": {"expert_dtype": "fp8", "quantization_config": {"a": [1]}, "x": 1.0}}`:           `{"text_config": {"x": 1.0}}`,
		`{"a_config": {"b_config": {"c": {"compression_config": null, "d": true}}}}`:                      `{"a_config": {"b_config": {"c": {"d": true}}}}`,
		`{"parts": [[1, {"quantization_config": 1, "x": 1.50}, "{"], [{"quantization": {}}], 2E5]}`:       `{"parts": [[1, {"x": 1.50}, "{"], [{}], 2E5]}`,
		`{"_pre_quantization_dtype": "float16", "quantization_kind": "{", "l": [ "{" , NaN]}`:             `{"quantization_kind": "{", "l": ["{", NaN]}`,
	} {
		p := planner{layout: &layouts[1], view: &view{},
			c: &Checkpoint{Config: &Config{Raw: []byte(source)}}}
		got, err := p.rewriteConfig()
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		indented, err := indentJSON([]byte(want))
		if err != nil {
			t.Fatal(err)
		}
		if want := string(indented) + "\n"; string(got) != want {
			t.Errorf("%s: got %s, want %s", source, got, want)
		}
	}
}

// TestNoGoldenSpeaksOfTheQuantization rewrites the configurations of published formats and looks
// for every word about a quantization.
func TestNoGoldenSpeaksOfTheQuantization(t *testing.T) {
	paths, err := filepath.Glob("../testdata/golden/*/*/*.json")
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob("../testdata/golden/*/*/*/*.json")
	if err != nil {
		t.Fatal(err)
	}
	quantized := 0
	for _, path := range append(paths, deeper...) {
		if name := filepath.Base(path); name != "config.json" && name != "params.json" {
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range layouts {
			p := planner{layout: &layouts[i], view: &view{}, computed: true,
				dtype: safetensors.BF16,
				c:     &Checkpoint{Config: &Config{Raw: raw}}}
			got, err := p.rewriteConfig()
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if bytes.Contains(raw, []byte("quantization")) {
				quantized++
			}
			if layouts[i].quantizes {
				got = bytes.Replace(got, []byte(`"quantization_config": {`), nil, 1)
			}
			for _, word := range []string{"quantization", "quant_method", "config_groups",
				"compression_config", "expert_dtype", "qformat"} {
				if layouts[i].quantizes && word == "quant_method" {
					continue // its own
				}
				if bytes.Contains(got, []byte(word)) {
					t.Errorf("%s, %s: %s is left in %s", path, layouts[i].Name, word, got)
				}
			}
		}
	}
	if quantized == 0 {
		t.Error("no configuration has a quantization")
	}
}

func TestConfigThatIsNoObjectIsRefused(t *testing.T) {
	for _, raw := range []string{"", "[]", "1", `{"a"`, `{"a": }`} {
		if _, err := parseSettings([]byte(raw)); err == nil {
			t.Errorf("%q: no error", raw)
		}
	}
}

func TestSettingsLookIntoTheLanguageModel(t *testing.T) {
	s, err := parseSettings([]byte(`{"model_type": "vl", "num_experts": null,
		"text_config": {"model_type": "inner", "num_experts": 8, "hidden_act": "relu2"}, "thinker_config": {"text_config": {"deep": 3}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := s.integer("absent", "num_experts"); !ok || n != 8 {
		t.Errorf("num_experts = %d, %v", n, ok)
	}
	if n, ok := s.integer("deep"); !ok || n != 3 {
		t.Errorf("deep = %d, %v", n, ok)
	}
	if s.gated() {
		t.Error("relu2 counts as gated")
	}
	if got := s.modelTypes(); len(got) != 2 || got[0] != "vl" || got[1] != "inner" {
		t.Errorf("model types %v", got)
	}
}
