package adapter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// family is one row of knowledge about a kind of model: how its published
// checkpoint names things, and how each layout renames them. Rows are data; a new
// family needs new code only if its rule is new.
type family struct {
	name  string   // the reference's name of its adapter
	types []string // values of model_type, also inside text_config

	// plain are parts of keys whose weights published FP8 checkpoints do not quantize,
	// beside those that none does.
	plain []string

	// larger are endings of keys whose grid of scales may be larger than it needs: it is read from
	// the top left, as the family's reference does.
	larger []string

	// scales opens an FP8 weight whose scales lie where neither shapes nor configuration tell. A nil
	// decoder: they lie where those of every family may.
	scales func(o *opening, scale *Stored) (decoder, error)

	// experts says how published checkpoints name experts; nil for dense models.
	experts *expertKeys

	// views are the layouts beside "hf" that the family has.
	views []view
}

// expertKeys is how a checkpoint names the experts of a layer.
type expertKeys struct {
	path  string        // of the experts within a layer, with its dot: "mlp.experts."
	proj  [roles]string // key of each projection behind the expert's number and dot
	count []string      // config fields that give the number of experts

	// grouped names the layout in which published checkpoints may hold their experts
	// grouped; "hf" shows such a source as it is. Empty: they are published split.
	grouped string

	// prefixes are those of layers with experts beside the language model's own.
	prefixes []string
}

// view is how a family is shown in one layout.
type view struct {
	layout string
	path   string // of the grouped tensors within a layer; empty: the experts' own

	// prefixes and then renames change a key: of each the first that applies, once.
	prefixes, renames []rename
	// oneWay are prefixes too; going back keeps the new name, which other published
	// checkpoints of the family have.
	oneWay []rename

	drops   []drop
	float32 []string // endings of keys whose floating tensors are shown as F32
	squeeze []string // endings of keys whose first axis goes if it is 1 of two
	split   []fused
	mtp     mtp    // what "auto" does
	mtpPath string // of prediction layers, numbered from 0: "mtp_layers."; empty: as the source has them

	// empty: ranks without experts have tensors of no experts where the source has them grouped.
	empty bool

	// rooted: keys get "model." in front if any has it, and grouped experts lie under
	// "language_model." there unless the architecture is one of textOnly.
	rooted   bool
	textOnly []string
}

// rename replaces a part of a key: the beginning if from starts with "^", the end if
// it ends with "$", the whole if both.
type rename struct{ from, to string }

// drop leaves tensors out whose key matches a pattern like that of a rename.
type drop struct{ key, reason string }

// fused is a matrix whose rows are those of several.
type fused struct {
	from string   // end of its key
	to   []string // ends of the keys of the parts
	rows func(settings) ([]int64, error)
}

// familyOf finds the row for a configuration, by its own model_type and then by
// that of the language model inside. It returns nil for an unknown family.
func familyOf(s settings) *family {
	for _, t := range s.modelTypes() {
		for i := range families {
			if slices.Contains(families[i].types, t) {
				return &families[i]
			}
		}
	}
	return nil
}

// takesLarger says whether the grid over a key may be larger than it needs.
func (f *family) takesLarger(key string) bool { return f != nil && endsIn(f.larger, key) }

// view finds the family's row for a layout.
func (f *family) view(layout string) (*view, bool) {
	if layout == "hf" || layout == "hf-fp8" {
		return &view{layout: layout}, true
	}
	if f == nil {
		return nil, false
	}
	i := slices.IndexFunc(f.views, func(v view) bool { return v.layout == layout })
	if i < 0 {
		return nil, false
	}
	return &f.views[i], true
}

// layouts names the layouts that the family has, native first.
func (f *family) layouts() []string {
	if f == nil {
		return []string{"hf"}
	}
	names := []string{"hf"}
	for _, v := range f.views {
		names = append(names, v.layout)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(layoutRank(a), layoutRank(b)) })
	return names
}

func layoutRank(name string) int {
	return slices.IndexFunc(layouts, func(l layout) bool { return l.name == name })
}

// Layouts names the forward layouts that the checkpoint's family has, native
// first. Every family has "hf".
func Layouts(c *Checkpoint) []string { return familyOf(configOf(c)).layouts() }

// knownTypes lists every model_type that has a row.
func knownTypes() string {
	var all []string
	for _, f := range families {
		all = append(all, f.types...)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// choose finds layout and view, or says which there are.
func choose(f *family, s settings, name string) (*layout, *view, error) {
	l, ok := layoutNamed(name)
	if !ok {
		return nil, nil, fmt.Errorf("%w %q: there are %s and hf-fp8", ErrUnknownLayout, name, strings.Join(f.layouts(), ", "))
	}
	v, ok := f.view(name)
	switch {
	case ok:
		return l, v, nil
	case f == nil && s.modelType() == "":
		return nil, nil, fmt.Errorf("layout %s needs the model_type of a config.json, and there is none: give --layout hf, which works for every model", name)
	case f == nil:
		return nil, nil, fmt.Errorf("config.json: model_type %q is not known to layout %s: give --layout hf, which works for every model; known are %s",
			s.modelType(), name, knownTypes())
	default:
		text := fmt.Sprintf("model_type %q has no layout %s: it has %s", s.modelType(), name, strings.Join(f.layouts(), ", "))
		return nil, nil, &LayoutError{name, text}
	}
}
