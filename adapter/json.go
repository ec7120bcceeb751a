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

// Configurations are JSON as Python writes and reads it: it may hold NaN, Infinity and
// -Infinity, which are numbers. They also come from strangers, so one pass checks their size
// before anything is built of them.
const (
	maxJSONDepth  = 64      // published configurations nest five deep
	maxJSONValues = 1 << 19 // the largest published ones, with an object for each expert, have half of it
	objectCost    = 3       // an object takes the memory of so many other values, and more
)

// pythonNumbers are what Python writes for numbers that JSON lacks. State-space models have an
// Infinity in their config.json.
var pythonNumbers = map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}

// jsonReader walks over JSON.
type jsonReader struct {
	text   []byte
	at     int
	values int // read so far
}

// The errors of an object that takes too much.
var (
	errTooDeep = fmt.Errorf("nested deeper than %d: too deep for a configuration", maxJSONDepth)
	errTooMany = fmt.Errorf("more than %d values: too many for a configuration", maxJSONValues)
)

// checkObject makes sure that text is one JSON object, and that reading it takes little.
func checkObject(text []byte) error {
	err := findObject(text)
	if err == nil || err == errTooDeep || err == errTooMany {
		return err
	}
	return fmt.Errorf("not a JSON object: %w", err)
}

// findObject does what checkObject says.
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

// check reads over one value and counts what is in it.
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

// each reads an object or array: visit is called in front of each value, with its key as it is
// written if there is one, and has to read the value.
func (r *jsonReader) each(visit func(key []byte) error) error {
	open := r.text[r.at]
	end := open + 2 // of '{' is '}', of '[' is ']'
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

// key reads the key of a member, with its colon.
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

// scalar reads a string, a number, true, false or null, and gives it as it is written.
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

// endOfString gives the place behind the string that begins at from, or the end of the text.
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

// peek skips white space and gives the next byte, 0 at the end.
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

// unexpected says what is in the way.
func (r *jsonReader) unexpected() error {
	if r.at >= len(r.text) {
		return io.ErrUnexpectedEOF
	}
	c, _ := utf8.DecodeRune(r.text[r.at:])
	return fmt.Errorf("byte %d: invalid character %q", r.at, c)
}

// decodeJSON gives a value of text that was checked: numbers are float64, as Python reads them,
// so that one that is too large is infinite.
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

// decodeScalar gives the value of a string, a number, true, false or null.
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

// unquote reads a string.
func unquote(token []byte) (s string, err error) {
	err = json.Unmarshal(token, &s)
	return s, err
}

// indentJSON writes a value that was checked with two spaces for each level.
func indentJSON(text []byte) ([]byte, error) {
	r := &jsonReader{text: text}
	return r.indent(nil, "\n")
}

// indent appends a value; line begins a new line at its level.
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
