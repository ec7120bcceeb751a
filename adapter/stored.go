package adapter

import (
	"fmt"
	"slices"
	"strings"
)

// publish gives the weights of a source in another layout their published names and values, so that
// every layout starts from these. Shown in its own layout, the source stays as it is.
func (p *planner) publish() error {
	v := p.storedAs()
	if v == nil {
		return p.refuseUnclear()
	}
	if p.layout.Name == v.layout {
		p.view = &view{
			layout: v.layout, path: v.path, groups: v.groups, mtp: v.mtp, others: v.others,
			empty: v.empty,
		}
		return nil
	}
	p.undo(v)
	for i := range p.weights {
		p.weights[i].hf = p.published(p.weights[i].hf)
	}
	for _, s := range slices.Backward(v.steps) {
		if err := s.undo(p); err != nil {
			return fmt.Errorf("the checkpoint is in layout %s, and layout %s cannot be made of "+
				"it: %w: give --layout %s", v.layout, p.layout.Name, err, v.layout)
		}
	}
	return nil
}

// refuseUnclear refuses a part of a checkpoint without a key that tells in which of two layouts it
// is, if it matters.
func (p *planner) refuseUnclear() error {
	for i := range p.weights {
		if w := &p.weights[i]; endsIn(p.family.unclear, w.hf) {
			return fmt.Errorf("%s: %s: its axes depend on the layout in which the checkpoint is "+
				"stored, and no other key tells it: show the whole checkpoint", w.Shard, w.Key)
		}
	}
	return nil
}

// undo notes that names of the source are those of a view.
func (p *planner) undo(v *view) {
	p.back, p.unnamed = v, nil
	for _, list := range slices.Backward(v.later) {
		p.unnamed = append(p.unnamed, reversed(list))
	}
	p.unnamed = append(p.unnamed, reversed(v.renames), reversed(v.prefixes))
}

// published gives the published name for a name in the source's layout.
func (p *planner) published(name string) string {
	for _, list := range p.unnamed {
		name = firstOf(list, name)
	}
	return name
}

// storedAs returns the view in whose layout the source is stored, or nil if it is a published
// checkpoint.
func (p *planner) storedAs() *view {
	for i := range layouts {
		l := &layouts[i]
		if !l.stored {
			continue
		}
		if v, ok := p.family.view(l); ok && p.isIn(l, v) {
			return v
		}
	}
	return nil
}

// isIn reports whether the source is stored in a view's layout.
func (p *planner) isIn(l *Layout, v *view) bool {
	k := p.family.experts
	groups := v.groupsOf(l)
	if k == nil || k.grouped == l.Name {
		groups = nil
	}
	for i := range p.weights {
		key := p.weights[i].hf
		if endsIn(p.family.unclear, key) {
			continue
		}
		for _, m := range v.marks {
			if (drop{key: m}).matches(key) {
				return true
			}
		}
		for j := range groups {
			if strings.HasSuffix(key, "."+groups[j].name) && !k.publishes(key) {
				return true
			}
		}
	}
	return false
}

// publishes reports whether a key may be that of a published grouped tensor.
func (x *expertKeys) publishes(key string) bool {
	return slices.ContainsFunc(x.groups, func(g group) bool {
		return strings.HasSuffix(key, "."+x.pathOfGroups()+g.name)
	})
}
