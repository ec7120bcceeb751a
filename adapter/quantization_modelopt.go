package adapter

import (
	"cmp"
	"slices"
)

// readModelOpt reads quant_algo of ModelOpt, and of each of the quantized_layers of a mixture.
func readModelOpt(o settings) ([]rule, error) {
	layers := asObject(o["quantized_layers"])
	rules := make([]rule, 0, len(layers)+1)
	whole := rule{}
	var err error
	if whole.scheme, err = algorithmScheme(o); err != nil {
		return nil, err
	}
	if len(layers) == 0 {
		return append(rules, whole), nil
	}
	for _, name := range sortedKeys(layers) {
		r := rule{targets: readTargets([]any{name}, (*targets).addGlob)}
		if r.scheme, err = algorithmScheme(asObject(layers[name])); err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// algorithmScheme reads a quant_algo. The group_size of blocks is the side of a square or the
// length of a group: which of them, the scales show.
func algorithmScheme(o map[string]any) (s scheme, err error) {
	algorithm, _ := o["quant_algo"].(string)
	size := wholeNumber(o["group_size"])
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
