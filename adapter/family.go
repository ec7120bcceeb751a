package adapter

import "slices"

// family is one row of the table of model families. It has the names in published checkpoints, and
// how each layout renames them. Rows are data. A rule of only one family is a function in that
// family's file, and the row refers to it.
type family struct {
	name string // of its adapter in the reference

	// types are values of the outermost model_type. inner are other values of model_type that the
	// configuration of the language model inside may have.
	types, inner []string

	// inside is the value of model_type that the language model inside must have. It distinguishes
	// rows with the same types. If empty, any of types and inner will do.
	inside string

	// architectures limit the row to configurations whose first architecture is one of these. If
	// empty, the row is for all architectures.
	architectures []string

	// plain are parts of keys of weights that published FP8 checkpoints do not quantize, besides
	// plainWeights.
	plain []string

	// larger are endings of keys whose grid of scales may be larger than needed. The grid is read
	// from the top left, as in the reference.
	larger []string

	// scales opens an FP8 weight if neither shapes nor configuration tell where its scales are.
	// With a nil decoder the general rules apply.
	scales func(o *opening, scale *Stored) (decoder, error)

	// inShards: quantized matrices of query, key and value are in as many shards as there are
	// key-value heads, even if the index has no tp_size.
	inShards bool

	// experts has the names of experts in published checkpoints. It is nil for dense models.
	experts *expertKeys

	// mtpPrefix begins the keys of prediction layers if their number follows directly: "mtp." for
	// "mtp.0.". mtpBlock is between the number of a prediction layer and the names that it shares
	// with other layers: "transformer_layer.".
	mtpPrefix, mtpBlock string

	// unclear are endings of keys that two layouts have in common, with other axes.
	unclear []string

	// views are the layouts of the family, besides those that every model has.
	views []view

	// absent says why the row lacks layouts although their references have the model.
	absent map[string]string

	// lacking says why the configuration does not have layouts that the row has. only are the
	// values of model_type that have a layout, if the configuration's does not.
	lacking map[string]string
	only    map[string][]string

	// noNative says why a family without experts lacks the layout native. If it is empty, such a
	// family has it: with the published names, as for every model that the reference has no adapter
	// for.
	noNative string

	// unknown: the model has no row. The row of the language model inside says how its weights and
	// experts are stored. See Checkpoint.row. unfit says what a row needs that has the model's type,
	// but is not for this configuration.
	unknown bool
	unfit   string
}

// expertKeys has the names of the experts of a layer in a checkpoint.
type expertKeys struct {
	path  string        // of the experts within a layer, with its dot: "mlp.experts."
	proj  [roles]string // key of each projection behind the expert's number and dot
	count []string      // config fields that give the number of experts

	// halves is the key of a tensor with the rows of up above those of gate, like proj. It is empty
	// if published checkpoints always hold them apart.
	halves string

	// perLayer: the number of experts may be a list with the same number for each layer.
	perLayer bool

	// grouped is the layout in which published checkpoints may hold grouped experts. Layout "hf"
	// shows such a source unchanged. If empty, experts are published split.
	grouped string

	// groups are the grouped tensors of published checkpoints that group experts in a way of their
	// own. Then grouped is LayoutHF. groupPath is their path; if it is empty, it is path.
	groups    []group
	groupPath string

	// turned: transformers saves the groups under their published names, but with the last two axes
	// swapped. The size of the hidden state tells the two apart.
	turned bool

	// whole says why grouped experts are not shown split. Then proj is empty.
	whole string

	// each are other tensors with one entry for each expert, by their key behind path.
	each []string

	// prefixes are the prefixes of layers with experts that are not part of the language model.
	prefixes []string
}

// view describes a family in one layout.
type view struct {
	layout string
	types  []string              // values of model_type that have it; empty: all of the row
	lacks  func(settings) string // why a configuration does not have it; nil: all have it
	path   string                // of the grouped tensors within a layer; empty: the experts' own
	groups []group               // the grouped tensors, if they are not those of the layout

	// steps make tensors from others before they are renamed.
	steps []step

	// First prefixes, then renames, and then each list of later changes a key. Of each list, only
	// the first rename that applies is used, once.
	prefixes, renames []rename
	later             [][]rename

	// marks are patterns of keys that checkpoints have only in this layout. A source with such a
	// key or with the layout's grouped experts is one of the layout.
	marks []string

	drops   []drop
	float32 []string // endings of keys whose floating tensors are shown as F32
	padded  []padded
	blanks  []blank
	mtp     mtp    // the meaning of "auto"
	mtpPath string // of prediction layers, numbered from 0: "mtp_layers."; empty: as in the source

	// others are parts beside the language model whose experts the layout groups too.
	others []otherExperts

	// empty: a rank without experts has tensors with no experts if the source has grouped experts.
	empty bool

	// castAll: every floating tensor has the view's dtype, except those of float32.
	castAll bool

	// asStored: grouped experts that are not quantized keep their dtype.
	asStored bool

	// note is a line for users on how the layout differs from what its loader makes; often empty.
	note string

	hooks
}

// otherExperts is a part of a model with experts of another number than the language model's.
type otherExperts struct {
	prefix string // of its layers
	config string // the member of the configuration that describes it
}

// hooks are rules of a view for only one family. Each is optional.
type hooks struct {
	// rekey changes a key before the renames do. In the other direction the key stays changed.
	rekey func(p *planner, key string) string

	// groupPrefix returns the prefix of the layer in which the grouped experts of a layer are
	// shown.
	groupPrefix func(p *planner, prefix string) string

	// reshape returns the shape of a tensor in the view, and restore its published shape. Both use
	// the name in the view.
	reshape, restore shapeRule
}

// shapeRule returns the shape of a tensor with a name, or nil if the shape is unchanged.
type shapeRule func(name string, shape []int64) []int64

// rename replaces a part of a key. If from starts with "^", it is the beginning. If it ends with
// "$", it is the end. With both, it is the whole key. A "*" matches a layer's number, which takes
// the place of the "*" in to.
type rename struct{ from, to string }

// drop leaves out tensors whose key matches a pattern like that of a rename.
type drop struct{ key, reason string }

// familyOf returns the row for a configuration, or nil for an unknown family. An unknown model may
// contain a language model with a row. Then its weights and experts are stored as in that row. It
// has no layouts of the row, since no reference has them for the whole model.
func familyOf(s settings) *family {
	if f := rowOf(s); f != nil {
		return f
	}
	for _, l := range s.levels()[1:] {
		if f := rowOf(l); f != nil {
			inside := *f
			inside.views, inside.noNative = nil, ""
			inside.absent, inside.lacking, inside.only = nil, nil, nil
			return &inside
		}
	}
	return nil
}

// rowOf returns the row of exactly this model.
func rowOf(s settings) *family {
	i := slices.IndexFunc(families, func(f family) bool { return f.matches(s) })
	if i < 0 {
		return nil
	}
	return families[i].of(s)
}

// of returns the row with the views that a configuration has.
func (f *family) of(s settings) *family {
	own := *f
	own.views, own.lacking, own.only = nil, map[string]string{}, map[string][]string{}
	for _, v := range f.views {
		reason := ""
		if v.lacks != nil {
			reason = v.lacks(s)
		}
		switch {
		case len(v.types) > 0 && !slices.Contains(v.types, s.modelType()):
			own.only[v.layout] = append(own.only[v.layout], v.types...)
		case reason != "":
			own.lacking[v.layout] = reason
		default:
			own.views = append(own.views, v)
		}
	}
	return &own
}

// matches reports whether the row is for a configuration. The outermost model_type decides. Only
// types that the row lists may be below it.
func (f *family) matches(s settings) bool {
	return slices.Contains(f.types, s.modelType()) && f.isArchitecture(s) && f.fitsInside(s)
}

// isArchitecture reports whether the row is for the first architecture of a configuration.
func (f *family) isArchitecture(s settings) bool {
	return len(f.architectures) == 0 || slices.Contains(f.architectures, s.architecture())
}

// fitsInside reports whether the row is for the models inside a configuration.
func (f *family) fitsInside(s settings) bool {
	if f.inside != "" && !slices.Contains(s.modelTypes(), f.inside) {
		return false
	}
	return !slices.ContainsFunc(s.modelTypes(), func(t string) bool {
		return !slices.Contains(f.types, t) && !slices.Contains(f.inner, t) && t != f.inside
	})
}

// takesLarger reports whether the grid of a key may be larger than needed.
func (f *family) takesLarger(key string) bool { return f != nil && endsIn(f.larger, key) }

// isPlain reports whether published FP8 checkpoints of the family do not quantize a weight.
func (f *family) isPlain(key string) bool { return f != nil && containsAny(key, f.plain) }

// expertKeys returns the names of the family's experts. It is nil if the family has none or is
// unknown.
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
	if i >= 0 {
		return &f.views[i], true
	}
	if l.Name == LayoutNative && f.experts == nil && f.noNative == "" && f.lacking[l.Name] == "" {
		return &view{layout: l.Name}, true
	}
	return nil, false
}

// groupsOf returns the grouped tensors of the view.
func (v *view) groupsOf(l *Layout) []group {
	if len(v.groups) > 0 {
		return v.groups
	}
	return l.groups
}

// viewNamed finds the family's row for a layout by name.
func (f *family) viewNamed(layout string) (*view, bool) {
	l, ok := layoutNamed(layout)
	if !ok {
		return nil, false
	}
	return f.view(l)
}

// layouts returns the forward layouts of the family, in the order of the table.
func (f *family) layouts() []string {
	var names []string
	for i := range layouts {
		if layouts[i].splits && !f.expertKeys().groupsAndSplits() {
			continue // it equals hf
		}
		if _, ok := f.view(&layouts[i]); ok && layouts[i].Forward {
			names = append(names, layouts[i].Name)
		}
	}
	return names
}
