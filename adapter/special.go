package adapter

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// special applies a view's rules for single tensors: those that become F32 and those that have
// another shape than published ones. key is the published name.
func (p *planner) special(key, name string, n expr.Node) (expr.Node, error) {
	n, err := p.float(name, n)
	if err == nil && p.back != nil {
		native := firstOf(p.back.renames, key)
		if n, err = shaped(p.back.restore, native, n); err == nil {
			n, err = p.pad(native, n)
		}
	}
	if err == nil {
		n, err = p.unpad(name, n)
	}
	if err != nil {
		return nil, err
	}
	return shaped(p.view.reshape, name, n)
}

// float gives a floating tensor the dtype that the view's rules say.
func (p *planner) float(name string, n expr.Node) (expr.Node, error) {
	switch {
	case !floating(n.DType()):
	case endsIn(p.view.float32, name):
		return expr.Cast(n, safetensors.F32)
	case p.view.castAll:
		return expr.Cast(n, p.dtype)
	}
	return n, nil
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

// make adds the vectors of zeros that the view has beside a tensor and the source does not.
func (p *planner) make(w *weight, at place) error {
	for _, m := range p.view.made {
		head, ok := strings.CutSuffix(w.hf, m.beside)
		if !ok || p.weightOf(head+m.key) != nil {
			continue
		}
		if p.count < 0 {
			return fmt.Errorf("%s: %s: config.json: %s is missing, which is the size of %s",
				w.Shard, w.Key, p.countField(), head+m.key)
		}
		n, err := expr.Blank(safetensors.F32, int64(p.count))
		if err != nil {
			return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
		}
		name := p.name(head+m.key, at)
		if n, err = p.rounded(name, n); err != nil {
			return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
		}
		if p.leftOut(name) != "" {
			continue
		}
		if _, err = p.put(name, n, p.bucket(w, at), w.Key); err != nil {
			return fmt.Errorf("%s: %w", w.Shard, err)
		}
	}
	return nil
}

// ofRank keeps the experts of the rank of a tensor with one entry for each expert. The node is nil
// if there are none.
func (p *planner) ofRank(w *weight, at place, n expr.Node) (expr.Node, error) {
	k := p.family.expertKeys()
	if k == nil || at.layer < 0 || !k.isEach(at.rest) {
		return n, nil
	}
	s := n.Shape()
	if len(s) == 0 || p.count >= 0 && s[0] != int64(p.count) {
		return nil, fmt.Errorf("%s: %s: shape %v: expected an entry for each of %d experts",
			w.Shard, w.Key, s, p.count)
	}
	lo, hi := p.o.EP.Range(int(s[0]))
	if lo == hi && p.o.EP.Size > 0 {
		return nil, nil
	}
	n, err := rankOf(n, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
	}
	return n, nil
}

// shaped gives a tensor the shape that a hook says.
func shaped(rule shapeRule, name string, n expr.Node) (expr.Node, error) {
	if rule == nil {
		return n, nil
	}
	if s := rule(name, n.Shape()); s != nil {
		return expr.Reshape(n, s...)
	}
	return n, nil
}

// floating reports whether d is one of the dtypes of views, between which values can be cast.
func floating(d safetensors.DType) bool {
	return d == safetensors.F32 || d == safetensors.BF16 || d == safetensors.F16
}

// endsIn reports whether a name has one of the endings.
func endsIn(ends []string, name string) bool {
	for _, e := range ends {
		if strings.HasSuffix(name, e) {
			return true
		}
	}
	return false
}

// fusedIn finds the rule for a fused matrix.
func (p *planner) fusedIn(key string) (fused, bool) {
	for _, f := range p.view.split {
		if strings.HasSuffix(key, f.from) {
			return f, true
		}
	}
	return fused{}, false
}

// unfuse shows the parts of a fused matrix under names of their own.
func (p *planner) unfuse(f fused, w *weight, at place, n expr.Node) error {
	rows, err := f.rowsOf(w, p.s)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
	}
	head := strings.TrimSuffix(w.hf, f.from)
	for i, lo := 0, int64(0); i < len(rows); i++ {
		part, err := expr.Slice(n, 0, lo, lo+rows[i])
		if err != nil {
			return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
		}
		lo += rows[i]
		if err := p.add(p.name(head+f.to[i], at), part, p.bucket(w, at), w); err != nil {
			return err
		}
	}
	return nil
}

// rowsOf gives the rows of each part, which must be all rows of the matrix.
func (f *fused) rowsOf(w *weight, s settings) ([]int64, error) {
	rows, err := f.rows(s)
	if err != nil {
		return nil, err
	}
	total := int64(0)
	for _, r := range rows {
		total += r
	}
	if len(w.shape()) != 2 || w.shape()[0] != total {
		return nil, fmt.Errorf("shape %v, but the parts by config.json have %d rows together",
			w.shape(), total)
	}
	return rows, nil
}
