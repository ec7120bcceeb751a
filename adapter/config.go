package adapter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxConfigDepth is how deep config.json may nest. Published ones nest five deep.
const maxConfigDepth = 64

// Config is config.json: its bytes, in their order, and what kind of model it says.
type Config struct {
	Raw       []byte // not to be changed
	ModelType string // empty if it does not say
}

// parseConfig checks that a config.json is a JSON object that can be read with little effort.
func parseConfig(raw []byte) (*Config, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("not a JSON object: not UTF-8")
	}
	if err := checkObject(raw); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	var fields struct {
		ModelType any `json:"model_type"`
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	c := &Config{Raw: raw}
	c.ModelType, _ = fields.ModelType.(string)
	return c, nil
}

// checkObject reads an object to its end.
func checkObject(raw []byte) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // else a number too large for a float64 were an error
	for depth := 0; ; {
		token, err := d.Token()
		switch {
		case err == io.EOF && depth == 0 && d.InputOffset() > 0:
			return nil
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		begun := depth > 0
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		switch {
		case depth > maxConfigDepth:
			return fmt.Errorf("nested deeper than %d", maxConfigDepth)
		case !begun && token != json.Delim('{'):
			return fmt.Errorf("it begins with %.100q", fmt.Sprint(token))
		case depth == 0 && len(bytes.TrimSpace(raw[d.InputOffset():])) > 0:
			return errors.New("something stands behind it")
		}
	}
}
