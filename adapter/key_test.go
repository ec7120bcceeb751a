package adapter

import "testing"

func TestKeysAreLocated(t *testing.T) {
	for key, want := range map[string]place{
		"lm_head.weight":                       {"lm_head.weight", -1, ""},
		"model.layers.3.mlp.gate.weight":       {"model.", 3, "mlp.gate.weight"},
		"layers.12.x":                          {"", 12, "x"},
		"language_model.layers.0.a.layers.7.b": {"language_model.", 0, "a.layers.7.b"},
		"mylayers.3.x":                         {"mylayers.3.x", -1, ""},
		"model.layers.x.layers.4.y":            {"model.layers.x.", 4, "y"},
		"model.layers.3":                       {"model.layers.3", -1, ""},
		"layers.":                              {"layers.", -1, ""},
		"":                                     {"", -1, ""},
		"model.layers.99999999999999999999.x":  {"model.layers.99999999999999999999.x", -1, ""},
		"vision_tower.transformer.layers.3.w.weight": {"vision_tower.transformer.", 3, "w.weight"},
	} {
		if got := locate(key); got != want {
			t.Errorf("locate(%q) = %+v, want %+v", key, got, want)
		}
	}
}

func TestFamiliesLocateTheirPredictionLayers(t *testing.T) {
	f := &family{mtpPrefix: "mtp.", mtpBlock: "block."}
	for key, want := range map[string]place{
		"mtp.3.ffn.gate.weight":          {"mtp.", 3, "ffn.gate.weight"},
		"mtp.x.layers.1.w":               {"mtp.x.", 1, "w"},
		"mtp.3":                          {"mtp.3", -1, ""},
		"mtp.99999999999999999999.w":     {"mtp.99999999999999999999.w", -1, ""},
		"model.layers.3.mlp.gate.weight": {"model.", 3, "mlp.gate.weight"},
		"mtp.layers.3.block.mlp.w":       {"mtp.", 3, "mlp.w"},
	} {
		if got := f.locate(key); got != want {
			t.Errorf("locate(%q) = %+v, want %+v", key, got, want)
		}
	}
	if got, want := (*family)(nil).locate("mtp.3.w"), (place{"mtp.3.w", -1, ""}); got != want {
		t.Errorf("locate of no family = %+v, want %+v", got, want)
	}
}

func TestExpertKeysAreRead(t *testing.T) {
	x := mlpExperts("n")
	for rest, want := range map[string]expertPart{
		"mlp.experts.0.gate_proj.weight":   {0, gate},
		"mlp.experts.10.up_proj.weight":    {10, up},
		"mlp.experts.255.down_proj.weight": {255, down},
	} {
		if got, ok := x.splitExpert(rest); !ok || got != want {
			t.Errorf("splitExpert(%q) = %+v, %v, want %+v", rest, got, ok, want)
		}
	}
	for _, rest := range []string{
		"mlp.experts.0.gate_proj.bias", "mlp.experts.gate_proj.weight", "mlp.experts.0gate_proj.weight",
		"mlp.experts.0.gate_proj.weight.x", "mlp.shared_experts.0.up_proj.weight", "mlp.experts.", "mlp.experts.1", "mlp.experts.1.",
	} {
		if got, ok := x.splitExpert(rest); ok {
			t.Errorf("splitExpert(%q) = %+v, want none", rest, got)
		}
		if got, ok := gptOSS.experts.splitExpert(rest); ok {
			t.Errorf("splitExpert(%q) of gpt-oss = %+v, want none", rest, got)
		}
	}
}
