package adapter

import (
	"maps"
	"slices"
	"strings"
)

// FamilyInfo describes a row of the table of families, for lists.
type FamilyInfo struct {
	Types         []string // values of the outermost model_type
	Inside        string   // the model_type that the language model inside must have; "": any
	Architectures []string // the first architecture must be one of these; nil: any

	Layouts  []LayoutInfo // besides those that every model has
	NoNative string       // why a family without experts lacks the layout native
	NoSplit  string       // why grouped experts of the family are not shown split
}

// LayoutInfo describes a layout of a family.
type LayoutInfo struct {
	Layout    string
	Types     []string          // that have it; nil: all of the family
	Lacking   map[string]string // by type: the condition under which a model lacks it
	Published bool              // with the published names, since the reference has no adapter
	Changes   []string          // the tensors that are left out or made
}

// Families describes the table of families, in its order.
func Families() []FamilyInfo {
	all := make([]FamilyInfo, len(families))
	for i := range families {
		all[i] = families[i].info()
	}
	return all
}

func (f *family) info() FamilyInfo {
	o := FamilyInfo{
		Types: f.types, Inside: f.inside, Architectures: f.architectures, NoNative: f.noNative,
	}
	if k := f.expertKeys(); k != nil {
		o.NoSplit = k.whole
	}
	for i := range layouts {
		l := &layouts[i]
		for _, v := range f.viewsOf(l) {
			o.Layouts = append(o.Layouts, LayoutInfo{
				Layout: l.Name, Types: v.types, Lacking: v.conditions(f.types),
				Published: !l.published && !f.hasView(l.Name), Changes: v.changes(),
			})
		}
	}
	return o
}

// viewsOf returns the views of a layout that the list names. There are several if the types of the
// row differ.
func (f *family) viewsOf(l *Layout) (all []view) {
	for _, v := range f.views {
		if v.layout == l.Name {
			all = append(all, v)
		}
	}
	if all != nil {
		return all
	}
	v, ok := f.view(l)
	if !ok || l.published && !(l.splits && f.expertKeys().groupsAndSplits()) {
		return nil
	}
	return []view{*v}
}

// hasView reports whether the row itself says what a layout has.
func (f *family) hasView(layout string) bool {
	return slices.ContainsFunc(f.views, func(v view) bool { return v.layout == layout })
}

// conditions say by type why a model lacks the view if its configuration says nothing else.
func (v *view) conditions(types []string) map[string]string {
	if v.lacks == nil {
		return nil
	}
	all := map[string]string{}
	for _, t := range types {
		if why := v.lacks(settings{"model_type": t}); why != "" {
			all[t] = why
		}
	}
	return all
}

// changes lists the tensors that the view leaves out or makes.
func (v *view) changes() (all []string) {
	keys := map[string][]string{}
	for _, d := range v.drops {
		keys[d.reason] = append(keys[d.reason], bare(d.key))
	}
	for _, reason := range slices.Sorted(maps.Keys(keys)) {
		all = append(all, "no "+enumerated(keys[reason], "and")+" ("+reason+")")
	}
	if layers := droppedLayers[v.mtp]; layers != "" {
		all = append(all, "no "+layers)
	}
	for _, b := range v.blanks {
		all = append(all, bare(b.key)+" of zeros if it is missing")
	}
	for _, c := range v.padded {
		all = append(all, bare(c.name)+" cut to the size in config.json")
	}
	for _, s := range v.steps {
		if t, ok := s.(teller); ok && !slices.Contains(all, t.tells()) {
			all = append(all, t.tells())
		}
	}
	if v.note != "" {
		all = append(all, v.note)
	}
	return all
}

// teller is a step that leaves tensors out, or makes some of others.
type teller interface{ tells() string }

func (t tied) tells() string { return t.to + " of the embeddings if it is missing" }

func (m scaledBy) tells() string {
	return bare(m.key) + " times " + bare(m.by) + ", which is left out"
}

// droppedLayers says which prediction layers a view leaves out, unless --mtp says otherwise.
var droppedLayers = map[mtp]string{
	dropMTP:   "prediction layers (MTP)",
	dropAfter: "prediction layers (MTP) after the last layer",
	countMTP:  "prediction layers (MTP) beyond their number in config.json",
	anyMTP:    "prediction layers (MTP) if config.json counts none",
}

// bare is a pattern of a key without the marks of its ends.
func bare(key string) string {
	return strings.Trim(strings.TrimSuffix(strings.TrimPrefix(key, "^"), "$"), ".")
}
