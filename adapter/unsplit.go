package adapter

import (
	"fmt"
	"slices"
	"strings"
)

// refuseUnsplit refuses a tensor with a matrix of each expert in layout split if no rule says how
// it is taken apart. That is so for every model that has no row.
func (p *planner) refuseUnsplit(w *weight, name string) error {
	if !p.layout.splits || !holdsExperts(w.hf, w.shape()) || p.leftOut(name) != "" {
		return nil
	}
	why := fmt.Sprintf("grouped experts of shape %v, and for model_type %q it is not known in "+
		"which order and along which axes they are joined", w.shape(), p.s.modelType())
	if k := p.family.expertKeys(); k != nil && k.whole != "" {
		why = k.whole
	}
	return p.unsplit(w, why)
}

// unsplit is the error about experts that layout split cannot show, and why.
func (p *planner) unsplit(w *weight, why string) error {
	return fmt.Errorf("%s: %s: cannot be split, so there is no layout %s: %s: give --layout %s, "+
		"which shows it as it is", w.Shard, w.Key, p.layout.Name, why, LayoutHF)
}

// refusesSplit reports whether layout split of a checkpoint is refused.
func (c *Checkpoint) refusesSplit(f *family) bool {
	if k := f.expertKeys(); k != nil {
		return k.whole != ""
	}
	return slices.ContainsFunc(c.Tensors(), func(t *Stored) bool {
		return holdsExperts(t.Key, t.Shape)
	})
}

// holdsGroups reports whether a checkpoint has grouped experts. If it has none, layouts hf and
// split are equal. One without tensors counts as published.
func (c *Checkpoint) holdsGroups(f *family) bool {
	return len(c.Tensors()) == 0 || slices.ContainsFunc(c.Tensors(), func(t *Stored) bool {
		_, _, grouped := f.groupedExperts(f.locate(t.Key).rest)
		return grouped || holdsExperts(t.Key, t.Shape)
	})
}

// holdsExperts reports whether a weight seems to hold the matrices of all experts of a layer, by
// its published key and its axes.
func holdsExperts(key string, shape []int64) bool {
	if len(shape) < 2 || strings.HasSuffix(key, "bias") {
		return false
	}
	parts := strings.Split(key, ".")
	for i, part := range parts[:len(parts)-1] {
		_, rest, ok := number(parts[i+1])
		switch {
		case part == "experts" && !(ok && rest == ""):
			return true
		case part == "moe" && len(shape) == 3:
			return true
		}
	}
	return false
}
