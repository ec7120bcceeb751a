package adapter

import (
	"slices"
	"strings"
)

// leftovers are tensors that belong to a quantization and to no weight. A view has none of them,
// since no model has such a parameter.
var leftovers = map[string]struct {
	cache  bool // of the key-value cache, not of the module that it is in
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

// joinedLeftovers are those behind a module's name without a dot: gate_up_proj_input_scale.
var joinedLeftovers = []string{"input_scale", "activation_scale"}

// leftoverOf finds the module and the name of a tensor that may be a leftover.
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

// leftover says why a tensor is dropped; empty if it is not. One that belongs to a quantized module
// is. In a checkpoint that is quantized at all, so is one number under such a name.
func (p *pairer) leftover(t *Stored) (reason string) {
	module, name, ok := leftoverOf(t.Key)
	if !ok {
		return ""
	}
	l := leftovers[name]
	number := slices.ContainsFunc(wholeScaleShapes[:2], func(s []int64) bool { return slices.Equal(s, t.Shape) })
	eachHead := len(t.Shape) == 3 && t.Shape[1] == 1 && t.Shape[2] == 1
	switch {
	case p.isQuantized(module):
		return l.reason
	case !p.quantized:
		return ""
	case l.cache && (number || eachHead) && inAttention(t.Key), !l.cache && number, name == "scaled_fp8":
		return l.reason
	}
	return ""
}

// inAttention says whether a key lies under an attention module, or under a projection of one that is
// called otherwise: Nemotron-H calls it a mixer.
func inAttention(key string) bool {
	key = strings.ToLower(key)
	return slices.ContainsFunc([]string{"attn", "attention", ".mixer.", ".q_proj.", ".k_proj.", ".v_proj.", ".qkv_proj."},
		func(part string) bool { return strings.Contains(key, part) })
}
