package expr

import "errors"

// SwapRows gives the rows of n, those of its first axis, another order. It takes them as [outer,
// inner, rest] and shows them as [outer, rest, inner]. So SwapRows(n, heads, 2) turns the two
// halves of each head into pairs, and SwapRows(n, heads, d/2) undoes it.
func SwapRows(n Node, outer, inner int64) (Node, error) {
	return nil, errors.New("swap rows: not made yet")
}
