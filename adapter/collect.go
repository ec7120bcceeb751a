package adapter

import (
	"fmt"
	"slices"
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
	return nil
}

// Limits to the numbers of experts in config.json and in keys, since memory is allocated by them.
const (
	maxExperts = 1 << 16 // in a layer
	maxSlots   = 1 << 24 // in all layers, three for each expert
)

// believe refuses an expert whose number cannot be right.
func (p *planner) believe(part expertPart, x *expertLayer, w *weight) error {
	p.slots += max(0, part.number+1-len(x.split[part.role]))
	switch {
	case p.count >= 0 && part.number >= p.count:
		return fmt.Errorf("%s: %s: expert %d, but config.json has %s = %d, "+
			"counted from 0: restore the published config.json", w.Shard, w.Key,
			part.number, p.countField(), p.count)
	case part.number >= maxExperts || p.slots > maxSlots:
		return fmt.Errorf("%s: %s: the expert's number is beyond what is planned", w.Shard, w.Key)
	}
	return nil
}

// collectExpert assigns the weight to its layer's experts if it is one.
func (p *planner) collectExpert(i int, w *weight) error {
	at, k := p.places[i], p.family.expertKeys()
	if k == nil || at.layer < 0 || !language[at.prefix] && !slices.Contains(k.prefixes, at.prefix) {
		return nil
	}
	part, split := k.splitExpert(at.rest)
	l, g, grouped := p.family.groupedExperts(at.rest)
	if !split && !grouped {
		return nil
	}
	x := p.layerOf(i, at)
	if split {
		if err := p.believe(part, x, w); err != nil {
			return err
		}
		return x.add(part, w)
	}
	if len(w.shape()) != 3 {
		return fmt.Errorf("%s: %s: grouped experts of shape %v: expected three axes",
			w.Shard, w.Key, w.shape())
	}
	x.grouped = append(x.grouped, groupedWeight{w, l, g})
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
func (p *planner) layerOf(i int, at place) *expertLayer {
	id := layerID{at.prefix, at.layer}
	n, ok := p.byLayer[id]
	if !ok {
		n = int32(len(p.layers))
		p.byLayer[id] = n
		p.layers = append(p.layers, &expertLayer{layerID: id, head: headOf(p.weights[i].hf, at)})
	}
	p.expert[i] = n + 1
	return p.layers[n]
}

// experts is the number of experts of a layer. If the configuration has none, it is the number of
// those found.
func (p *planner) experts(x *expertLayer) int {
	if p.count >= 0 {
		return p.count
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
		lo, hi := p.o.EP.Range(p.experts(x))
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
	return nil
}
