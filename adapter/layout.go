package adapter

import "slices"

// layout is one way to arrange the experts of a layer. Without groups each
// projection of each expert is a tensor of its own, as published checkpoints have it.
type layout struct {
	name   string
	groups []group
	// quantizes: weights are shown as FP8 codes with scales.
	quantizes bool
}

// group is one grouped tensor of a layer: for each expert its parts, joined and
// stacked along a new first axis.
type group struct {
	name       string // behind the path of the experts: "gate_and_up_projs"
	parts      []role // in the order in which they are joined
	transposed bool   // [D, I] for gate and up, [I, D] for down
}

// layouts are the arrangements known. The shapes of the groups, with E experts of
// intermediate size I and hidden size D:
//
//	native        gate_and_up_projs [E, D, 2I], down_projs [E, I, D]
//	transformers  gate_up_proj [E, 2I, D], down_proj [E, D, I]
//	torchtitan    w1_EFD, w3_EFD [E, I, D], w2_EDF [E, D, I]
var layouts = []layout{
	{name: "native", groups: []group{
		{name: "gate_and_up_projs", parts: []role{gate, up}, transposed: true},
		{name: "down_projs", parts: []role{down}, transposed: true},
	}},
	{name: "hf"},
	{name: "hf-fp8", quantizes: true},
	{name: "transformers", groups: []group{
		{name: "gate_up_proj", parts: []role{gate, up}},
		{name: "down_proj", parts: []role{down}},
	}},
	{name: "torchtitan", groups: []group{
		{name: "w1_EFD", parts: []role{gate}},
		{name: "w3_EFD", parts: []role{up}},
		{name: "w2_EDF", parts: []role{down}},
	}},
}

// layoutNamed finds a layout.
func layoutNamed(name string) (*layout, bool) {
	i := slices.IndexFunc(layouts, func(l layout) bool { return l.name == name })
	if i < 0 {
		return nil, false
	}
	return &layouts[i], true
}

// axis is the axis of one expert's matrix along which the parts are joined: the
// one that is I, which the parts share the other of.
func (g *group) axis() int {
	if g.transposed {
		return 1
	}
	return 0
}

// without gives the group's parts when experts have no gate.
func (g *group) without(r role) []role {
	return slices.DeleteFunc(slices.Clone(g.parts), func(p role) bool { return p == r })
}
