package adapter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// step is a rule of a view that makes tensors from others, before they get their names in the view.
// Keys are published ones, and those that earlier steps made. A view's steps are taken in order.
// For a source in the view's layout they are undone, the last one first.
type step interface {
	do(p *planner) error
	undo(p *planner) error
}

// errNoInverse is what undo returns if the layout does not hold all that the published form holds.
var errNoInverse = errors.New("what the published checkpoint held there cannot be computed back")

// errAlone is the kind of the errors for a part whose other parts are missing.
var errAlone = errors.New("without the other parts of the same matrix")

// take takes the steps of the view.
func (p *planner) take() error {
	for _, s := range p.view.steps {
		if err := s.do(p); err != nil {
			return fmt.Errorf("%w: give --layout %s, which does not need this", err, LayoutHF)
		}
	}
	return nil
}

// made is a weight with values that are computed from those of others.
func (p *planner) made(key string, n expr.Node, from ...*weight) weight {
	w := *from[0]
	w.hf, w.value, w.decoded, w.decoder = key, n, false, nil
	w.parts = nil
	for _, f := range from {
		w.parts = append(w.parts, f.parts...)
		w.decoded = w.decoded || f.isDecoded()
	}
	slices.Sort(w.parts)
	w.parts = slices.Compact(w.parts)
	return w
}

// replace gives each weight to a function, which returns the weights that take its place. If it
// returns nil, the weight stays.
func (p *planner) replace(by func(w *weight) ([]weight, error)) error {
	var all []weight // nil until something changes
	for i := range p.weights {
		w := &p.weights[i]
		to, err := by(w)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
		case to == nil && all == nil:
		case to == nil:
			all = append(all, *w)
		default:
			if all == nil {
				all = append(make([]weight, 0, len(p.weights)), p.weights[:i]...)
			}
			all = append(all, to...)
		}
	}
	if all != nil {
		p.weights, p.byName = all, nil
	}
	return nil
}

// change replaces the values of the weights whose keys have one of the endings. Without a new
// value, a weight stays.
func (p *planner) change(ends []string, by func(w *weight) (expr.Node, error)) error {
	return p.replace(func(w *weight) ([]weight, error) {
		if !endsIn(ends, w.hf) {
			return nil, nil
		}
		n, err := by(w)
		if err != nil || n == nil {
			return nil, err
		}
		return []weight{p.made(w.hf, n, w)}, nil
	})
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

// fused takes apart a matrix that holds the rows of several matrices.
type fused struct {
	under string   // the beginning of its key
	axis  int      // along which the parts lie; 0: the rows
	from  string   // end of its key
	to    []string // ends of the keys of the parts, top to bottom
	rows  rowsRule // of the parts
}

// rowsRule returns the rows of each part of a matrix with a number of rows.
type rowsRule func(s settings, rows int64) ([]int64, error)

func (f fused) do(p *planner) error {
	return p.replace(func(w *weight) ([]weight, error) {
		head, ok := strings.CutSuffix(w.hf, f.from)
		if !ok || !strings.HasPrefix(w.hf, f.under) {
			return nil, nil
		}
		rows, err := f.rowsOf(w, p.s)
		if err != nil {
			return nil, err
		}
		parts := make([]weight, len(rows))
		for i, lo := 0, int64(0); i < len(rows); i++ {
			n, err := expr.Slice(p.node(w), f.axis, lo, lo+rows[i])
			if err != nil {
				return nil, err
			}
			lo += rows[i]
			parts[i] = p.made(head+f.to[i], n, w)
		}
		return parts, nil
	})
}

// rowsOf gives the rows of each part, which must be all rows of the matrix.
func (f fused) rowsOf(w *weight, s settings) ([]int64, error) {
	if len(w.shape()) <= f.axis {
		return nil, fmt.Errorf("shape %v: it has no rows to divide into %d parts", w.shape(),
			len(f.to))
	}
	rows, err := f.rows(s, w.shape()[f.axis])
	if err != nil {
		return nil, err
	}
	if total(rows) != w.shape()[f.axis] || len(rows) != len(f.to) {
		return nil, fmt.Errorf("shape %v, but the parts by config.json have %d rows together",
			w.shape(), total(rows))
	}
	return rows, nil
}

func (f fused) undo(p *planner) error {
	return p.replace(func(w *weight) ([]weight, error) {
		for i, end := range f.to {
			head, ok := strings.CutSuffix(w.hf, end)
			switch {
			case !ok || !strings.HasPrefix(w.hf, f.under):
			case i > 0:
				return []weight{}, p.beside(head+f.to[0], head+end)
			default:
				one, err := f.join(p, head)
				return []weight{one}, err
			}
		}
		return nil, nil
	})
}

// beside refuses a part whose first part is missing.
func (p *planner) beside(first, part string) error {
	if p.weightOf(first) == nil {
		return kindError{fmt.Errorf("expected %s beside %s", first, part), errAlone}
	}
	return nil
}

// join makes one matrix of the parts below head.
func (f fused) join(p *planner, head string) (one weight, err error) {
	ws := make([]*weight, 0, len(f.to))
	for _, end := range f.to {
		w := p.weightOf(head + end)
		if w == nil {
			return one, kindError{fmt.Errorf("expected %s beside it", head+end), errAlone}
		}
		ws = append(ws, w)
	}
	nodes, err := p.alike(ws)
	if err != nil {
		return one, err
	}
	n, err := expr.Concat(f.axis, nodes...)
	if err == nil {
		one = p.made(head+f.from, n, ws...)
		err = f.divides(&one, ws, p.s)
	}
	return one, err
}

// divides checks that the joined matrix can be taken apart into its parts again.
func (f fused) divides(one *weight, parts []*weight, s settings) error {
	if f.rows == nil {
		return nil
	}
	rows, err := f.rowsOf(one, s)
	if err != nil {
		return err
	}
	for i, w := range parts {
		if w.shape()[f.axis] != rows[i] {
			return fmt.Errorf("%s has shape %v: expected %d rows", w.Key, w.shape(), rows[i])
		}
	}
	return nil
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

// equalParts divides a matrix into n parts with the same rows.
func equalParts(n int64) rowsRule {
	return func(_ settings, rows int64) ([]int64, error) {
		if rows%n != 0 {
			return nil, fmt.Errorf("%d rows do not divide into %d equal parts", rows, n)
		}
		return slices.Repeat([]int64{rows / n}, int(n)), nil
	}
}

// joined makes one matrix of several. Its parts are named like those of fused.
type joined struct{ fused }

func (j joined) do(p *planner) error   { return j.fused.undo(p) }
func (j joined) undo(p *planner) error { return j.fused.do(p) }

// turned swaps the last two axes of tensors.
type turned struct {
	ends []string // of their keys
	cast bool     // to the view's dtype
}

func (t turned) do(p *planner) error {
	return p.change(t.ends, func(w *weight) (n expr.Node, err error) {
		n = p.node(w)
		if t.cast {
			if n, err = p.cast(w); err != nil {
				return nil, err
			}
		}
		return expr.Transpose(n)
	})
}

func (t turned) undo(p *planner) error { return turned{ends: t.ends}.do(p) }

// swapped gives the rows of each head of a tensor another order. Layouts differ in how they hold
// the two halves that a rotary embedding turns: one half after the other, or in pairs.
type swapped struct {
	under string   // the beginning of the tensors' keys
	ends  []string // of the tensors' keys
	heads func(settings) (int64, error)
	pairs bool // from halves to pairs; otherwise from pairs to halves
}

func (r swapped) do(p *planner) error {
	return p.change(r.ends, func(w *weight) (expr.Node, error) {
		if !strings.HasPrefix(w.hf, r.under) {
			return nil, nil
		}
		heads, err := r.heads(p.s)
		if err != nil {
			return nil, err
		}
		s := w.shape()
		if len(s) == 0 || heads < 1 || s[0]%(2*heads) != 0 {
			return nil, fmt.Errorf("shape %v: expected an even number of rows for each of %d heads",
				s, heads)
		}
		inner := s[0] / heads / 2
		if r.pairs {
			inner = 2
		}
		return expr.SwapRows(p.node(w), heads, inner)
	})
}

func (r swapped) undo(p *planner) error {
	r.pairs = !r.pairs
	return r.do(p)
}

// tied shows a tensor under a second name if no tensor of the source has that name.
type tied struct {
	from, to string
	when     func(settings) bool // nil: always
}

func (t tied) do(p *planner) error {
	if p.weightOf(t.to) != nil || t.when != nil && !t.when(p.s) {
		return nil
	}
	if t.when == nil && p.c.isPart() {
		return nil // another file may have it
	}
	return p.replace(func(w *weight) ([]weight, error) {
		if w.hf != t.from {
			return nil, nil
		}
		return []weight{*w, p.made(t.to, p.node(w), w)}, nil
	})
}

func (t tied) undo(*planner) error { return nil }

// scaledBy multiplies the entries of a tensor by those of a vector, which is then left out. The
// product is rounded to the promoted dtype of both. Each entry may also be a tensor of its own.
type scaledBy struct {
	path, key string // of the tensor in its layer: ".experts." and "down_proj"
	each      string // key of one entry behind its number and dot
	by        string // key of the vector in the layer
}

func (m scaledBy) do(p *planner) error {
	vectors := map[string]*weight{}
	err := p.replace(func(w *weight) ([]weight, error) {
		head, entry, ok := m.matches(w.hf)
		if !ok {
			return nil, nil
		}
		v := p.weightOf(head + m.by)
		if v == nil {
			return nil, fmt.Errorf("expected %s beside it", head+m.by)
		}
		if s := v.shape(); entry >= 0 && p.count >= 0 && len(s) == 1 && s[0] != int64(p.count) {
			return nil, fmt.Errorf("%s has shape %v: expected a value for each of %d experts",
				v.hf, s, p.count)
		}
		vectors[v.hf] = v
		n, err := m.product(p.node(w), p.node(v), entry)
		return []weight{p.made(w.hf, n, w, v)}, err
	})
	if err != nil {
		return err
	}
	return p.replace(func(w *weight) ([]weight, error) {
		head, ok := strings.CutSuffix(w.hf, m.by)
		switch {
		case vectors[w.hf] != nil:
			return []weight{}, nil
		case ok:
			return nil, fmt.Errorf("expected %s beside it", head+m.path+m.key)
		}
		return nil, nil
	})
}

// matches splits the key of the tensor, or of one of its entries. entry is -1 for the whole tensor.
func (m scaledBy) matches(key string) (head string, entry int, ok bool) {
	head, rest, ok := strings.Cut(key, m.path)
	if !ok || rest == m.key {
		return head, -1, ok
	}
	entry, rest, ok = number(rest)
	return head, entry, ok && rest == "."+m.each
}

// product multiplies a tensor by a vector, or by the value of a vector for one entry.
func (m scaledBy) product(n, by expr.Node, entry int) (expr.Node, error) {
	if entry < 0 {
		return expr.Product(n, by)
	}
	if s := by.Shape(); len(s) != 1 || int64(entry) >= s[0] {
		return nil, fmt.Errorf("%s has shape %v: expected a value for entry %d", by, s, entry)
	}
	one, err := expr.Slice(by, 0, int64(entry), int64(entry)+1)
	if err != nil {
		return nil, err
	}
	if n, err = expr.Stack(n); err != nil {
		return nil, err
	}
	if n, err = expr.Product(n, one); err != nil {
		return nil, err
	}
	return expr.Index(n, 0)
}

func (m scaledBy) undo(*planner) error { return errNoInverse }
