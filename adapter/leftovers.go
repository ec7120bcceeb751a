package adapter

import (
	"slices"
	"strings"
)

// leftovers are tensors that belong to a quantization but to no weight. Views leave them out,
// because no model has such a parameter.
var leftovers = map[string]struct {
	cache  bool // of the key-value cache, not of the module that contains it
	reason string
}{
	"input_scale":        {false, ofActivations},
	"activation_scale":   {false, ofActivations},
	"act_scale":          {false, ofActivations},
	"scale_input":        {false, ofActivations},
	"output_scale":       {false, ofActivations},
	"qscale_act":         {false, ofActivations},
	"input_global_scale": {false, ofActivations},
	"input_zero_point":   {false, "zero point of activations, has no part in the weights"},
	"output_zero_point":  {false, "zero point of activations, has no part in the weights"},
	"prob_output_scale":  {true, ofCache},
	"k_scale":            {true, ofCache},
	"v_scale":            {true, ofCache},
	"q_scale":            {true, ofCache},
	"kv_scale":           {true, ofCache},
	"k_zero_point":       {true, ofCache},
	"v_zero_point":       {true, ofCache},
	"k_bias":             {true, ofCache},
	"v_bias":             {true, ofCache},
	"comfy_quant":        {false, "description of a quantization, not a parameter"},
	"weight_format":      {false, "description of a quantization, not a parameter"},
	"scaled_fp8":         {false, "mark of a quantized file, not a parameter"},
}

const (
	ofActivations = "scale of activations, has no part in the weights"
	ofCache       = "quantization of the key-value cache, has no part in the weights"
)

// joinedLeftovers follow a module's name without a dot, as in gate_up_proj_input_scale.
var joinedLeftovers = []string{"input_scale", "activation_scale"}

// leftoverOf returns the module and the name of a tensor that may be a leftover.
func leftoverOf(key string) (module, name string, ok bool) {
	i := strings.LastIndexByte(key, '.')
	name = key[i+1:]
	if _, ok := leftovers[name]; ok {
		return key[:max(i, 0)], name, true
	}
	for _, name := range joinedLeftovers {
		if module, ok := strings.CutSuffix(key, "_"+name); ok {
			return module, name, true
		}
	}
	return "", "", false
}

// leftover returns why a tensor is dropped, or "". A leftover of a quantized module is dropped. If
// any part of the checkpoint is quantized, a single number under such a name is dropped too.
func (p *pairer) leftover(t *Stored) (reason string) {
	module, name, ok := leftoverOf(t.Key)
	if !ok {
		return ""
	}
	l := leftovers[name]
	number := len(t.Shape) == 0 || slices.Equal(t.Shape, []int64{1})
	eachHead := len(t.Shape) == 3 && t.Shape[1] == 1 && t.Shape[2] == 1
	switch {
	case p.isQuantized(module):
		return l.reason
	case !p.quantized:
		return ""
	case l.cache && (number || eachHead) && inAttention(t.Key), !l.cache && number,
		name == "scaled_fp8":
		return l.reason
	}
	return ""
}

// inAttention reports whether a key is below an attention module or one of its projections.
// Nemotron-H calls the module a mixer.
func inAttention(key string) bool {
	key = strings.ToLower(key)
	return slices.ContainsFunc(attentionParts, func(part string) bool {
		return strings.Contains(key, part)
	})
}

var attentionParts = []string{
	"attn", "attention", ".mixer.", ".q_proj.", ".k_proj.", ".v_proj.", ".qkv_proj.",
}
