package adapter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// publish gives the weights of a native source their published names, so that every layout starts
// from these. A native source is recognized by its grouped experts. Shown as native it stays as
// it is.
func (p *planner) publish() error {
	native, ok := p.family.viewNamed(LayoutNative)
	if !ok || !p.isNative() {
		return nil
	}
	if p.layout.Name == LayoutNative {
		p.view = &view{layout: LayoutNative, path: native.path, mtp: native.mtp}
		return nil
	}
	p.back = native
	for i := range p.weights {
		p.weights[i].hf = p.published(p.weights[i].hf)
	}
	return nil
}

// published gives the published name for a native name.
func (p *planner) published(name string) string {
	if p.back == nil {
		return name
	}
	return firstOf(reversed(p.back.prefixes), firstOf(reversed(p.back.renames), name))
}

// isNative reports whether the source has experts grouped as in the native layout.
func (p *planner) isNative() bool {
	l, _ := layoutNamed(LayoutNative)
	for i := range p.weights {
		for _, g := range l.groups {
			if strings.HasSuffix(p.weights[i].hf, g.name) {
				return true
			}
		}
	}
	return false
}

// joinFused joins the parts of a matrix that published checkpoints hold fused. done says that the
// weight is such a part.
func (p *planner) joinFused(w *weight, at place) (done bool, err error) {
	if p.back == nil {
		return false, nil
	}
	for _, f := range p.back.split {
		for i, end := range f.to {
			head, ok := strings.CutSuffix(w.hf, end)
			if !ok {
				continue
			}
			if i > 0 {
				return true, nil // joined with the first
			}
			return true, p.fuse(f, head, w, at)
		}
	}
	return false, nil
}

// fuse shows the parts below head as one matrix.
func (p *planner) fuse(f fused, head string, first *weight, at place) error {
	ws := make([]*weight, 0, len(f.to))
	for _, end := range f.to {
		w := p.weightOf(head + end)
		if w == nil {
			return fmt.Errorf("%s: %s: expected %s beside it", first.Shard, first.Key, head+end)
		}
		ws = append(ws, w)
	}
	nodes, err := p.alike(ws)
	if err != nil {
		return err
	}
	n, err := expr.Concat(0, nodes...)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", first.Shard, first.Key, err)
	}
	return p.add(p.name(head+f.from, at), n, p.bucket(first, at), ws...)
}

// alike returns the nodes of weights that are joined. If their dtypes differ, all get that of
// decoded weights.
func (p *planner) alike(ws []*weight) ([]expr.Node, error) {
	nodes := make([]expr.Node, len(ws))
	for i, w := range ws {
		nodes[i] = p.node(w)
	}
	other := func(n expr.Node) bool { return n.DType() != nodes[0].DType() }
	if !slices.ContainsFunc(nodes, other) {
		return nodes, nil
	}
	for i, w := range ws {
		var err error
		if nodes[i], err = expr.Cast(nodes[i], p.decoded()); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
		}
	}
	return nodes, nil
}

// weightOf finds a weight by its published name.
func (p *planner) weightOf(hf string) *weight {
	if p.byName == nil {
		p.byName = make(map[string]*weight, len(p.weights))
		for i := range p.weights {
			p.byName[p.weights[i].hf] = &p.weights[i]
		}
	}
	return p.byName[hf]
}
