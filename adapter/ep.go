package adapter

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// EP is an expert-parallel rank. The zero value means all experts.
type EP struct{ Rank, Size int }

// check refuses ranks that do not exist.
func (e EP) check() error {
	if e == (EP{}) {
		return nil
	}
	if e.Size < 1 || e.Rank < 0 || e.Rank >= e.Size {
		return fmt.Errorf("expert-parallel rank %d of %d does not exist: ranks go from 0 to one "+
			"less than their number", e.Rank, e.Size)
	}
	return nil
}

// Range gives the experts [lo, hi) of n that the rank holds. The first n mod Size ranks hold one
// more than the others, as in the reference.
func (e EP) Range(n int) (lo, hi int) {
	if e.Size == 0 {
		return 0, n
	}
	q, rem := n/e.Size, n%e.Size
	lo = e.Rank*q + min(e.Rank, rem)
	hi = lo + q
	if e.Rank < rem {
		hi++
	}
	return lo, hi
}

// isOfRank reports whether ranks have different tensors for a key: for those of experts, and for
// those with one entry for each expert.
func (p *planner) isOfRank(at place) bool {
	k := p.family.expertKeys()
	switch {
	case p.o.EP.Size < 2 || k == nil || at.layer < 0:
		return false
	case k.isEach(at.rest):
		return true
	case !p.hasExperts(at.prefix) || !p.sharesExperts(at.prefix):
		return false
	}
	_, one := k.expertOf(at.rest)
	_, _, grouped := p.family.groupedExperts(at.rest)
	return one || grouped
}

// ofRank keeps the rank's experts in a tensor with one entry for each expert. Other tensors stay as
// they are. The node is nil if the rank has no experts.
func (p *planner) ofRank(at place, n expr.Node) (expr.Node, error) {
	k := p.family.expertKeys()
	if k == nil || at.layer < 0 || !k.isEach(at.rest) {
		return n, nil
	}
	s := n.Shape()
	if len(s) == 0 || p.count >= 0 && s[0] != int64(p.count) {
		return nil, fmt.Errorf("shape %v: expected an entry for each of %d experts", s, p.count)
	}
	lo, hi := p.o.EP.Range(int(s[0]))
	if lo == hi && p.o.EP.Size > 0 {
		return nil, nil
	}
	return rankOf(n, lo, hi)
}

// noteRank keeps a line about a rank that has all tensors, or no experts.
func (p *planner) noteRank() {
	shared, most := false, 0
	for _, x := range p.layers {
		if !p.sharesExperts(x.prefix) {
			continue
		}
		if lo, hi := p.rangeOf(x); lo < hi {
			return
		}
		shared, most = true, max(most, p.experts(x))
	}
	switch e := p.o.EP; {
	case e.Size < 2:
	case !shared:
		p.note("ep: there are no experts that ranks could share, so each rank has all tensors")
	default:
		p.note(fmt.Sprintf("ep: rank %d of %d has no experts, since layers have at most %d",
			e.Rank, e.Size, most))
	}
}
