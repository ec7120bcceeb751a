package adapter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// NonQuantizedKeyPatterns are the parts of keys whose weights the reference's to_hf does not
// quantize.
var NonQuantizedKeyPatterns = []string{
	"input_layernorm.weight",
	"post_attention_layernorm.weight",
	"norm.weight",
	"lm_head.weight",
	"embed_tokens.weight",
	"mlp.gate.weight",
}

// ShouldQuantizeKey reports whether the reference's to_hf quantizes a key. It does if the key ends
// in ".weight" and contains none of NonQuantizedKeyPatterns.
func ShouldQuantizeKey(key string) bool {
	return strings.HasSuffix(key, ".weight") && !containsAny(key, NonQuantizedKeyPatterns)
}

// containsAny reports whether a key contains one of the parts.
func containsAny(key string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(key, p) {
			return true
		}
	}
	return false
}

// ToHF gives the view that a reference adapter's to_hf gives of a native checkpoint. Other
// checkpoints work too. Keys are the published ones, and each projection of each expert is a tensor
// of its own. Layout "hf" (the default) has values as the source has them, "hf-fp8" quantized ones.
func ToHF(c *Checkpoint, o Options) (*StateDict, error) {
	if err := o.publish(); err != nil {
		return nil, err
	}
	return newStateDict(c, o)
}

// publish checks that the layout is one of published checkpoints. The default is "hf".
func (o *Options) publish() error {
	if o.Layout == "" {
		o.Layout = LayoutHF
	}
	if l, ok := layoutNamed(o.Layout); !ok || !l.published {
		return fmt.Errorf("layout %q is not one of published checkpoints: expected %s",
			o.Layout, publishedLayouts())
	}
	return nil
}

// ConvertTensorToHF converts one tensor of a native checkpoint to those of a published one. Grouped
// experts are taken apart, other tensors are renamed, and those that o.Exclude matches are left
// out. With o.Layout "hf-fp8" they are quantized, as o.Scales says. A matrix that published
// checkpoints hold fused with others keeps its native name.
func ConvertTensorToHF(config *Config, name string, n expr.Node, o Options) ([]Tensor, error) {
	if err := o.publish(); err != nil {
		return nil, err
	}
	p := &planner{
		c: &Checkpoint{Config: config}, o: o,
		buckets: map[string]*bucket{}, names: map[string]string{},
	}
	if err := p.configure(); err != nil {
		return nil, err
	}
	if native, ok := p.family.viewNamed(LayoutNative); ok {
		p.undo(native)
	}
	if err := p.convert(name, n); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p.ordered(), nil
}

// convert adds the published tensors of one native tensor.
func (p *planner) convert(name string, n expr.Node) error {
	one := &Stored{Source: expr.Source{Key: name}}
	p.weights = []weight{{Stored: one, hf: p.published(name), value: n}}
	if p.back != nil {
		for _, s := range slices.Backward(p.back.steps) {
			if err := s.undo(p); err != nil && !errors.Is(err, errAlone) {
				return err
			}
		}
	}
	for _, w := range slices.Clone(p.weights) {
		if err := p.convertAs(w.hf, name, w.value); err != nil {
			return err
		}
	}
	return nil
}

// convertAs adds what published checkpoints have for a tensor with a published name.
func (p *planner) convertAs(key, name string, n expr.Node) error {
	at := p.family.locate(key)
	b := destination{bucket: p.group("", [2]int{})}
	if p.family.expertKeys() != nil && at.layer >= 0 {
		if l, g, ok := p.family.groupedExperts(at.rest); ok {
			if len(n.Shape()) != 3 {
				return fmt.Errorf("grouped experts of shape %v: expected three axes", n.Shape())
			}
			x := groupedWeight{layout: l, group: g}
			return p.convertGroup(x, headOf(key, at), n, func(key string, n expr.Node) error {
				return p.convertOne(key, n, b, name)
			})
		}
	}
	n, err := p.ofRank(at, n)
	if n == nil || err != nil {
		return err
	}
	if n, err = p.special(key, key, n); err != nil {
		return err
	}
	return p.convertOne(key, n, b, name)
}

// convertGroup yields the published tensors of a grouped one, in a layer with a head.
func (p *planner) convertGroup(
	x groupedWeight, head string, n expr.Node, yield func(key string, n expr.Node) error,
) error {
	k, parts := p.family.experts, x.parts(p.gated)
	lo, hi := p.o.EP.Range(int(n.Shape()[0]))
	if k.grouped == "" || p.layout.quantizes && k.isSplit() && len(k.groups) == 0 {
		return k.apart(x.group, n, parts, lo, hi, func(key string, one expr.Node) error {
			return yield(head+key, one)
		})
	}
	if lo == hi && p.o.EP.Size > 0 {
		return nil
	}
	l, _ := layoutNamed(k.grouped)
	n, err := rankOf(n, lo, hi)
	if err != nil {
		return err
	}
	found := false
	for _, g := range k.groupsIn(l) {
		to := groupedWeight{layout: l, group: &g}.parts(p.gated)
		if len(to) == 0 || !containsAll(parts, to) {
			continue
		}
		found = true
		one, err := x.group.as(n, parts, &g, to)
		if err == nil {
			err = yield(head+k.pathOfGroups()+g.name, one)
		}
		if err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("published checkpoints have no tensor with its projections together")
	}
	return nil
}

// as gives the projections to of a tensor that is grouped in one way and holds parts, grouped in
// another way.
func (g *group) as(n expr.Node, parts []role, other *group, to []role) (expr.Node, error) {
	if slices.Equal(parts, to) {
		return orient(n, g.transposed != other.transposed)
	}
	nodes := make([]expr.Node, len(to))
	for i, r := range to {
		one, err := g.slice(n, r, parts)
		if err == nil {
			one, err = orient(one, g.transposed != other.transposed)
		}
		if err != nil {
			return nil, err
		}
		nodes[i] = one
	}
	return join(1+other.axis(), nodes)
}

// containsAll reports whether a list has all of some projections.
func containsAll(all, some []role) bool {
	return !slices.ContainsFunc(some, func(r role) bool { return !slices.Contains(all, r) })
}

// convertOne adds one published tensor, if it is not excluded.
func (p *planner) convertOne(key string, n expr.Node, b destination, from string) error {
	if p.leftOut(key) != "" {
		return nil
	}
	n, err := p.rounded(key, n)
	if err == nil {
		_, err = p.put(key, n, b, from)
	}
	return err
}
