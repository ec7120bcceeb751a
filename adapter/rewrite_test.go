package adapter

import (
	"bytes"
	"encoding/json"
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
