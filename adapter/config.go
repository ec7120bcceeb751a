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
	clean := hideNumbers(raw)
	if err := checkObject(clean); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	var fields struct {
		ModelType any `json:"model_type"`
	}
	if err := json.Unmarshal(clean, &fields); err != nil {
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
			return errors.New("something follows it")
		}
	}
}

// pythonNumbers are what Python writes into its JSON, and reads from it, where JSON has
// no such numbers. State-space models have an Infinity in their config.json.
var pythonNumbers = []string{"NaN", "Infinity", "-Infinity"}

// hidden is the JSON string that stands for a number while JSON is worked on.
func hidden(number string) string { return `"\u0000` + number + `"` }

// hideNumbers puts strings for the numbers that JSON lacks. showNumbers puts them back.
func hideNumbers(raw []byte) []byte {
	if !bytes.Contains(raw, []byte("NaN")) && !bytes.Contains(raw, []byte("Infinity")) {
		return raw
	}
	out := make([]byte, 0, len(raw)+64)
	for i, quoted := 0, false; i < len(raw); i++ {
		n := 1
		switch {
		case raw[i] == '"':
			quoted = !quoted
		case quoted && raw[i] == '\\':
			n = min(2, len(raw)-i)
		case !quoted:
			if name := pythonNumber(raw[i:]); name != "" {
				out = append(out, hidden(name)...)
				i += len(name) - 1
				continue
			}
		}
		out = append(out, raw[i:i+n]...)
		i += n - 1
	}
	return out
}

// pythonNumber says which of them b begins with.
func pythonNumber(b []byte) string {
	for _, name := range pythonNumbers {
		if bytes.HasPrefix(b, []byte(name)) {
			return name
		}
	}
	return ""
}

// showNumbers is the inverse of hideNumbers.
func showNumbers(raw []byte) []byte {
	for _, name := range pythonNumbers {
		raw = bytes.ReplaceAll(raw, []byte(hidden(name)), []byte(name))
	}
	return raw
}
