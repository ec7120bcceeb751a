package adapter

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// settings are the fields of a config.json, with those of the language model inside. The nil map is
// that of a checkpoint without one.
type settings map[string]any

// parseSettings reads a config.json.
func parseSettings(raw []byte) (settings, error) {
	if err := checkObject(raw); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	v, err := decodeJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	return asObject(v), nil
}

// levels gives the configuration and those of the language models inside it.
func (s settings) levels() []settings {
	all := []settings{s}
	for _, name := range innerConfigs {
		if m, ok := s[name].(map[string]any); ok {
			all = append(all, settings(m).levels()...)
		}
	}
	return all
}

// lookup finds a field, outermost first, that is not null.
func (s settings) lookup(name string) (any, bool) {
	for _, l := range s.levels() {
		if v := l[name]; v != nil {
			return v, true
		}
	}
	return nil, false
}

// integer finds the first of the fields that holds a whole number.
func (s settings) integer(names ...string) (int, bool) {
	for _, name := range names {
		v, _ := s.lookup(name)
		if f, ok := v.(float64); ok && f == math.Trunc(f) && math.Abs(f) <= math.MaxInt32 {
			return int(f), true
		}
	}
	return 0, false
}

// whole finds the first of the fields that is there. It must be a whole number from 0 to 2^31-1.
func (s settings) whole(names ...string) (n int, found bool, err error) {
	for _, name := range names {
		v, ok := s.lookup(name)
		if !ok {
			continue
		}
		f, ok := v.(float64)
		if !ok || f != math.Trunc(f) || f < 0 || f > math.MaxInt32 {
			return 0, false, fmt.Errorf("config.json: %s is %s: expected a whole number",
				name, shown(v))
		}
		return int(f), true, nil
	}
	return 0, false, nil
}

// uniform is like whole, but the field may also be a list with the same number for each layer.
func (s settings) uniform(names ...string) (n int, found bool, err error) {
	for _, name := range names {
		v, ok := s.lookup(name)
		if !ok {
			continue
		}
		list, ok := v.([]any)
		if !ok {
			return s.whole(name)
		}
		other := func(e any) bool { return shown(e) != shown(list[0]) }
		if len(list) == 0 || slices.ContainsFunc(list, other) {
			return 0, false, fmt.Errorf("config.json: %s is %s: expected the same number for "+
				"each layer", name, shown(v))
		}
		return settings{name: list[0]}.whole(name)
	}
	return 0, false, nil
}

// shown is a value for a message, as it is in the file. Long ones are cut.
func shown(v any) string { return shorten(string(appendShown(nil, v))) }

func appendShown(out []byte, v any) []byte {
	switch v := v.(type) {
	case []any:
		out = append(out, '[')
		for i, e := range v {
			if len(out) > mostShown {
				return out
			}
			if i > 0 {
				out = append(out, ',')
			}
			out = appendShown(out, e)
		}
		return append(out, ']')
	case map[string]any:
		out = append(out, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if len(out) > mostShown {
				return out
			}
			if i > 0 {
				out = append(out, ',')
			}
			out = appendShown(append(appendShown(out, name), ':'), v[name])
		}
		return append(out, '}')
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return append(out, pythonNumber(v)...)
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Append(out, v)
	}
	return append(out, b...)
}

// pythonNumber is how Python writes a number that JSON lacks.
func pythonNumber(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case v < 0:
		return "-Infinity"
	}
	return "Infinity"
}

// mostShown is how many bytes of a value are put into a message.
const mostShown = 100

// shorten cuts a long text.
func shorten(text string) string {
	if len(text) <= mostShown {
		return text
	}
	return strings.ToValidUTF8(text[:mostShown], "") + "…"
}

// text finds a string field.
func (s settings) text(name string) string {
	v, _ := s.lookup(name)
	t, _ := v.(string)
	return t
}

// modelType is the outermost model_type; empty if there is none.
func (s settings) modelType() string {
	t, _ := s["model_type"].(string)
	return t
}

// modelTypes lists the model_type of every level that has one.
func (s settings) modelTypes() []string {
	var all []string
	for _, l := range s.levels() {
		if t := l.modelType(); t != "" {
			all = append(all, t)
		}
	}
	return all
}

// architecture is the first of the configuration's architectures; empty if there is none.
func (s settings) architecture() string {
	all, _ := s["architectures"].([]any)
	if len(all) == 0 {
		return ""
	}
	a, _ := all[0].(string)
	return a
}

// gated says whether experts have a gate projection. Those with the squared ReLU have none, as in
// the reference.
func (s settings) gated() bool {
	is := func(field string) bool { return s.text(field) == ungated }
	return !slices.ContainsFunc(activationFields, is)
}

// object finds a member that is an object, outermost first.
func (s settings) object(names ...string) settings {
	for _, name := range names {
		if v, ok := s.lookup(name); ok {
			if m, ok := v.(map[string]any); ok {
				return m
			}
		}
	}
	return nil
}
