package adapter

import (
	"fmt"
	"unicode/utf8"
)

// Config is config.json: its bytes, in their order, and what kind of model it says.
type Config struct {
	Raw       []byte // not to be changed
	ModelType string // empty if it does not say
}

// parseConfig checks that a config.json is a JSON object that can be read with little effort.
func parseConfig(raw []byte) (*Config, error) {
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrNotObject)
	}
	if err := checkObject(raw); err != nil {
		return nil, err
	}
	all, err := members(raw)
	if err != nil {
		return nil, err
	}
	c := &Config{Raw: raw}
	for _, m := range all {
		if m.key == "model_type" {
			c.ModelType = ""
			if isString(m.value) {
				if c.ModelType, err = unquote(m.value); err != nil {
					return nil, fmt.Errorf("model_type: %w", err)
				}
			}
		}
	}
	return c, nil
}
