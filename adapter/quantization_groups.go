package adapter

import "strings"

// readConfigGroups reads the config_groups of compressed-tensors.
func readConfigGroups(o settings) (rules []rule, err error) {
	left := maxInstructions
	groups, ignore := asObject(o["config_groups"]), readTargets(o["ignore"], &left)
	if ignore != nil {
		// a class, or a pattern that only Python can read, must not exclude every weight
		ignore.all = false
	}
	for _, name := range sortedKeys(groups) {
		g := asObject(groups[name])
		w := asObject(g["weights"])
		r := rule{targets: readTargets(g["targets"], &left), ignore: ignore, integers: isInt(w)}
		if r.scheme, err = groupScheme(w); err != nil {
			return nil, err
		}
		if r.integers {
			r.describeIntegers(w)
		}
		r.ordered = isOrdered(w["actorder"])
		r.unordered = !r.ordered && len(w) > 0
		rules = append(rules, r)
	}
	return rules, nil
}

// isInt reports whether the codes of a group's weights are whole numbers.
func isInt(w map[string]any) bool {
	t, ok := w["type"].(string)
	return ok && t == "int"
}

// describeIntegers reads what only groups of whole numbers have. Weights are symmetric unless the
// field says otherwise.
func (s *scheme) describeIntegers(w map[string]any) {
	if n := wholeNumber(w["num_bits"]); n > 0 {
		s.bits = []int{int(n)}
	}
	symmetric, ok := w["symmetric"].(bool)
	s.symmetric = symmetric || !ok
	s.asymmetric = !s.symmetric
}

// isOrdered reports whether a value of actorder means that columns were put into groups by their
// activations. Of the other values, "weight" and "static" only changed the order of rounding.
func isOrdered(v any) bool {
	name, _ := v.(string)
	name = strings.ToLower(name)
	return v == true || name == "group" || name == "dynamic"
}

// groupScheme reads the strategy of a group's weights. Groups of floats with other than 8 bits say
// nothing, because the tensors decide.
func groupScheme(w map[string]any) (s scheme, err error) {
	if bits, ok := w["num_bits"].(float64); ok && bits != 8 && !isInt(w) {
		return s, nil
	}
	if t, ok := w["type"].(string); ok && t != "float" && t != "int" {
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
