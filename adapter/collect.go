package adapter

import (
	"fmt"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// collect finds the place of each weight, and the experts.
func (p *planner) collect() error {
	p.places = make([]place, len(p.weights))
	p.expert = make([]int32, len(p.weights))
	for i := range p.weights {
		w := &p.weights[i]
		p.places[i] = p.family.locate(w.hf)
		if err := p.collectExpert(i, w); err != nil {
			return err
		}
	}
	return p.turn()
}

// turn finds out which way the published groups lie in a checkpoint that transformers may have
// saved. All lie the same way.
func (p *planner) turn() error {
	k := p.family.expertKeys()
	if k == nil || !k.turned {
		return nil
	}
	published, saved, err := p.ways()
	switch {
	case err != nil:
		return err
	case published != nil && saved != nil:
		return fmt.Errorf("%s: %s: shape %v has its axes in another order than %s of shape %v: "+
			"the groups of a checkpoint lie the same way", saved.Shard, saved.Key, saved.shape(),
			published.Key, published.shape())
	case saved == nil:
		return nil
	}
	for _, x := range p.layers {
		for i := range x.grouped {
			x.grouped[i].turn()
		}
	}
	return nil
}

// ways returns the first group that can only lie as published, and the first that can only lie as
// transformers saves it.
func (p *planner) ways() (published, saved *weight, err error) {
	hidden, found, err := p.s.whole("hidden_size")
	if err != nil {
		return nil, nil, err
	}
	for _, x := range p.layers {
		for _, g := range x.grouped {
			if g.layout.Name != LayoutHF {
				continue
			}
			if !found && p.layout.published && !p.layout.splits {
				continue // shown as they are
			}
			if !found {
				return nil, nil, fmt.Errorf("%s: %s: config.json: hidden_size is missing, which "+
					"tells the order of its axes: give --layout %s, which shows them as they are",
					g.Shard, g.Key, LayoutHF)
			}
			s, axis := g.shape(), g.hidden()
			is, other := s[axis] == int64(hidden), s[3-axis] == int64(hidden)
			switch {
			case !is && !other && p.layout.published && !p.layout.splits: // shown as they are
			case !is && !other:
				return nil, nil, fmt.Errorf("%s: %s: shape %v: expected an axis of hidden_size, "+
					"which is %d in config.json: it tells the order of the axes: give --layout "+
					"%s, which shows them as they are", g.Shard, g.Key, s, hidden, LayoutHF)
			case is && !other && published == nil:
				published = g.weight
			case other && !is && saved == nil:
				saved = g.weight
			}
		}
	}
	return published, saved, nil
}

// hidden is the axis of the hidden size.
func (g groupedWeight) hidden() int {
	if slices.Contains(g.group.parts, down) == g.group.transposed {
		return 2
	}
	return 1
}

// turn takes a published group as one that transformers saved.
func (g *groupedWeight) turn() {
	if g.layout.Name != LayoutHF {
		return
	}
	g.layout, _ = layoutNamed(LayoutTransformers)
	i := slices.IndexFunc(g.layout.groups, func(o group) bool {
		return slices.Equal(o.parts, g.group.parts)
	})
	g.group = &g.layout.groups[i]
}

// Limits to the numbers of experts in config.json and in keys, since memory is allocated by them.
const (
	maxExperts = 1 << 16 // in a layer
	maxSlots   = 1 << 24 // in all layers, three for each expert
	maxGrouped = 1 << 21 // in all groups, one for each projection of each expert
)

// believe refuses an expert whose number cannot be right.
func (p *planner) believe(part expertPart, x *expertLayer, w *weight) error {
	p.slots += max(0, part.number+1-len(x.split[part.role]))
	switch {
	case x.count >= 0 && part.number >= x.count:
		return fmt.Errorf("%s: %s: expert %d, but config.json has %s = %d, "+
			"counted from 0: restore the published config.json", w.Shard, w.Key,
			part.number, p.countField(), x.count)
	case part.number >= maxExperts || p.slots > maxSlots:
		return fmt.Errorf("%s: %s: the expert's number is beyond what is planned", w.Shard, w.Key)
	}
	return nil
}

// collectExpert assigns the weight to its layer's experts if it is one.
func (p *planner) collectExpert(i int, w *weight) error {
	at, k := p.places[i], p.family.expertKeys()
	if k == nil || at.layer < 0 || !p.hasExperts(at.prefix) {
		return nil
	}
	part, split := k.splitExpert(at.rest)
	e, halves := k.splitHalves(at.rest)
	l, g, grouped := p.family.groupedExperts(at.rest)
	if !split && !halves && !grouped {
		return nil
	}
	x, err := p.layerOf(i, at)
	if err != nil {
		return err
	}
	switch {
	case halves:
		return p.addHalves(e, x, w)
	case split:
		return p.addPart(part, x, w)
	}
	if len(w.shape()) != 3 {
		return fmt.Errorf("%s: %s: grouped experts of shape %v: expected three axes",
			w.Shard, w.Key, w.shape())
	}
	x.grouped = append(x.grouped, groupedWeight{w, l, g})
	return p.believeGroup(w, g)
}

// believeGroup refuses a group with a number of experts that cannot be right. Axes of size 0 let a
// small file claim very many.
func (p *planner) believeGroup(w *weight, g *group) error {
	n := w.shape()[0]
	if n <= maxExperts {
		p.grouped += int(n) * len(g.parts)
	}
	if n > maxExperts || p.grouped > maxGrouped {
		return fmt.Errorf("%s: %s: shape %v holds more experts than are planned", w.Shard, w.Key,
			w.shape())
	}
	return nil
}

// addPart adds a projection of one expert to its layer.
func (p *planner) addPart(part expertPart, x *expertLayer, w *weight) error {
	if err := p.believe(part, x, w); err != nil {
		return err
	}
	return x.add(part, w)
}

// addHalves adds up and gate of one expert, which are the upper and the lower rows of a matrix.
func (p *planner) addHalves(e int, x *expertLayer, w *weight) error {
	s := w.shape()
	if len(s) != 2 || s[0]%2 != 0 {
		return fmt.Errorf("%s: %s: shape %v: expected a matrix with as many rows of up as of gate",
			w.Shard, w.Key, s)
	}
	x.halves = true
	for i, r := range []role{up, gate} {
		rows := s[0] / 2
		n, err := expr.Slice(p.node(w), 0, int64(i)*rows, int64(i+1)*rows)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
		}
		half := p.made(w.hf, n, w)
		if err := p.addPart(expertPart{e, r}, x, &half); err != nil {
			return err
		}
	}
	return nil
}

// countField names the field that gives the number of experts.
func (p *planner) countField() string {
	for _, f := range p.family.experts.count {
		if _, ok := p.s.integer(f); ok {
			return f
		}
	}
	return p.family.experts.count[0]
}

// layerOf gives the layer's experts, and notes that weight i is one of them.
func (p *planner) layerOf(i int, at place) (*expertLayer, error) {
	id := layerID{at.prefix, at.layer}
	n, ok := p.byLayer[id]
	if !ok {
		count, err := p.countIn(at.prefix)
		if err != nil {
			return nil, err
		}
		n = int32(len(p.layers))
		p.byLayer[id] = n
		p.layers = append(p.layers, &expertLayer{
			layerID: id, head: headOf(p.weights[i].hf, at), count: count,
		})
	}
	p.expert[i] = n + 1
	return p.layers[n], nil
}

// hasExperts reports whether layers with a prefix may have experts.
func (p *planner) hasExperts(prefix string) bool {
	_, other := p.otherExperts(prefix)
	return other || language[prefix] || slices.Contains(p.family.experts.prefixes, prefix)
}

// otherExperts finds the part of the model beside the language model that has a prefix.
func (p *planner) otherExperts(prefix string) (o otherExperts, ok bool) {
	for _, v := range []*view{p.view, p.back} {
		if v == nil {
			continue
		}
		for _, o := range v.others {
			if o.prefix == prefix {
				return o, true
			}
		}
	}
	return o, false
}

// sharesExperts reports whether the view groups the experts of layers with a prefix, and ranks
// share them.
func (p *planner) sharesExperts(prefix string) bool {
	return language[prefix] || slices.Contains(p.family.experts.prefixes, prefix) ||
		slices.ContainsFunc(p.view.others, func(o otherExperts) bool { return o.prefix == prefix })
}

// rangeOf gives the experts [lo, hi) of a layer that the view shows: those of the rank, or all if
// ranks do not share them.
func (p *planner) rangeOf(x *expertLayer) (lo, hi int) {
	if !p.sharesExperts(x.prefix) {
		return 0, p.experts(x)
	}
	return p.o.EP.Range(p.experts(x))
}

// countIn is the number of experts of a layer with a prefix, by the configuration; -1 if it does
// not say.
func (p *planner) countIn(prefix string) (int, error) {
	o, ok := p.otherExperts(prefix)
	if !ok {
		return p.count, nil
	}
	n, found, err := p.s.object(o.config).whole(p.family.experts.count...)
	switch {
	case err != nil || !found:
		return -1, err
	case n > maxExperts:
		return -1, fmt.Errorf("config.json: %s has %d experts: more than %d in a layer are not "+
			"planned", o.config, n, maxExperts)
	}
	return n, nil
}

// experts is the number of experts of a layer. If the configuration has none, it is the number of
// those found.
func (p *planner) experts(x *expertLayer) int {
	if x.count >= 0 {
		return x.count
	}
	return x.experts()
}

// check refuses layers whose experts are there twice or not all there.
func (p *planner) check() error {
	m := missingKeys{gated: p.gated, apart: p.layout.apart()}
	if m.apart && (p.o.Include != nil || p.o.Exclude != nil) {
		m.excluded = func(key string) bool { return p.leftOut(key) != "" }
	}
	for _, x := range p.layers {
		if p.dropsLayer(x) {
			continue
		}
		if err := p.checkLayer(x); err != nil {
			return err
		}
		lo, hi := p.rangeOf(x)
		x.missing(p.family.experts, lo, hi, &m)
	}
	err := m.err(p.o.EP)
	if err != nil && p.c.single && p.layout.apart() {
		p.note(err.Error())
		return nil
	}
	return err
}

// checkLayer refuses a layer whose experts are there twice, or whose groups hold another number.
func (p *planner) checkLayer(x *expertLayer) error {
	if err := x.check(); err != nil {
		return err
	}
	for _, g := range x.grouped {
		if n := p.experts(x); int(g.shape()[0]) != n {
			return fmt.Errorf("%s: %s: shape %v holds %d experts, expected %d",
				g.Shard, g.Key, g.shape(), g.shape()[0], n)
		}
	}
	return p.refuseTurned(x)
}

// refuseTurned refuses groups whose axes are certainly swapped. The size of one projection and that
// of two together cannot both be the hidden size.
func (p *planner) refuseTurned(x *expertLayer) error {
	hidden, found, err := p.s.whole("hidden_size")
	if err != nil || !found || hidden == 0 || !language[x.prefix] || !p.gated {
		return nil
	}
	var two, one bool
	for _, g := range x.grouped {
		s, axis := g.shape(), g.hidden()
		if s[axis] == int64(hidden) || s[3-axis] != int64(hidden) || p.keeps(g) {
			return nil
		}
		two, one = two || len(g.group.parts) == 2, one || len(g.group.parts) == 1
	}
	if !two || !one {
		return nil
	}
	g := x.grouped[0]
	layout := g.layout.Name
	if layout == p.family.experts.grouped {
		layout = LayoutHF
	}
	return fmt.Errorf("%s: %s: shape %v: its last two axes are swapped, since hidden_size is %d "+
		"in config.json: give --layout %s, which shows it as it is", g.Shard, g.Key, g.shape(),
		hidden, layout)
}

// keeps reports whether the view shows a grouped tensor as it is.
func (p *planner) keeps(g groupedWeight) bool {
	if p.layout.published {
		return !p.layout.splits && p.family.experts.grouped == g.layout.Name
	}
	return p.layout.Name == g.layout.Name
}
