package adapter

import (
	"fmt"
	"slices"
)

// configure reads config.json and chooses family, layout and defaults.
func (p *planner) configure() (err error) {
	if p.s, err = p.c.Config.settings(); err != nil {
		return err
	}
	p.family = p.c.row(p.s)
	if p.o.Layout == "" {
		p.o.Layout = p.family.layouts()[0]
	}
	if err := p.onlyHF(); err != nil {
		return err
	}
	if err := p.choose(p.o.Layout); err != nil {
		return err
	}
	p.gated = p.s.gated()
	if p.depth, err = p.field("num_hidden_layers"); err != nil {
		return err
	}
	for _, count := range []func() error{p.countPredictions, p.countExperts} {
		if err := count(); err != nil {
			return err
		}
	}
	return p.options()
}

// countExperts reads the number of experts in a layer.
func (p *planner) countExperts() (err error) {
	p.count = -1
	k := p.family.expertKeys()
	if k == nil {
		return nil
	}
	read := p.s.whole
	if k.perLayer {
		read = p.s.uniform
	}
	n, found, err := read(k.count...)
	if p.count = n; !found {
		p.count = -1
	}
	if err != nil {
		return err
	}
	if p.count > maxExperts {
		return fmt.Errorf("config.json: %s = %d: more than %d experts in a layer are not planned",
			p.countField(), p.count, maxExperts)
	}
	return nil
}

// field reads a number of the configuration; -1 if it has none.
func (p *planner) field(names ...string) (int, error) {
	n, found, err := p.s.whole(names...)
	if !found {
		return -1, err
	}
	return n, nil
}

// options checks the options, and sets those that are left open.
func (p *planner) options() error {
	if err := p.chooseDType(); err != nil {
		return err
	}
	if err := choice("cast", &p.o.Cast, CastComputed, CastAll); err != nil {
		return err
	}
	if err := choice("mtp", &p.o.MTP, MTPAuto, MTPKeep, MTPDrop); err != nil {
		return err
	}
	if err := choice("scales", &p.o.Scales, "", ScalesAmax, ScalesOnes); err != nil {
		return err
	}
	if p.family.experts == nil && p.family.unknown && p.family.noNative != "" && p.o.EP != (EP{}) {
		return fmt.Errorf("config.json: model_type %q is not known, so neither are its experts: "+
			"leave --ep out", p.s.modelType())
	}
	return p.o.EP.check()
}

// choice checks that an option has one of the values. Empty means the first.
func choice(name string, value *string, values ...string) error {
	if *value == "" {
		*value = values[0]
	}
	if slices.Contains(values, *value) {
		return nil
	}
	named := slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
	return fmt.Errorf("%s %q: expected %s", name, *value, enumerated(named, "or"))
}

// choose finds a layout and the family's view of it. The error says which there are.
func (p *planner) choose(name string) error {
	l, ok := layoutNamed(name)
	if !ok {
		return fmt.Errorf("%w %q: there are %s", ErrUnknownLayout, name,
			p.c.allLayouts(p.family))
	}
	v, ok := p.family.view(l)
	if !ok {
		return p.c.lacks(p.family, p.s, l)
	}
	p.layout, p.view = l, v
	return nil
}
