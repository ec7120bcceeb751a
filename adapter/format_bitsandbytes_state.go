package adapter

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// quantState is the description of a weight in 4 bits, which is stored as JSON in a tensor.
type quantState struct {
	kind   string // quant_type
	block  int64
	shape  []int64
	nested *nestedScales // nil: scales are plain numbers
}

// nestedScales describes scales that are codes themselves.
type nestedScales struct {
	block  int64
	offset float32
}

// The limits of a description.
const (
	maxStateValues = 1 << 48 // of a weight
	maxStateAxes   = 8
)

// parseQuantState reads a description. It refuses unknown and repeated names, names that are
// missing, and numbers that no weight has.
func parseQuantState(text []byte) (*quantState, error) {
	if err := checkObject(text); err != nil {
		return nil, err
	}
	p := stateParser{fields: map[string][]byte{}}
	if err := p.collect(text); err != nil {
		return nil, err
	}
	s := &quantState{kind: p.text("quant_type"), block: p.whole("blocksize"),
		shape: p.shape("shape")}
	p.among("quant_type", s.kind, "nf4", "fp4")
	p.among("dtype", p.text("dtype"), "float32", "float16", "bfloat16")
	if p.fields["nested_blocksize"] != nil || p.fields["nested_dtype"] != nil ||
		p.fields["nested_offset"] != nil {
		s.nested = &nestedScales{block: p.whole("nested_blocksize"),
			offset: p.float("nested_offset")}
		p.among("nested_dtype", p.text("nested_dtype"), "float32")
	}
	if p.err != nil {
		return nil, p.err
	}
	return s, nil
}

// stateParser holds the fields of a description as written, and the first error.
type stateParser struct {
	fields map[string][]byte
	err    error
}

var stateFields = []string{"quant_type", "blocksize", "dtype", "shape", "nested_blocksize",
	"nested_dtype", "nested_offset"}

// collect finds the fields.
func (p *stateParser) collect(text []byte) error {
	r := &jsonReader{text: text}
	r.peek()
	return r.each(func(key []byte) error {
		name, err := unquote(key)
		if err != nil {
			return err
		}
		switch {
		case p.fields[name] != nil:
			return fmt.Errorf("%s is there twice", name)
		case !slices.Contains(stateFields, name):
			return fmt.Errorf("%.100q is not a field of such a description", name)
		}
		r.peek()
		from := r.at
		err = r.check(1)
		p.fields[name] = text[from:r.at]
		return err
	})
}

// fail keeps the first error.
func (p *stateParser) fail(name, expected string) {
	switch raw := p.fields[name]; {
	case p.err != nil:
	case raw == nil:
		p.err = fmt.Errorf("%s is missing: expected %s", name, expected)
	default:
		p.err = fmt.Errorf("%s is %s: expected %s", name, shorten(string(raw)), expected)
	}
}

// text returns a string.
func (p *stateParser) text(name string) string {
	raw := p.fields[name]
	if len(raw) == 0 || raw[0] != '"' {
		p.fail(name, "a string")
		return ""
	}
	s, err := unquote(raw)
	if err != nil {
		p.fail(name, "a string")
	}
	return s
}

// among refuses a value that is not one of a list.
func (p *stateParser) among(name, value string, all ...string) {
	if !slices.Contains(all, value) {
		p.fail(name, fmt.Sprintf("one of %q", all))
	}
}

// whole returns a whole number from 1 to 2^31-1.
func (p *stateParser) whole(name string) int64 {
	n, err := wholeToken(p.fields[name])
	if err != nil || n < 1 || n > math.MaxInt32 {
		p.fail(name, "a whole number from 1")
		return 1
	}
	return n
}

// wholeToken reads a number that is written without a point or an exponent.
func wholeToken(token []byte) (int64, error) { return strconv.ParseInt(string(token), 10, 64) }

// float returns a number that a float32 can hold, rounded to it.
func (p *stateParser) float(name string) float32 {
	f, err := strconv.ParseFloat(string(p.fields[name]), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(float64(float32(f)), 0) {
		p.fail(name, "a number of float32")
	}
	return float32(f)
}

// shape returns a list of sizes whose product is small enough to be a weight.
func (p *stateParser) shape(name string) []int64 {
	shape, err := shapeToken(p.fields[name])
	if err != nil {
		p.fail(name, err.Error())
	}
	return shape
}

func shapeToken(raw []byte) (shape []int64, err error) {
	expected := errors.New("a list of whole numbers from 1, whose product is a size of a weight")
	if len(raw) == 0 || raw[0] != '[' {
		return nil, expected
	}
	r := &jsonReader{text: raw}
	product := int64(1)
	err = r.each(func([]byte) error {
		r.peek()
		token, err := r.scalar()
		if err != nil {
			return expected
		}
		n, err := wholeToken(token)
		if err != nil || n < 1 || n > maxStateValues/product || len(shape) == maxStateAxes {
			return expected
		}
		product *= n
		shape = append(shape, n)
		return nil
	})
	if err != nil || len(shape) == 0 {
		return nil, expected
	}
	return shape, nil
}
