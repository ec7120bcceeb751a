package adapter

import (
	"fmt"
	"slices"
	"strings"
)

// A model without a row has the published names. They are its layout native too, because the
// reference takes them where it has no adapter, and all models with an adapter have a row. This is
// not certain for a model that may have experts.

// row returns the row of the checkpoint, or one that describes a model without a row.
func (c *Checkpoint) row(s settings) *family {
	if f := rowOf(s); f != nil {
		if f.experts == nil && f.noNative == "" && !f.hasView(LayoutNative) {
			f.noNative = c.mayHaveExperts(s)
		}
		return f
	}
	f := familyOf(s)
	if f == nil {
		f = new(family)
	}
	f.unknown = true
	f.unfit = unfit(s)
	f.noNative = c.whyNoNative(s, f)
	return f
}

// whyNoNative says why a model without a row does not have the layout native. It returns "" if the
// model has it.
func (c *Checkpoint) whyNoNative(s settings, f *family) string {
	switch {
	case s.modelType() == "":
		return "config.json has no model_type"
	case f.unfit != "":
		return f.unfit
	case f.experts != nil:
		return "the language model inside has experts, and no reference has the whole model"
	}
	return c.mayHaveExperts(s)
}

// mayHaveExperts says by what a model without an adapter may have experts; "" if by nothing.
func (c *Checkpoint) mayHaveExperts(s settings) string {
	const unsure = "and no reference says how they are grouped"
	if field := s.saysExperts(); field != "" {
		return fmt.Sprintf("by %s in config.json it may have experts, %s", field, unsure)
	}
	for _, t := range c.Tensors() {
		if namesExperts(t.Key) {
			return fmt.Sprintf("by the key %s it may have experts, %s", t.Key, unsure)
		}
	}
	return ""
}

// expertWords are what names of experts contain, the one that says more first.
var expertWords = []string{"expert", "moe"}

// namesExperts reports whether a key speaks of experts.
func namesExperts(key string) bool { return containsAny(strings.ToLower(key), expertWords) }

// saysExperts returns a field of the configuration by which a model has more than one expert, or
// "". Such a field holds a number above one, a list, or true. The name of a model may say it too.
func (s settings) saysExperts() string {
	for _, word := range expertWords {
		if field := expertField("", map[string]any(s), word, false); field != "" {
			return field[1:]
		}
	}
	return ""
}

// nameFields hold names of models.
var nameFields = []string{"model_type", "architectures"}

// speaksOf reports whether a text, or one of a list, has a word.
func speaksOf(v any, word string) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(strings.ToLower(v), word)
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return speaksOf(e, word) })
	}
	return false
}

// expertField returns the path of a value, or of one inside it, that says that there are experts.
// named: the name of the value has the word.
func expertField(path string, v any, word string, named bool) string {
	has := false
	switch v := v.(type) {
	case map[string]any:
		for _, name := range sortedKeys(v) {
			here := named || strings.Contains(strings.ToLower(name), word)
			if slices.Contains(nameFields, name) && speaksOf(v[name], word) {
				return path + "." + name
			}
			if found := expertField(path+"."+name, v[name], word, here); found != "" {
				return found
			}
		}
	case []any:
		for i, e := range v {
			if found := expertField(fmt.Sprintf("%s.%d", path, i), e, word, false); found != "" {
				return found
			}
		}
		has = len(v) > 0
	case float64:
		has = v > 1
	case bool:
		has = v
	}
	if named && has {
		return path
	}
	return ""
}
