package adapter

import (
	"fmt"
	"unicode/utf8"
)

// Config is config.json: its bytes, in their order, and the type of the model. The zero value is
// that of a source without one.
type Config struct {
	Raw       []byte // the caller must not change it; empty without a config.json
	ModelType string // empty if it does not say
}

// Missing reports whether the checkpoint has no config.json.
func (c *Config) Missing() bool { return c == nil || len(c.Raw) == 0 }

// settings reads the fields of config.json. Without one there are none.
func (c *Config) settings() (settings, error) {
	if c.Missing() {
		return nil, nil
	}
	return parseSettings(c.Raw)
}

// fields are the settings of a config.json that may be unreadable, which has none. Planning a view
// says why.
func (c *Config) fields() settings {
	s, _ := c.settings()
	return s
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
