package adapter

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// padded is a vector that published checkpoints fill up with zeros, and the layout does not.
type padded struct {
	name     string // end of its name in the layout
	size     func(settings) (int64, error)
	multiple int64 // the published size is a multiple of this
}

// unpad leaves out the zeros that published checkpoints have behind a vector.
func (p *planner) unpad(name string, n expr.Node) (expr.Node, error) {
	for _, v := range p.view.padded {
		if !strings.HasSuffix(name, v.name) {
			continue
		}
		size, err := v.size(p.s)
		if err != nil {
			return nil, err
		}
		if s := n.Shape(); len(s) != 1 || s[0] < size {
			return nil, fmt.Errorf("shape %v: expected %d values or more, by config.json",
				s, size)
		}
		return expr.Slice(n, 0, 0, size)
	}
	return n, nil
}

// pad undoes unpad. native is the name of the vector in the native layout.
func (p *planner) pad(native string, n expr.Node) (expr.Node, error) {
	for _, v := range p.back.padded {
		if !strings.HasSuffix(native, v.name) || len(n.Shape()) != 1 {
			continue
		}
		rest := (v.multiple - n.Shape()[0]%v.multiple) % v.multiple
		z, err := expr.Blank(n.DType(), rest)
		if err != nil {
			return nil, err
		}
		return expr.Concat(0, n, z)
	}
	return n, nil
}
