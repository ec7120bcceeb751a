package adapter

import (
	"fmt"
	"strings"
)

// refuseUnsplit refuses a tensor with a matrix of each expert in layout split if no rule says how
// it is taken apart. That is so for every model that has no row.
func (p *planner) refuseUnsplit(w *weight, name string) error {
	if !p.layout.splits || !holdsExperts(w) || p.leftOut(name) != "" {
		return nil
	}
	why := fmt.Sprintf("grouped experts of shape %v, and for model_type %q it is not known in "+
		"which "+
		"order and along which axes they are joined", w.shape(), p.s.modelType())
	if k := p.family.expertKeys(); k != nil && k.whole != "" {
		why = k.whole
	}
	return p.unsplit(w, why)
}

// unsplit is the error about experts that layout split cannot show, and why.
func (p *planner) unsplit(w *weight, why string) error {
	return fmt.Errorf("%s: %s: layout %s: %s: give --layout %s, which shows them as they are",
		w.Shard, w.Key, p.layout.Name, why, LayoutHF)
}

// holdsExperts reports whether a weight seems to hold the matrices of all experts of a layer, by
// its key and axes.
func holdsExperts(w *weight) bool {
	if len(w.shape()) < 2 || strings.HasSuffix(w.hf, "bias") {
		return false
	}
	parts := strings.Split(w.hf, ".")
	for i, part := range parts[:len(parts)-1] {
		_, rest, ok := number(parts[i+1])
		switch {
		case part == "experts" && !(ok && rest == ""):
			return true
		case part == "moe" && len(w.shape()) == 3:
			return true
		}
	}
	return false
}
