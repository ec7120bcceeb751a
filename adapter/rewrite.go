package adapter

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
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

// rewriteConfig gives the view's config.json. It has the view's dtype, no quantization, and no name
// of the source's weights. Prediction layers that were dropped are not in it. All else is as it
// was, in its order.
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
	if p.computed {
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

// torchName is the name of a dtype in configurations.
var torchName = map[safetensors.DType]string{
	safetensors.BF16: "bfloat16", safetensors.F16: "float16", safetensors.F32: "float32",
}

// edit gives a member its new value, nil to leave it out.
type edit func(key string, value json.RawMessage) (json.RawMessage, error)

// editor edits a configuration. lang says that it is the language model's, which has the view's
// dtype; the towers beside it keep theirs.
func (p *planner) editor(lang bool) edit {
	return func(key string, value json.RawMessage) (json.RawMessage, error) {
		switch {
		case slices.Contains(quantizationFields, key):
			return nil, nil
		case key == explicitField: // the view's files have names of their own
			return nil, nil
		case slices.Contains(predictionFields, key) && p.sawMTP && !p.keptMTP:
			return json.RawMessage("0"), nil
		case (key == "torch_dtype" || key == "dtype") && lang && p.computed && isString(value):
			return json.Marshal(torchName[p.dtype])
		case len(value) > 0 && value[0] == '{':
			return rewriteObject(value, p.editor(lang && slices.Contains(innerConfigs, key)))
		}
		return value, nil
	}
}

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
	for _, key := range []string{"torch_dtype", "dtype"} {
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
