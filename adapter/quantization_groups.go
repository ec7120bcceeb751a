package adapter

// readConfigGroups reads the config_groups of compressed-tensors. Groups of types other than 8-bit
// floats do not describe FP8 weights.
func readConfigGroups(o settings) (rules []rule, err error) {
	left := maxInstructions
	groups, ignore := asObject(o["config_groups"]), readTargets(o["ignore"], &left)
	if ignore != nil {
		// a class, or a pattern that only Python can read, must not exclude every weight
		ignore.all = false
	}
	for _, name := range sortedKeys(groups) {
		g := asObject(groups[name])
		r := rule{targets: readTargets(g["targets"], &left), ignore: ignore}
		if r.scheme, err = groupScheme(asObject(g["weights"])); err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// groupScheme reads the strategy of a group's weights.
func groupScheme(w map[string]any) (s scheme, err error) {
	if bits, ok := w["num_bits"].(float64); ok && bits != 8 {
		return s, nil
	}
	if t, ok := w["type"].(string); ok && t != "float" {
		return s, nil
	}
	size := wholeNumber(w["group_size"])
	strategy, _ := w["strategy"].(string)
	switch {
	case strategy == "block":
		b, err := blockOf("block_structure", w["block_structure"])
		if err != nil {
			return s, err
		}
		if b != ([2]int64{}) {
			s.blocks = [][2]int64{b}
		}
	case strategy == "tensor":
		s.tensor = true
	case strategy == "channel", w["group_size"] == float64(-1):
		s.channel = true
	case size > 0:
		s.blocks = [][2]int64{{1, size}}
	}
	return s, nil
}
