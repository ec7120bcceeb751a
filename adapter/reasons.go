package adapter

import (
	"fmt"
	"slices"
	"strings"
)

// lacks is the error for a layout that the model does not have.
func (c *Checkpoint) lacks(f *family, s settings, l *Layout) error {
	if s.modelType() == "" {
		what := "config.json has no model_type"
		if c.Config.Missing() {
			what = ErrNoConfig.Error()
		}
		return fmt.Errorf("%s, which says what layout %s is like: give --layout %s, which works "+
			"for every model", what, l.Name, LayoutHF)
	}
	has := "has no layout"
	if f.unknown && f.unfit == "" {
		has = "is not known" + didYouMean(s) + ", so it has no layout"
	}
	text := fmt.Sprintf("config.json: model_type %s %s %s: %s; it has %s", f.named(s), has, l.Name,
		f.whyNot(s, l), c.allLayouts(f))
	return &LayoutError{l.Name, text}
}

// named is the model's type in quotes, with that of the model inside if that matters.
func (f *family) named(s settings) string {
	name := fmt.Sprintf("%q", s.modelType())
	if types := s.modelTypes(); f.unknown && len(types) > 1 {
		name += fmt.Sprintf(" around %q", types[1])
	}
	return name
}

// allLayouts lists all layouts of a checkpoint, for messages.
func (c *Checkpoint) allLayouts(f *family) string {
	var names []string
	for i := range layouts {
		l := &layouts[i]
		if _, ok := f.view(l); ok && !(l.splits && c.refusesSplit(f)) {
			names = append(names, l.Name)
		}
	}
	return enumerated(names, "and")
}

// whyNot says why a model lacks a layout.
func (f *family) whyNot(s settings, l *Layout) string {
	if why := f.ownReason(s, l); why != "" {
		return why
	}
	return l.Reference + " has no such model"
}

// ownReason says why a model lacks a layout, if there is more to say than that the layout's
// reference does not have the model.
func (f *family) ownReason(s settings, l *Layout) string {
	switch {
	case f.unfit != "":
		return f.unfit
	case f.lacking[l.Name] != "":
		return f.lacking[l.Name]
	case f.absent[l.Name] != "":
		return f.absent[l.Name]
	case l.Name == LayoutNative && f.noNative != "":
		return f.noNative
	case len(f.only[l.Name]) > 0:
		return l.Reference + " has it only for model_type " + quoted(f.only[l.Name])
	}
	if others := architecturesWith(s, l); len(others) > 0 {
		return fmt.Sprintf("%s has it only for architectures %s, and config.json has %s",
			l.Reference, quoted(others), s.saidArchitecture())
	}
	switch {
	case f.unknown:
		return "dequantfs has no rule for it"
	case l.Name != LayoutTransformers:
		return ""
	case f.experts != nil:
		return l.Reference + " has no rule to merge its experts"
	}
	return l.Reference + " merges nothing in it"
}

// architecturesWith are the architectures that have a layout of a model whose others do not.
func architecturesWith(s settings, l *Layout) (all []string) {
	for i := range families {
		f := &families[i]
		if !slices.Contains(f.types, s.modelType()) || !f.fitsInside(s) || f.isArchitecture(s) {
			continue
		}
		if f.of(s).hasView(l.Name) {
			all = append(all, f.architectures...)
		}
	}
	return all
}

// saidArchitecture is the first of the configuration's architectures, for messages.
func (s settings) saidArchitecture() string {
	if a := s.architecture(); a != "" {
		return fmt.Sprintf("%q", a)
	}
	return "none"
}

// unfit says what the rows of the model's type need that the configuration does not have. It
// returns "" if no row has the type.
func unfit(s settings) string {
	var inside, architectures []string
	known := false
	for i := range families {
		f := &families[i]
		if !slices.Contains(f.types, s.modelType()) {
			continue
		}
		known = true
		switch {
		case f.isArchitecture(s):
			inside = append(inside, f.typesInside(s.modelType())...)
		case f.fitsInside(s):
			architectures = append(architectures, f.architectures...)
		}
	}
	switch {
	case len(architectures) > 0:
		return fmt.Sprintf("it is known only with architectures %s, and config.json has %s",
			quoted(architectures), s.saidArchitecture())
	case len(inside) > 0:
		field, found := s.strange("", inside)
		return fmt.Sprintf("it is known only with %s %s, and config.json has %s", field,
			quoted(inside), found)
	case known:
		return "it is known only with another architecture and another language model"
	}
	return ""
}

// typesInside are the values of model_type that a model of the row with an outermost type may have
// inside.
func (f *family) typesInside(outermost string) []string {
	if f.inside != "" {
		return []string{f.inside}
	}
	all := slices.Concat(f.inner, f.types)
	if len(all) > 1 {
		all = slices.DeleteFunc(all, func(t string) bool { return t == outermost })
	}
	return all
}

// strange finds a model_type of a model inside that is not among the known ones, and returns the
// path of its field and the value for a message.
func (s settings) strange(path string, known []string) (field, found string) {
	for _, name := range innerConfigs {
		m, ok := s[name].(map[string]any)
		if !ok {
			continue
		}
		inner, here := settings(m), path+name+"."
		if t := inner.modelType(); t != "" && !slices.Contains(known, t) {
			return here + "model_type", fmt.Sprintf("%q", t)
		}
		if field, found := inner.strange(here, known); found != "none" {
			return field, found
		}
	}
	return path + innerConfigs[0] + ".model_type", "none"
}

// quoted lists each of some values once, for a message.
func quoted(values []string) string {
	var all []string
	for _, v := range values {
		if q := fmt.Sprintf("%q", v); v != "" && !slices.Contains(all, q) {
			all = append(all, q)
		}
	}
	return enumerated(all, "or")
}

// PublishedNative reports whether the layout native of a checkpoint is one of published names,
// because the reference has no adapter for the model.
func PublishedNative(c *Checkpoint) bool {
	f := c.row(c.Config.fields())
	_, ok := f.viewNamed(LayoutNative)
	return ok && !f.hasView(LayoutNative)
}

// Missing says which layouts a checkpoint lacks because of its configuration, and why. If it has
// only those of published checkpoints, that is said of all others. It returns "" if there is
// nothing to say, or no model_type.
func Missing(c *Checkpoint) string {
	s := c.Config.fields()
	f := c.row(s)
	if s.modelType() == "" {
		return ""
	}
	var absent []*Layout
	others := false
	for i := range layouts {
		l := &layouts[i]
		if _, ok := f.view(l); !ok {
			absent = append(absent, l)
		} else if !l.published {
			others = true
		}
	}
	if others {
		absent = slices.DeleteFunc(absent, func(l *Layout) bool { return f.lacking[l.Name] == "" })
	}
	said := f.sayAbsent(s, absent)
	if said != "" && f.unknown && f.unfit == "" {
		said = fmt.Sprintf("model_type %s is not known%s: %s", f.named(s), didYouMean(s), said)
	}
	return said
}

// sayAbsent joins layouts that are missing for the same reason.
func (f *family) sayAbsent(s settings, absent []*Layout) string {
	const general = ""
	var reasons []string
	names, references := map[string][]string{}, []string(nil)
	for _, l := range absent {
		why := f.ownReason(s, l)
		if why == general {
			references = append(references, l.Reference)
		}
		if !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
		names[why] = append(names[why], l.Name)
	}
	parts := make([]string, len(reasons))
	for i, why := range reasons {
		layout, text := "layout ", why
		if len(names[why]) > 1 {
			layout = "layouts "
		}
		if why == general {
			text = lackModel(references, len(absent))
		}
		parts[i] = "no " + layout + enumerated(names[why], "and") + ": " + text
	}
	return strings.Join(parts, "; ")
}

// lackModel says that references do not have the model. n is how many layouts are missing.
func lackModel(references []string, n int) string {
	switch len(references) {
	case n:
		return "no reference has this model"
	case 1:
		return references[0] + " has no such model"
	}
	return enumerated(references, "and") + " have no such model"
}
