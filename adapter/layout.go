package adapter

import (
	"slices"
	"strings"
)

// The layouts, as [Options] and --layout name them.
const (
	LayoutNative       = "native"       // the reference's keys, and its grouped experts
	LayoutHF           = "hf"           // the published keys
	LayoutSplit        = "split"        // the published keys, with every expert's tensors apart
	LayoutTransformers = "transformers" // the keys of the modules of transformers
	LayoutTorchTitan   = "torchtitan"   // the keys of TorchTitan
	LayoutHFFP8        = "hf-fp8"       // the published keys, quantized
)

// automodel is the reference of the layout native.
const automodel = "NeMo AutoModel"

// Layout is one way to show a checkpoint: its names, and how the experts of a layer are arranged.
type Layout struct {
	Name    string // for [Options], and of the subdirectory of its views
	Readers string // the programs that read it, for messages; see ReadersOf

	// expertReaders and besideSplit take the place of Readers for a model with experts, and beside
	// the layout split. They are often empty.
	expertReaders, besideSplit string

	// Reference is the program and its version whose names and shapes the layout has. It is empty
	// if these are the published ones.
	Reference string

	// Forward layouts dequantize. They are shown if no layout is asked for.
	Forward bool

	// Plans is the number of plans of layout "hf" that together take as much memory as one plan of
	// this layout.
	Plans int

	// published: the keys are those of published checkpoints, so every model has the layout.
	published bool

	// stored: checkpoints are also saved in this layout. Their experts are recognized by its
	// groups.
	stored bool

	// splits: experts that published checkpoints hold grouped are shown split.
	splits bool

	// quantizes: weights are shown as FP8 codes with scales.
	quantizes bool

	// groups are the tensors that hold the experts of a layer. See apart.
	groups []group
}

// group is one tensor that holds all experts of a layer. The parts of each expert are joined, and
// the experts are stacked along a new first axis.
type group struct {
	name       string // behind the path of the experts: "gate_and_up_projs"
	parts      []role // in the order in which they are joined
	transposed bool   // [D, I] for gate and up, [I, D] for down
}

// layouts is the table of layouts, in the order in which they are listed. A new layout is a new
// row. With E experts of intermediate size I and hidden size D, the groups have these shapes:
//
//	native        gate_and_up_projs [E, D, 2I], down_projs [E, I, D]
//	transformers  gate_up_proj [E, 2I, D], down_proj [E, D, I]
//	torchtitan    w1_EFD, w3_EFD [E, I, D], w2_EDF [E, D, I]
var layouts = []Layout{
	{
		Name: LayoutNative, Readers: automodel,
		expertReaders: automodel + " and training code with grouped experts",
		Reference:     automodel + " 0.7.0",
		Forward:       true, Plans: 1, stored: true,
		groups: []group{
			{name: "gate_and_up_projs", parts: []role{gate, up}, transposed: true},
			{name: "down_projs", parts: []role{down}, transposed: true},
		},
	},
	{
		Name: LayoutHF,
		Readers: "transformers, vLLM, SGLang, llama.cpp and all else that reads a plain Hugging " +
			"Face checkpoint",
		besideSplit: "transformers, llama.cpp and all else that reads the experts as they are " +
			"published",
		Forward: true, Plans: 1, published: true,
	},
	{
		Name:    LayoutSplit,
		Readers: "vLLM, SGLang and all else that reads experts one by one",
		Forward: true, Plans: 1, published: true, splits: true,
	},
	{
		Name: LayoutTransformers, Readers: "transformers v5",
		expertReaders: "transformers v5 with grouped experts",
		Reference:     "transformers 5.24.0",
		Forward:       true, Plans: 1, stored: true,
		groups: []group{
			{name: "gate_up_proj", parts: []role{gate, up}},
			{name: "down_proj", parts: []role{down}},
		},
	},
	{
		Name: LayoutTorchTitan, Readers: "TorchTitan", Reference: "TorchTitan 0.3.0",
		Forward: true, Plans: 1,
		groups: []group{
			{name: "w1_EFD", parts: []role{gate}},
			{name: "w3_EFD", parts: []role{up}},
			{name: "w2_EDF", parts: []role{down}},
		},
	},
	{
		Name: LayoutHFFP8, Readers: "programs that read the FP8 checkpoint as it is published",
		Plans: 6, published: true, quantizes: true,
	},
}

// KnownLayouts returns the table of layouts, in the order in which they are listed.
func KnownLayouts() []Layout { return slices.Clone(layouts) }

// LayoutNamed finds a layout by its name.
func LayoutNamed(name string) (l Layout, ok bool) {
	if found, ok := layoutNamed(name); ok {
		return *found, true
	}
	return Layout{}, false
}

// ReadersOf names the programs that read a layout of a checkpoint.
func ReadersOf(c *Checkpoint, layout string) string {
	l, ok := layoutNamed(layout)
	if !ok {
		return ""
	}
	k := c.row(c.Config.fields()).expertKeys()
	if l.splits && k == nil { // without experts it equals hf
		l, _ = layoutNamed(LayoutHF)
	}
	switch {
	case k.groupsAndSplits() && l.besideSplit != "":
		return l.besideSplit
	case k != nil && l.expertReaders != "":
		return l.expertReaders
	}
	return l.Readers
}

// Layouts returns the forward layouts of the checkpoint's family, native first. Every model has
// "hf". "split" is among them only if it differs from "hf".
func Layouts(c *Checkpoint) []string {
	f := c.row(c.Config.fields())
	names := f.layouts()
	if slices.Contains(names, LayoutSplit) && !c.holdsGroups(f) {
		names = slices.DeleteFunc(names, func(name string) bool { return name == LayoutSplit })
	}
	return names
}

// layoutNamed finds the row of a layout.
func layoutNamed(name string) (*Layout, bool) {
	i := slices.IndexFunc(layouts, func(l Layout) bool { return l.Name == name })
	if i < 0 {
		return nil, false
	}
	return &layouts[i], true
}

// publishedLayouts lists the layouts with the keys of published checkpoints, for messages.
func publishedLayouts() string {
	var names []string
	for _, l := range layouts {
		if l.published {
			names = append(names, l.Name)
		}
	}
	return enumerated(names, "or")
}

// enumerated joins names for a message: "a, b and c".
func enumerated(names []string, word string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " " + word + " " + names[last]
}

// apart reports whether the layout has no groups. Then each projection of each expert is a separate
// tensor, and tensors are in the same files as in the source.
func (l *Layout) apart() bool { return len(l.groups) == 0 }

// axis returns the axis along which the parts of one expert are joined. It is the axis of size I.
// The other axis has size D in every part.
func (g *group) axis() int {
	if g.transposed {
		return 1
	}
	return 0
}

// without returns the group's parts except one, for experts that lack it.
func (g *group) without(r role) []role {
	return slices.DeleteFunc(slices.Clone(g.parts), func(p role) bool { return p == r })
}
