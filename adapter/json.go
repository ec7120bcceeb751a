package adapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Configurations are JSON in Python's dialect, which also allows NaN, Infinity and -Infinity. They
// are not trusted, so one pass checks these limits before anything is built.
const (
	maxJSONDepth  = 64      // published configurations nest five deep
	maxJSONValues = 1 << 19 // the largest published ones have half of it
	objectCost    = 3       // an object takes at least the memory of so many other values
)

// pythonNumbers are the numbers that Python writes and JSON lacks. The config.json of state-space
// models has an Infinity.
var pythonNumbers = map[string]float64{
	"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1),
}

// jsonReader walks over JSON.
type jsonReader struct {
	text   []byte
	at     int
	values int // number of values read so far
}

// The errors of an object that is too large.
var (
	errTooDeep = fmt.Errorf("nested deeper than %d: too deep for a configuration", maxJSONDepth)
	errTooMany = fmt.Errorf("more than %d values: too many for a configuration", maxJSONValues)
)

// checkObject checks that text is one JSON object within the limits.
func checkObject(text []byte) error {
	err := findObject(text)
	if err == nil || err == errTooDeep || err == errTooMany {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotObject, err)
}

// findObject does the work of checkObject.
func findObject(text []byte) error {
	r := &jsonReader{text: text}
	c, from := r.peek(), r.at
	if c == '[' {
		return errors.New(`it begins with "["`)
	}
	if err := r.check(0); err != nil {
		return err
	}
	end := r.at
	switch r.peek(); {
	case r.at < len(text):
		return errors.New("something follows it")
	case c != '{':
		return fmt.Errorf("it begins with %s", shorten(string(text[from:end])))
	}
	return nil
}

// check reads over one value and counts the values in it.
func (r *jsonReader) check(depth int) error {
	c := r.peek()
	r.values++
	if c == '{' {
		r.values += objectCost - 1
	}
	if r.values > maxJSONValues {
		return errTooMany
	}
	switch {
	case c != '{' && c != '[':
		_, err := r.scalar()
		return err
	case depth == maxJSONDepth:
		return errTooDeep
	}
	return r.each(func([]byte) error { return r.check(depth + 1) })
}

// each reads an object or array and calls visit before each value. visit must read the value. In an
// object it gets the key as written.
func (r *jsonReader) each(visit func(key []byte) error) error {
	open := r.text[r.at]
	end := open + 2 // '{'+2 is '}' and '['+2 is ']'
	r.at++
	for first := true; ; first = false {
		c := r.peek()
		if c == end {
			r.at++
			return nil
		}
		if !first {
			if err := r.expect(','); err != nil {
				return err
			}
		}
		var key []byte
		if open == '{' {
			var err error
			if key, err = r.key(); err != nil {
				return err
			}
		} else if c := r.peek(); c == end {
			return r.unexpected()
		}
		if err := visit(key); err != nil {
			return err
		}
	}
}

// key reads the key of a member and its colon.
func (r *jsonReader) key() ([]byte, error) {
	if r.peek() != '"' {
		return nil, r.unexpected()
	}
	key, err := r.scalar()
	if err != nil {
		return nil, err
	}
	return key, r.expect(':')
}

// scalar reads a string, a number, true, false or null and returns it as written.
func (r *jsonReader) scalar() ([]byte, error) {
	c, from := r.peek(), r.at
	if c == '"' {
		r.at = endOfString(r.text, from)
	} else {
		for r.at < len(r.text) && strings.IndexByte(" \t\n\r,:{}[]\"", r.text[r.at]) < 0 {
			r.at++
		}
	}
	token := r.text[from:r.at]
	if _, is := pythonNumbers[string(token)]; is || json.Valid(token) {
		return token, nil
	}
	if c == '"' && r.at == len(r.text) {
		return nil, io.ErrUnexpectedEOF
	}
	r.at = from
	return nil, r.unexpected()
}

// endOfString returns the position after the string that begins at from, or the end of the text.
func endOfString(text []byte, from int) int {
	for i := from + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// peek skips white space and returns the next byte, or 0 at the end.
func (r *jsonReader) peek() byte {
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// expect skips white space and then c.
func (r *jsonReader) expect(c byte) error {
	if r.peek() != c {
		return r.unexpected()
	}
	r.at++
	return nil
}

// unexpected returns an error that names the next character.
func (r *jsonReader) unexpected() error {
	if r.at >= len(r.text) {
		return io.ErrUnexpectedEOF
	}
	c, _ := utf8.DecodeRune(r.text[r.at:])
	return fmt.Errorf("byte %d: invalid character %q", r.at, c)
}

// decodeJSON returns the value of checked text. Numbers are float64, as in Python, so a number that
// is too large is infinite.
func decodeJSON(text []byte) (any, error) { return (&jsonReader{text: text}).decode() }

func (r *jsonReader) decode() (any, error) {
	switch r.peek() {
	case '{':
		all := map[string]any{}
		err := r.each(func(key []byte) error {
			name, err := unquote(key)
			if err == nil {
				all[name], err = r.decode()
			}
			return err
		})
		return all, err
	case '[':
		all := []any{}
		err := r.each(func([]byte) error {
			v, err := r.decode()
			all = append(all, v)
			return err
		})
		return all, err
	}
	token, err := r.scalar()
	if err != nil {
		return nil, err
	}
	return decodeScalar(token)
}

// decodeScalar returns the value of a string, a number, true, false or null.
func decodeScalar(token []byte) (any, error) {
	if f, is := pythonNumbers[string(token)]; is {
		return f, nil
	}
	if c := token[0]; c == '-' || c >= '0' && c <= '9' {
		f, err := strconv.ParseFloat(string(token), 64)
		if errors.Is(err, strconv.ErrRange) {
			err = nil // f is infinite
		}
		return f, err
	}
	var v any
	err := json.Unmarshal(token, &v)
	return v, err
}

// unquote returns the value of a JSON string.
func unquote(token []byte) (s string, err error) {
	err = json.Unmarshal(token, &s)
	return s, err
}

// indentJSON writes a checked value with two spaces for each level.
func indentJSON(text []byte) ([]byte, error) {
	r := &jsonReader{text: text}
	return r.indent(nil, "\n")
}

// indent appends a value. line is the line break with the indentation of its level.
func (r *jsonReader) indent(out []byte, line string) ([]byte, error) {
	c := r.peek()
	if c != '{' && c != '[' {
		token, err := r.scalar()
		return append(out, token...), err
	}
	out = append(out, c)
	empty := true
	err := r.each(func(key []byte) (err error) {
		if !empty {
			out = append(out, ',')
		}
		empty = false
		out = append(out, line...)
		out = append(out, "  "...)
		if c == '{' {
			out = append(append(out, key...), ": "...)
		}
		out, err = r.indent(out, line+"  ")
		return err
	})
	if !empty {
		out = append(out, line...)
	}
	return append(out, c+2), err
}
