package adapter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// member is one entry of a JSON object, its key and value as they were written.
type member struct {
	key     string // without quotes and escapes
	written []byte // the key with quotes and escapes
	value   json.RawMessage
}

// newMember is an entry with a key that needs no escapes.
func newMember(key string, value json.RawMessage) member {
	return member{key, []byte(`"` + key + `"`), value}
}

// rewriteConfig gives the view's config.json. It has the view's dtype, nothing about the source's
// quantization, and no name of the source's weights. Prediction layers that were dropped are not in
// it. All else is as it was, in its order.
func (p *planner) rewriteConfig() ([]byte, error) {
	if p.c.Config.Missing() {
		return nil, nil
	}
	raw, err := rewriteObject(p.c.Config.Raw, p.editor(true))
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if p.layout.quantizes {
		if raw, err = p.setQuantization(raw); err != nil {
			return nil, fmt.Errorf("config.json: %w", err)
		}
	}
	if p.setsDType() {
		if raw, err = setDType(raw, torchName[p.dtype]); err != nil {
			return nil, fmt.Errorf("config.json: %w", err)
		}
	}
	out, err := indentJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	return append(out, '\n'), nil
}

// setsDType reports whether config.json gets the view's dtype. It keeps its own if all tensors do.
func (p *planner) setsDType() bool { return p.computed || p.o.Cast == CastAll }

// edit gives a member its new value, nil to leave it out.
type edit func(key string, value json.RawMessage) (json.RawMessage, error)

// editor edits a configuration. sets says that it gets the view's dtype. The language model does;
// the towers beside it keep theirs, unless all their tensors get it too.
func (p *planner) editor(sets bool) edit {
	return func(key string, value json.RawMessage) (json.RawMessage, error) {
		switch {
		case ofQuantization(key):
			return nil, nil
		case key == explicitField: // the view's files have names of their own
			return nil, nil
		case slices.Contains(predictionFields, key) && p.sawMTP && !p.keptMTP:
			return json.RawMessage("0"), nil
		case slices.Contains(dtypeFields, key) && sets && p.setsDType() && isString(value):
			return json.Marshal(torchName[p.dtype])
		}
		inner := slices.Contains(innerConfigs, key) ||
			p.o.Cast == CastAll && strings.HasSuffix(key, configEnd)
		return rewriteValue(value, p.editor(sets && inner))
	}
}

// configEnd ends the names of members that are configurations of parts of a model.
const configEnd = "_config"

// ofQuantization reports whether a field of a configuration only describes how the weights of the
// source are quantized.
func ofQuantization(key string) bool {
	return slices.Contains(quantizationFields, key) || slices.Contains(quantizationTraces, key)
}

// quantizationTraces are fields that mean nothing once the weights are dequantized. MLX and Mistral
// describe the quantization in the first.
var quantizationTraces = []string{"quantization", "expert_dtype", "_pre_quantization_dtype"}

func isString(v json.RawMessage) bool { return len(v) > 0 && v[0] == '"' }

// members reads a JSON object in its order. The values are parts of raw.
func members(raw []byte) (all []member, err error) {
	r := &jsonReader{text: raw}
	if r.peek() != '{' {
		return nil, ErrNotObject
	}
	err = r.each(func(key []byte) error {
		name, err := unquote(key)
		if err != nil {
			return err
		}
		r.peek()
		from := r.at
		err = r.check(0)
		all = append(all, member{name, key, raw[from:r.at]})
		return err
	})
	return all, err
}

// object writes members as a JSON object.
func object(all []member) []byte {
	size := 2
	for _, m := range all {
		size += len(m.written) + len(m.value) + 2
	}
	out := append(make([]byte, 0, size), '{')
	for i, m := range all {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(out, m.written...), ':')
		out = append(out, m.value...)
	}
	return append(out, '}')
}

// rewriteObject gives an object with each member's value replaced.
func rewriteObject(raw []byte, change edit) ([]byte, error) {
	all, err := members(raw)
	if err != nil {
		return nil, err
	}
	kept := all[:0]
	for _, m := range all {
		if m.value, err = change(m.key, m.value); err != nil {
			return nil, err
		}
		if m.value != nil {
			kept = append(kept, m)
		}
	}
	return object(kept), nil
}

// rewriteValue edits an object, and every object in a list. Other values stay as they are.
func rewriteValue(raw json.RawMessage, change edit) (json.RawMessage, error) {
	switch {
	case len(raw) > 0 && raw[0] == '{':
		return rewriteObject(raw, change)
	case len(raw) > 0 && raw[0] == '[' && bytes.IndexByte(raw, '{') > 0:
		return rewriteList(raw, change)
	}
	return raw, nil
}

// rewriteList gives a list with each object in it edited.
func rewriteList(raw []byte, change edit) ([]byte, error) {
	r := &jsonReader{text: raw}
	r.peek()
	out := []byte{'['}
	err := r.each(func([]byte) error {
		r.peek()
		from := r.at
		if err := r.check(0); err != nil {
			return err
		}
		value, err := rewriteValue(raw[from:r.at], change)
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, value...)
		return err
	})
	return append(out, ']'), err
}

// setQuantization appends the description of the view's scales.
func (p *planner) setQuantization(raw []byte) ([]byte, error) {
	all, err := members(raw)
	if err != nil {
		return nil, err
	}
	q, err := p.quantizationConfig()
	if err != nil {
		return nil, err
	}
	return object(append(all, newMember(quantizationFields[0], q))), nil
}

// setDType sets the outermost dtype under both of its names, the older first.
func setDType(raw []byte, name string) ([]byte, error) {
	all, err := members(raw)
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(name)
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Backward(dtypeFields) {
		found := false
		for i := range all {
			if all[i].key == key {
				all[i].value, found = value, true
			}
		}
		if !found {
			all = append(all, newMember(key, value))
		}
	}
	return object(all), nil
}
