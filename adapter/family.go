package adapter

import (
	"slices"
	"strings"
)

// family is one row of knowledge about a kind of model: how its published checkpoint names things,
// and how each layout renames them. Rows are data. A rule that only one family has is a function
// in that family's own file, and the row refers to it.
type family struct {
	name string // the reference's name of its adapter

	// types are values of the outermost model_type. inner are the other values that model_type may
	// have in the configuration of the language model inside.
	types, inner []string

	// architectures narrow the row to configurations whose first architecture is one of these.
	// Empty: it is for all of them.
	architectures []string

	// plain are parts of keys whose weights published FP8 checkpoints do not quantize,
	// besides plainWeights.
	plain []string

	// larger are endings of keys whose grid of scales may be larger than it needs. It is read from
	// the top left, as the family's reference does.
	larger []string

	// scales opens an FP8 weight whose scales are where neither shapes nor configuration tell. A
	// nil decoder means that they are where those of every family may be.
	scales func(o *opening, scale *Stored) (decoder, error)

	// experts says how published checkpoints name experts; nil for dense models.
	experts *expertKeys

	// views are the layouts that the family has, besides those that every model has.
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

	// prefixes are those of layers with experts besides the language model's own.
	prefixes []string
}

// view is how a family is shown in one layout.
type view struct {
	layout string
	path   string // of the grouped tensors within a layer; empty: the experts' own

	// prefixes and then renames change a key. Of each list the first that applies does, once.
	prefixes, renames []rename

	drops   []drop
	float32 []string // endings of keys whose floating tensors are shown as F32
	split   []fused
	mtp     mtp    // what "auto" does
	mtpPath string // of prediction layers, numbered from 0: "mtp_layers."; empty: as in the source

	// empty: ranks without experts have tensors of no experts if the source has them grouped.
	empty bool

	hooks
}

// hooks are rules of a view that only one family has. Each is optional.
type hooks struct {
	// rekey changes a key before the renames do. Going back keeps the new key.
	rekey func(p *planner, key string) string

	// groupPrefix gives the prefix of the layer that the grouped experts of a layer are shown in.
	groupPrefix func(p *planner, prefix string) string

	// reshape gives the shape in which the view shows a tensor, and restore the published shape of
	// a tensor. Both go by the name in the view.
	reshape, restore shapeRule
}

// shapeRule gives the shape of a tensor with a name; nil: as it is.
type shapeRule func(name string, shape []int64) []int64

// rename replaces a part of a key: the beginning if from starts with "^", the end if
// it ends with "$", the whole if both.
type rename struct{ from, to string }

// drop leaves tensors out whose key matches a pattern like that of a rename.
type drop struct{ key, reason string }

// fused is a matrix that holds the rows of several.
type fused struct {
	from string   // end of its key
	to   []string // ends of the keys of the parts
	rows func(settings) ([]int64, error)
}

// familyOf finds the row for a configuration, nil for an unknown family. An unknown model around a
// language model with a row stores its weights and experts as that row says. It has none of the
// row's layouts, since no reference has them for the model as a whole.
func familyOf(s settings) *family {
	if f := rowOf(s); f != nil {
		return f
	}
	for _, l := range s.levels()[1:] {
		if f := rowOf(l); f != nil {
			inside := *f
			inside.views = nil
			return &inside
		}
	}
	return nil
}

// rowOf finds the row that is for exactly this model.
func rowOf(s settings) *family {
	i := slices.IndexFunc(families, func(f family) bool { return f.matches(s) })
	if i < 0 {
		return nil
	}
	return &families[i]
}

// matches reports whether the row is for a configuration. The outermost model_type decides. Below
// it, only the types that the row lists may stand.
func (f *family) matches(s settings) bool {
	if !slices.Contains(f.types, s.modelType()) {
		return false
	}
	if len(f.architectures) > 0 && !slices.Contains(f.architectures, s.architecture()) {
		return false
	}
	return !slices.ContainsFunc(s.modelTypes(), func(t string) bool {
		return !slices.Contains(f.types, t) && !slices.Contains(f.inner, t)
	})
}

// takesLarger reports whether the grid over a key may be larger than it needs.
func (f *family) takesLarger(key string) bool { return f != nil && endsIn(f.larger, key) }

// isPlain reports whether published FP8 checkpoints of the family leave a weight as it is.
func (f *family) isPlain(key string) bool { return f != nil && containsAny(key, f.plain) }

// expertKeys gives the names of the family's experts; nil if it has none or is unknown.
func (f *family) expertKeys() *expertKeys {
	if f == nil {
		return nil
	}
	return f.experts
}

// view finds the family's row for a layout.
func (f *family) view(l *Layout) (*view, bool) {
	if l.published {
		return &view{layout: l.Name}, true
	}
	if f == nil {
		return nil, false
	}
	i := slices.IndexFunc(f.views, func(v view) bool { return v.layout == l.Name })
	if i < 0 {
		return nil, false
	}
	return &f.views[i], true
}

// viewNamed finds the family's row for a layout by name.
func (f *family) viewNamed(layout string) (*view, bool) {
	l, ok := layoutNamed(layout)
	if !ok {
		return nil, false
	}
	return f.view(l)
}

// layouts names the forward layouts that the family has, in the order of the table.
func (f *family) layouts() []string {
	var names []string
	for i := range layouts {
		if _, ok := f.view(&layouts[i]); ok && layouts[i].Forward {
			names = append(names, layouts[i].Name)
		}
	}
	return names
}

// allLayouts names all layouts that the family has, for messages.
func (f *family) allLayouts() string {
	var others []string
	for i := range layouts {
		if _, ok := f.view(&layouts[i]); ok && !layouts[i].Forward {
			others = append(others, layouts[i].Name)
		}
	}
	return strings.Join(f.layouts(), ", ") + " and " + strings.Join(others, " and ")
}

// knownTypes lists every model_type that has a row.
func knownTypes() string {
	var all []string
	for _, f := range families {
		all = append(all, f.types...)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}
