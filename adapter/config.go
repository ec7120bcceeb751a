package adapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Config is config.json: its bytes, its order, and the few fields that plans need.
type Config struct {
	Raw       []byte // not to be changed
	ModelType string // empty if it does not say
}

// parseConfig checks that a config.json is a JSON object.
func parseConfig(raw []byte) (*Config, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("not JSON: not UTF-8")
	}
	var fields struct {
		ModelType any `json:"model_type"`
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if fields.ModelType == nil && !isObject(raw) {
		return nil, errors.New("not a JSON object")
	}
	c := &Config{Raw: raw}
	c.ModelType, _ = fields.ModelType.(string)
	return c, nil
}

// isObject tells an object from null, which decodes into anything.
func isObject(raw []byte) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal(raw, &m) == nil && m != nil
}
