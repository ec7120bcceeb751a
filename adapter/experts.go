package adapter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// layerID names a layer, of the language model or of another part such as a prediction head.
type layerID struct {
	prefix string // before "layers.N."
	number int
}

// expertLayer holds the experts of one layer as the source has them.
type expertLayer struct {
	layerID
	head    string           // of the layer's keys: the prefix and "layers.N."
	count   int              // of experts by the configuration; -1: it does not say
	split   [roles][]*weight // by number of the expert
	grouped []groupedWeight

	halves bool // up and gate of an expert are in one tensor of the source
}

// groupedWeight is a tensor of the source that holds a part of every expert.
type groupedWeight struct {
	*weight
	layout *Layout
	group  *group
}

// expertPart is the expert's number and the projection that a key of split experts names.
type expertPart struct {
	number int
	role   role
}

// name gives the whole key of a key within the layer.
func (x *expertLayer) name(rest string) string { return x.head + rest }

// splitExpert reads "mlp.experts.17.up_proj.weight" within a layer.
func (x *expertKeys) splitExpert(rest string) (p expertPart, ok bool) {
	n, key, ok := x.ofExpert(rest)
	if !ok {
		return p, false
	}
	for r, proj := range x.proj {
		if key == proj {
			return expertPart{n, role(r)}, true
		}
	}
	return p, false
}

// splitHalves reads the number of an expert from the key of its tensor with up and gate.
func (x *expertKeys) splitHalves(rest string) (n int, ok bool) {
	n, key, ok := x.ofExpert(rest)
	return n, ok && key == x.halves
}

// expertOf reads the number of the expert that a key within a layer belongs to.
func (x *expertKeys) expertOf(rest string) (n int, ok bool) {
	if p, ok := x.splitExpert(rest); ok {
		return p.number, true
	}
	return x.splitHalves(rest)
}

// ofExpert reads the number of an expert and the key behind it.
func (x *expertKeys) ofExpert(rest string) (n int, key string, ok bool) {
	tail, ok := strings.CutPrefix(rest, x.path)
	if !ok {
		return 0, "", false
	}
	n, tail, ok = number(tail)
	key, dot := strings.CutPrefix(tail, ".")
	return n, key, ok && dot && key != ""
}

// isEach reports whether a key within a layer is of a tensor with one entry for each expert.
func (x *expertKeys) isEach(rest string) bool {
	tail, ok := strings.CutPrefix(rest, x.path)
	return ok && slices.Contains(x.each, tail)
}

// isSplit reports whether published checkpoints may have tensors of single experts.
func (x *expertKeys) isSplit() bool { return x.proj != [roles]string{} }

// groupsAndSplits reports whether experts are published grouped and can be shown split.
func (x *expertKeys) groupsAndSplits() bool { return x != nil && x.grouped != "" && x.isSplit() }

// groupsIn returns the groups of a layout in the family's checkpoints.
func (x *expertKeys) groupsIn(l *Layout) []group {
	if l.Name == x.grouped && len(x.groups) > 0 {
		return x.groups
	}
	return l.groups
}

// groupedExperts reads "mlp.experts.gate_up_proj" within a layer.
func (f *family) groupedExperts(rest string) (l *Layout, g *group, ok bool) {
	if g, ok := groupAt(f.experts.groups, f.experts.pathOfGroups(), rest); ok {
		l, _ := layoutNamed(f.experts.grouped)
		return l, g, true
	}
	for i := range layouts {
		l := &layouts[i]
		if !l.stored {
			continue
		}
		groups, path := l.groups, f.experts.path
		if v, ok := f.view(l); ok {
			groups, path = v.groupsOf(l), cmp.Or(v.path, path)
		}
		for _, path := range []string{path, f.experts.path} {
			if g, ok := groupAt(groups, path, rest); ok {
				return l, g, true
			}
		}
	}
	return nil, nil, false
}

// groupAt finds the group that a key within a layer names.
func groupAt(groups []group, path, rest string) (*group, bool) {
	tail, ok := strings.CutPrefix(rest, path)
	if !ok {
		return nil, false
	}
	i := slices.IndexFunc(groups, func(g group) bool { return g.name == tail })
	if i < 0 {
		return nil, false
	}
	return &groups[i], true
}

// pathOfGroups is the path of published grouped tensors.
func (x *expertKeys) pathOfGroups() string { return cmp.Or(x.groupPath, x.path) }

// add puts a projection of one expert in its place.
func (x *expertLayer) add(p expertPart, w *weight) error {
	s := x.split[p.role]
	for len(s) <= p.number {
		s = append(s, nil)
	}
	if old := s[p.number]; old != nil {
		return fmt.Errorf("%s: %s: same expert and projection as %s: remove one of them",
			w.Shard, w.Key, old.Key)
	}
	s[p.number] = w
	x.split[p.role] = s
	return nil
}

// isSplit reports whether the source has tensors of single experts.
func (x *expertLayer) isSplit() bool {
	return len(x.split[gate])+len(x.split[up])+len(x.split[down]) > 0
}

// first gives a tensor of a split expert, for messages.
func (x *expertLayer) first() *weight {
	for _, s := range x.split {
		for _, w := range s {
			if w != nil {
				return w
			}
		}
	}
	return nil
}

// check refuses layers that hold their experts both ways.
func (x *expertLayer) check() error {
	if x.isSplit() && len(x.grouped) > 0 {
		g := x.grouped[0]
		return fmt.Errorf("%s: %s: layer %d holds its experts grouped and also split (%s): remove "+
			"one of the two forms", g.Shard, g.Key, x.number, x.first().Key)
	}
	return nil
}

// experts is the largest number of experts that the source has in the layer.
func (x *expertLayer) experts() int {
	n := 0
	for _, s := range x.split {
		n = max(n, len(s))
	}
	for _, g := range x.grouped {
		n = max(n, int(g.shape()[0]))
	}
	return n
}

// missingKeys counts the experts' keys that the source does not have, and keeps the first five.
type missingKeys struct {
	gated    bool                   // experts have a gate
	apart    bool                   // the view has these keys, so single ones can be excluded
	excluded func(name string) bool // such keys are not missing; nil: there are none
	first    []string
	n        int
}

// missing finds the keys of experts [lo, hi) that the source does not have.
func (x *expertLayer) missing(k *expertKeys, lo, hi int, m *missingKeys) {
	if !x.isSplit() {
		return
	}
	for r, s := range x.split {
		if role(r) == gate && !m.gated {
			continue
		}
		for e := lo; e < hi; e++ {
			switch {
			case x.has(role(r), e):
			case x.halves && role(r) == gate && !x.has(up, e): // named with up
			case !m.onlyCounts():
				m.add(x.name(x.keyOf(k, role(r), e)))
			case e < len(s):
				m.n++
			default: // config.json may claim very many
				m.n += hi - e
				e = hi
			}
		}
	}
}

// has reports whether the source has a projection of an expert.
func (x *expertLayer) has(r role, e int) bool {
	return e < len(x.split[r]) && x.split[r][e] != nil
}

// keyOf names the tensor that holds a missing projection, after those of the other experts.
func (x *expertLayer) keyOf(k *expertKeys, r role, e int) string {
	if x.halves && r == up && !x.has(gate, e) {
		return k.of(e, k.halves)
	}
	return k.key(e, r)
}

// onlyCounts reports whether the names of further keys do not matter.
func (m *missingKeys) onlyCounts() bool { return m.excluded == nil && len(m.first) == mostMissing }

// mostMissing is how many missing keys are named.
const mostMissing = 5

// add counts a key.
func (m *missingKeys) add(key string) {
	if m.excluded != nil && m.excluded(key) {
		return
	}
	if m.n++; m.n <= mostMissing {
		m.first = append(m.first, key)
	}
}

// err names the first missing keys and how many more there are; nil if none is missing.
func (m *missingKeys) err(ep EP) error {
	if m.n == 0 {
		return nil
	}
	rank, more, way := "", "", ""
	if ep.Size > 0 {
		rank = fmt.Sprintf(" for rank %d of %d", ep.Rank, ep.Size)
	}
	if n := m.n - len(m.first); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	if m.apart {
		way = "; --exclude REGEX that matches them shows the others"
	}
	err := fmt.Errorf("expert weights missing%s: %s%s: the checkpoint may be incomplete, or "+
		"config.json that of another model%s", rank, strings.Join(m.first, ", "), more, way)
	return kindError{err, source.ErrMissing}
}
