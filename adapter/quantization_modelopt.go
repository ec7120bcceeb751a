package adapter

import (
	"cmp"
	"fmt"
	"slices"
)

// modelOptMethods are the values of quant_method in ModelOpt's descriptions.
var modelOptMethods = []string{
	"modelopt", "modelopt_fp4", "modelopt_fp8", "modelopt_mixed", "modelopt_mxfp8",
}

// readModelOpt reads ModelOpt's quant_algo, or that of each of the quantized_layers of a mixture.
// Layers with equal descriptions share a rule, because mixtures name each expert of each layer.
func readModelOpt(o settings) (rules []rule, err error) {
	layers := asObject(o["quantized_layers"])
	if len(layers) == 0 {
		s, err := algorithmScheme(o)
		return []rule{{scheme: s}}, err
	}
	// byScheme maps a scheme to the position of its rule
	left, byScheme := maxInstructions, map[string]int{}
	for _, name := range sortedKeys(layers) {
		s, err := algorithmScheme(asObject(layers[name]))
		if err != nil {
			return nil, fmt.Errorf("quantized_layers: %s: %w", name, err)
		}
		like := fmt.Sprint(s)
		i, ok := byScheme[like]
		if !ok {
			i = len(rules)
			byScheme[like] = i
			rules = append(rules, rule{targets: newTargets(), scheme: s})
		}
		rules[i].targets.addGlob(name, &left)
	}
	return rules, nil
}

// algorithmScheme reads a quant_algo. The group_size of blocks is the side of a square or the
// length of a group; the scales decide which.
func algorithmScheme(o map[string]any) (s scheme, err error) {
	algorithm, _ := o["quant_algo"].(string)
	size := wholeNumber(o["group_size"])
	if slices.Contains(undecodedAlgorithms, algorithm) {
		return s, fmt.Errorf("quant_algo %.100q is not decoded: "+otherwise, algorithm)
	}
	switch algorithm {
	case "FP8":
		s.tensor = true
	case "FP8_PER_CHANNEL_PER_TOKEN":
		s.channel = true
	case "MXFP8":
		s.blocks = [][2]int64{{1, cmp.Or(size, 32)}}
	case "FP8_PB_WO":
		for _, field := range []string{"weight_block_size", "block_size", "block_structure"} {
			b, err := blockOf(field, o[field])
			if err != nil {
				return s, err
			}
			if b != ([2]int64{}) && !slices.Contains(s.blocks, b) {
				s.blocks = append(s.blocks, b)
			}
		}
		if size > 0 && len(s.blocks) == 0 {
			s.blocks = [][2]int64{{size, size}, {1, size}}
		}
	}
	return s, nil
}
