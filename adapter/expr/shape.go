package expr

import (
	"fmt"
	"slices"
)

// swapped exchanges the last two axes.
func swapped(shape []int64) []int64 {
	s := slices.Clone(shape)
	n := len(s)
	s[n-1], s[n-2] = s[n-2], s[n-1]
	return s
}

// resized gives an axis another size.
func resized(shape []int64, axis int, size int64) []int64 {
	s := slices.Clone(shape)
	s[axis] = size
	return s
}

// axisOf resolves an axis that may be counted from the end.
func axisOf(what string, n Node, axis int) (int, error) {
	rank := len(n.Shape())
	if axis < -rank || axis >= rank {
		return 0, fmt.Errorf("%s: axis %d of %s with shape %v", what, axis, n, n.Shape())
	}
	if axis < 0 {
		axis += rank
	}
	return axis, nil
}

// product multiplies sizes. The caller knows that the product fits an int.
func product(sizes []int64) int {
	n := 1
	for _, s := range sizes {
		n *= int(s)
	}
	return n
}
