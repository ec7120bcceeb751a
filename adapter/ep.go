package adapter

import "fmt"

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
