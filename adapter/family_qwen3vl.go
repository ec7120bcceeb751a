package adapter

import "strings"

// qwen3VLMoe is Qwen3-VL with experts. They are published grouped as in the native layout, under
// the names that transformers gives to groups with swapped axes.
var qwen3VLMoe = family{
	name:  "qwen3_vl_moe",
	types: []string{"qwen3_vl_moe"},
	inner: []string{"qwen3_vl_moe_text"},
	experts: &expertKeys{
		path: "mlp.experts.", proj: mlpProj, count: routedExperts,
		grouped: LayoutHF, turned: true,
		groups: []group{
			{name: "gate_up_proj", parts: []role{gate, up}, transposed: true},
			{name: "down_proj", parts: []role{down}, transposed: true},
		},
	},
	views: []view{
		{layout: LayoutNative, empty: true, hooks: hooks{rekey: qwen3VLKey}}, plainTransformers,
	},
}

// qwen3VLKey puts keys below the model's root, except those of the head.
func qwen3VLKey(p *planner, key string) string {
	if strings.HasPrefix(key, "model.") || strings.HasPrefix(key, "lm_head.") {
		return key
	}
	return p.root() + key
}
