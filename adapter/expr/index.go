package expr

import "fmt"

// Index keeps entry i of the first axis and drops that axis. An entry outside the axis is an error.
func Index(n Node, i int64) (Node, error) {
	of, err := ours("index", n)
	if err != nil {
		return nil, err
	}
	if len(n.Shape()) == 0 || i < 0 || i >= n.Shape()[0] {
		return nil, fmt.Errorf("index: entry %d of %s with shape %v", i, n, n.Shape())
	}
	if n.Size() == 0 {
		return indexed(of, i)
	}
	return of.index(i)
}

// indexed is index for nodes that have no better way: a slice of one entry, reshaped.
func indexed(of node, i int64) (node, error) {
	n, err := newSlice(of, 0, i, i+1)
	if err != nil {
		return nil, err
	}
	return newReshape(n, n.Shape()[1:])
}
