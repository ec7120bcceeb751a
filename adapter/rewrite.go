package adapter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// member is one entry of a JSON object, its value as it was written.
type member struct {
	key   string
	value json.RawMessage
}

// rewriteConfig gives the view's config.json: without quantization, without the name of the
// source's weights, with the view's dtype, without prediction layers if they were dropped,
// and all else as it was, in its order.
func (p *planner) rewriteConfig() ([]byte, error) {
	if p.c.Config == nil {
		return nil, nil
	}
	raw, err := rewriteObject(hideNumbers(p.c.Config.Raw), p.editor(true))
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
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	out.WriteByte('\n')
	return showNumbers(out.Bytes()), nil
}

// torchName is what configurations call a dtype.
var torchName = map[safetensors.DType]string{
	safetensors.BF16: "bfloat16", safetensors.F16: "float16", safetensors.F32: "float32",
}

// mtpFields give the number of prediction layers.
var mtpFields = map[string]bool{"num_nextn_predict_layers": true, "num_mtp_modules": true, "mtp_num_hidden_layers": true}

// editor gives a function from a member to its new value, nil to leave it out. The
// dtype is that of the language model (lang), not of the towers beside it.
func (p *planner) editor(lang bool) func(key string, value json.RawMessage) (json.RawMessage, error) {
	return func(key string, value json.RawMessage) (json.RawMessage, error) {
		switch {
		case slices.Contains(quantizationFields, key), key == explicitField: // the view's files have names of their own
			return nil, nil
		case mtpFields[key] && p.sawMTP && p.dropsMTP():
			return json.RawMessage("0"), nil
		case (key == "torch_dtype" || key == "dtype") && lang && p.computed && isString(value):
			return json.Marshal(torchName[p.dtype])
		case len(value) > 0 && value[0] == '{':
			return rewriteObject(value, p.editor(lang && slices.Contains(inner, key)))
		}
		return value, nil
	}
}

func isString(v json.RawMessage) bool { return len(v) > 0 && v[0] == '"' }

// members reads a JSON object in its order.
func members(raw []byte) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object")
	}
	var all []member
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{key: t.(string)}
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// object writes members as a JSON object.
func object(all []member) ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, m := range all {
		if i > 0 {
			out.WriteByte(',')
		}
		k, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		out.Write(k)
		out.WriteByte(':')
		out.Write(m.value)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// rewriteObject gives an object with each member's value replaced.
func rewriteObject(raw []byte, edit func(key string, value json.RawMessage) (json.RawMessage, error)) ([]byte, error) {
	all, err := members(raw)
	if err != nil {
		return nil, err
	}
	kept := all[:0]
	for _, m := range all {
		if m.value, err = edit(m.key, m.value); err != nil {
			return nil, err
		}
		if m.value != nil {
			kept = append(kept, m)
		}
	}
	return object(kept)
}

// setQuantization appends what the view's scales are.
func (p *planner) setQuantization(raw []byte) ([]byte, error) {
	all, err := members(raw)
	if err != nil {
		return nil, err
	}
	q, err := p.quantizationConfig()
	if err != nil {
		return nil, err
	}
	return object(append(all, member{quantizationFields[0], q}))
}

// setDType sets the outermost dtype under both of its names; the newer one follows the older.
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
			all = append(all, member{key, value})
		}
	}
	return object(all)
}
