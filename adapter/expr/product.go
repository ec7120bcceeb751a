package expr

import "errors"

// Product multiplies entry i of the first axis of n by value i of the vector by. The product is
// computed in F32 and rounded to the promoted dtype of both.
func Product(n, by Node) (Node, error) { return nil, errors.New("product: not made yet") }
