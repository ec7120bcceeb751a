package adapter

import (
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// special applies a view's rules for single tensors: those that become F32 and those that have
// another shape than published ones. key is the published name.
func (p *planner) special(key, name string, n expr.Node) (expr.Node, error) {
	n, err := p.float(name, n)
	if err != nil {
		return nil, err
	}
	if n, err = p.restored(key, n); err != nil {
		return nil, err
	}
	if n, err = p.unpad(name, n); err != nil {
		return nil, err
	}
	return shaped(p.view.reshape, name, n)
}

// restored gives a tensor of the native layout its published shape, if that is the direction.
func (p *planner) restored(key string, n expr.Node) (expr.Node, error) {
	if p.back == nil {
		return n, nil
	}
	native := firstOf(p.back.renames, key)
	n, err := shaped(p.back.restore, native, n)
	if err != nil {
		return nil, err
	}
	return p.pad(native, n)
}

// float gives a floating tensor the dtype that the view's rules ask for.
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
