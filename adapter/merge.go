package adapter

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// merge makes the grouped tensors of a layer, of the rank's own experts. A rank without experts has
// none.
func (p *planner) merge(x *expertLayer) error {
	lo, hi := p.rangeOf(x)
	p.leaveOut(x, lo, hi)
	if lo == hi && (x.isSplit() || !p.view.empty) {
		return nil
	}
	return p.mergeAs(p.layout.Name, x, lo, hi)
}

// mergeAs makes the grouped tensors of a layout, of experts [lo, hi).
func (p *planner) mergeAs(name string, x *expertLayer, lo, hi int) error {
	l, _ := layoutNamed(name)
	groups := p.family.experts.groupsIn(l)
	if name == p.layout.Name && len(p.view.groups) > 0 {
		groups = p.view.groups
	}
	for i := range groups {
		g := &groups[i]
		parts := g.parts
		if !p.gated {
			parts = g.without(gate)
		}
		if len(parts) == 0 {
			continue
		}
		n, ws, err := p.groupNode(x, g, parts, lo, hi)
		if err != nil {
			return err
		}
		at := place{prefix: x.prefix, layer: x.number}
		b := destination{p.bucket(ws[0], at), p.o.EP.Size > 1 && p.sharesExperts(x.prefix)}
		if err := p.add(p.groupName(x, g), n, b, ws...); err != nil {
			return err
		}
	}
	return nil
}

// leaveOut accounts for the experts of other ranks, and for gates that the experts do not use.
func (p *planner) leaveOut(x *expertLayer, lo, hi int) {
	for r, s := range x.split {
		for e, w := range s {
			switch {
			case w == nil:
			case e < lo || e >= hi:
				p.acc.dropWeight(w, "expert of another expert-parallel rank")
			case role(r) == gate && !p.gated:
				p.acc.dropWeight(w, "gate projection, which experts with squared ReLU do not use")
			}
		}
	}
	if lo == hi {
		for _, g := range x.grouped {
			p.acc.dropWeight(g.weight, "experts of other expert-parallel ranks")
		}
	}
}

// groupNode is the recipe of one grouped tensor and the weights it is made of.
func (p *planner) groupNode(x *expertLayer, g *group, parts []role, lo, hi int) (
	expr.Node, []*weight, error,
) {
	if !x.isSplit() {
		return p.regroup(x, g, parts, lo, hi)
	}
	experts := make([]expr.Node, 0, hi-lo)
	ws := make([]*weight, 0, (hi-lo)*len(parts))
	for e := lo; e < hi; e++ {
		n, err := p.joinExpert(x, g, parts, e, lo)
		if err != nil {
			return nil, nil, err
		}
		experts = append(experts, n)
		for _, r := range parts {
			ws = append(ws, x.split[r][e])
		}
	}
	n, err := expr.Stack(experts...)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", p.groupName(x, g), err)
	}
	return n, ws, nil
}

// joinExpert joins the parts of one expert, which must have the shapes of the expert like.
func (p *planner) joinExpert(x *expertLayer, g *group, parts []role, e, like int) (
	expr.Node, error,
) {
	joined, ws := make([]expr.Node, 0, len(parts)), make([]*weight, 0, len(parts))
	for _, r := range parts {
		w := x.split[r][e]
		ws = append(ws, w)
		if one := x.split[r][like]; !slices.Equal(w.shape(), one.shape()) {
			return nil, fmt.Errorf("%s: %s: shape %v, but %s has %v",
				w.Shard, w.Key, w.shape(), one.Key, one.shape())
		}
		n, err := p.cast(w)
		if err != nil {
			return nil, err
		}
		if n, err = orient(n, g.transposed); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
		}
		joined = append(joined, n)
	}
	if err := sameShape(joined, ws); err != nil {
		return nil, err
	}
	n, err := join(g.axis(), joined)
	if err != nil {
		return nil, fmt.Errorf("%s: expert %d: %w", p.groupName(x, g), e, err)
	}
	return n, nil
}

// sameShape refuses gate and up of different sizes, since they could not be taken apart again.
func sameShape(nodes []expr.Node, ws []*weight) error {
	for i, n := range nodes {
		if !slices.Equal(n.Shape(), nodes[0].Shape()) {
			return fmt.Errorf("%s: %s: shape %v, but %s has %v: expected the same", ws[i].Shard,
				ws[i].Key, ws[i].shape(), ws[0].Key, ws[0].shape())
		}
	}
	return nil
}

// orient swaps the last two axes if asked to.
func orient(n expr.Node, transposed bool) (expr.Node, error) {
	if !transposed {
		return n, nil
	}
	return expr.Transpose(n)
}

// join joins nodes along an axis. One node stays as it is.
func join(axis int, nodes []expr.Node) (expr.Node, error) {
	if len(nodes) == 1 {
		return nodes[0], nil
	}
	return expr.Concat(axis, nodes...)
}

// regroup makes a grouped tensor from the source's grouped tensors, all experts at once.
func (p *planner) regroup(x *expertLayer, g *group, parts []role, lo, hi int) (
	expr.Node, []*weight, error,
) {
	if src, ok := x.holding(parts, p.gated); ok {
		n, err := p.rank(src, lo, hi)
		if err == nil {
			n, err = orient(n, src.group.transposed != g.transposed)
		}
		return n, []*weight{src.weight}, p.inGroup(x, g, err)
	}
	nodes, ws := make([]expr.Node, 0, len(parts)), make([]*weight, 0, len(parts))
	for _, r := range parts {
		src, ok := x.with(r)
		if !ok {
			w := x.grouped[0]
			return nil, nil,
				fmt.Errorf("%s: %s: expected a tensor with the %s projections of layer "+
					"%d beside it: the checkpoint may be incomplete", w.Shard, w.Key, r, x.number)
		}
		n, err := p.partOf(src, r, g, lo, hi)
		if err != nil {
			return nil, nil, p.inGroup(x, g, err)
		}
		nodes, ws = append(nodes, n), append(ws, src.weight)
	}
	if err := sameShape(nodes, ws); err != nil {
		return nil, nil, err
	}
	n, err := join(1+g.axis(), nodes)
	return n, ws, p.inGroup(x, g, err)
}

// partOf gives one projection of the experts [lo, hi) of a grouped tensor, as another group has it.
func (p *planner) partOf(src groupedWeight, r role, g *group, lo, hi int) (expr.Node, error) {
	n, err := p.rank(src, lo, hi)
	if err == nil {
		n, err = src.group.slice(n, r, src.parts(p.gated))
	}
	if err == nil {
		n, err = orient(n, src.group.transposed != g.transposed)
	}
	return n, err
}

// inGroup says in which grouped tensor of the view an error is; nil stays nil.
func (p *planner) inGroup(x *expertLayer, g *group, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", p.groupName(x, g), err)
}

// rank gives the experts [lo, hi) of a grouped tensor in the view's dtype.
func (p *planner) rank(g groupedWeight, lo, hi int) (expr.Node, error) {
	n, err := p.valueOf(g.weight)
	if err != nil {
		return nil, err
	}
	return rankOf(n, lo, hi)
}

// valueOf gives an expert's tensor in the view's dtype, or in its own if nothing is merged.
func (p *planner) valueOf(w *weight) (expr.Node, error) {
	if p.layout.apart() || p.view.asStored {
		return p.node(w), nil
	}
	return p.cast(w)
}

// rankOf keeps the experts [lo, hi) of a node.
func rankOf(n expr.Node, lo, hi int) (expr.Node, error) {
	if lo == 0 && int64(hi) == n.Shape()[0] {
		return n, nil
	}
	return expr.Slice(n, 0, int64(lo), int64(hi))
}

// parts are the projections that the grouped tensor holds.
func (g groupedWeight) parts(gated bool) []role {
	if gated {
		return g.group.parts
	}
	return g.group.without(gate)
}

// holding finds a grouped tensor of exactly these parts.
func (x *expertLayer) holding(parts []role, gated bool) (groupedWeight, bool) {
	for _, g := range x.grouped {
		if slices.Equal(g.parts(gated), parts) {
			return g, true
		}
	}
	return groupedWeight{}, false
}

// with finds a grouped tensor that holds a projection.
func (x *expertLayer) with(r role) (groupedWeight, bool) {
	for _, g := range x.grouped {
		if slices.Contains(g.group.parts, r) {
			return g, true
		}
	}
	return groupedWeight{}, false
}

// single shows an expert's tensor in a layout without groups. A split one keeps its own key, a
// grouped one is taken apart.
func (p *planner) single(w *weight, at place, x *expertLayer) error {
	lo, hi := p.rangeOf(x)
	if e, ok := p.family.experts.expertOf(at.rest); ok {
		if e < lo || e >= hi {
			p.acc.dropWeight(w, "expert of another expert-parallel rank")
			return nil
		}
		return p.pass(w, at)
	}
	for _, g := range x.grouped {
		if g.weight == w {
			return p.ungroup(g, at, x, lo, hi)
		}
	}
	return nil
}

// ungroup shows a grouped tensor as published checkpoints hold experts: grouped in their own way,
// or with one tensor for each projection of each expert.
func (p *planner) ungroup(g groupedWeight, at place, x *expertLayer, lo, hi int) error {
	k := p.family.experts
	switch {
	case lo == hi:
		p.acc.dropWeight(g.weight, "experts of other expert-parallel ranks")
		return nil
	case p.layout.splits && !k.isSplit():
		return p.unsplit(g.weight, k.whole)
	case p.layout.splits || p.layout.quantizes && k.isSplit() && len(k.groups) == 0:
	case k.grouped == g.layout.Name:
		n, err := rankOf(p.node(g.weight), lo, hi)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", g.Shard, g.Key, err)
		}
		return p.add(p.name(g.hf, at), n, p.destination(g.weight, at), g.weight)
	case k.grouped != "" && g.weight != x.grouped[0].weight:
		return nil // made with the first
	case k.grouped != "":
		return p.mergeAs(k.grouped, x, lo, hi)
	}
	return p.takeApart(g, at, x, lo, hi)
}

// takeApart shows each projection of each expert of a grouped tensor.
func (p *planner) takeApart(g groupedWeight, at place, x *expertLayer, lo, hi int) error {
	k := p.family.experts
	b := p.destination(g.weight, at)
	show := func(key string, n expr.Node) error {
		return p.add(p.name(x.name(key), at), n, b, g.weight)
	}
	err := k.apart(g.group, p.node(g.weight), g.parts(p.gated), lo, hi, show)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", g.Shard, g.Key, err)
	}
	return nil
}

// key is an expert's key within its layer.
func (k *expertKeys) key(e int, r role) string { return k.of(e, k.proj[r]) }

// of is the key within its layer of an expert's tensor.
func (k *expertKeys) of(e int, key string) string {
	return k.path + strconv.Itoa(e) + "." + key
}

// apart yields the published tensors of the experts [lo, hi) of a grouped tensor, by their keys
// within the layer.
func (k *expertKeys) apart(
	g *group, n expr.Node, parts []role, lo, hi int, yield func(key string, n expr.Node) error,
) error {
	if k.halves != "" && slices.Equal(parts, []role{gate, up}) {
		return k.halved(g, n, parts, lo, hi, yield)
	}
	return g.apart(n, parts, lo, hi, func(r role, e int, one expr.Node) error {
		return yield(k.key(e, r), one)
	})
}

// halved yields one tensor for each expert, with the rows of up above those of gate.
func (k *expertKeys) halved(
	g *group, n expr.Node, parts []role, lo, hi int, yield func(key string, n expr.Node) error,
) error {
	halves := make([]expr.Node, 0, len(parts))
	for _, r := range []role{up, gate} {
		part, err := g.slice(n, r, parts)
		if err == nil {
			part, err = orient(part, g.transposed)
		}
		if err != nil {
			return err
		}
		halves = append(halves, part)
	}
	both, err := expr.Concat(1, halves...)
	if err != nil {
		return err
	}
	return each(both, lo, hi, func(e int, one expr.Node) error {
		return yield(k.of(e, k.halves), one)
	})
}

// each yields the entries [lo, hi) of a node's first axis.
func each(n expr.Node, lo, hi int, yield func(e int, n expr.Node) error) error {
	for e := lo; e < hi; e++ {
		one, err := expr.Index(n, int64(e))
		if err == nil {
			err = yield(e, one)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// slice keeps one projection of a tensor grouped this way, which holds parts.
func (g *group) slice(n expr.Node, r role, parts []role) (expr.Node, error) {
	axis := 1 + g.axis()
	i := slices.Index(parts, r)
	if i < 0 {
		return nil, fmt.Errorf("it holds no %s projections", r)
	}
	if len(n.Shape()) != 3 || n.Shape()[axis]%int64(len(parts)) != 0 {
		return nil, fmt.Errorf("shape %v does not divide into %d projections of each expert",
			n.Shape(), len(parts))
	}
	size := n.Shape()[axis] / int64(len(parts))
	if len(parts) == 1 {
		return n, nil
	}
	return expr.Slice(n, axis, int64(i)*size, int64(i+1)*size)
}

// apart yields each projection of the experts [lo, hi) of a tensor grouped this way, with the shape
// that it has in published checkpoints: [I, D] for gate and up, [D, I] for down.
func (g *group) apart(
	n expr.Node, parts []role, lo, hi int, yield func(r role, e int, n expr.Node) error,
) error {
	for _, r := range parts {
		part, err := g.slice(n, r, parts)
		if err == nil {
			part, err = orient(part, g.transposed)
		}
		if err != nil {
			return err
		}
		err = each(part, lo, hi, func(e int, one expr.Node) error { return yield(r, e, one) })
		if err != nil {
			return err
		}
	}
	return nil
}
