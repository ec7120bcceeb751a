package readback

import (
	"math/bits"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// fields holds the fields of a struct by their names in JSON. There are at most 64.
type fields struct {
	byName   map[string]field
	required uint64 // a bit for each field without omitempty
}

// field is the place of a value in a struct.
type field struct {
	number int
	index  []int
	most   int
}

var known sync.Map // caches *fields by reflect.Type

// fieldsOf returns the fields of a type, those of embedded structs included.
func fieldsOf(t reflect.Type) *fields {
	if f, ok := known.Load(t); ok {
		return f.(*fields)
	}
	f := &fields{byName: map[string]field{}}
	for _, sf := range reflect.VisibleFields(t) {
		tag, ok := sf.Tag.Lookup("json")
		if !ok || tag == "-" {
			continue
		}
		f.add(sf, tag)
	}
	known.Store(t, f)
	return f
}

// add adds a field with its tag.
func (f *fields) add(sf reflect.StructField, tag string) {
	name, options, _ := strings.Cut(tag, ",")
	n := len(f.byName)
	if n == 64 {
		panic("readback: a struct with more than 64 fields")
	}
	most, err := strconv.Atoi(sf.Tag.Get("most"))
	if err != nil {
		most = defaultMost
	}
	f.byName[name] = field{number: n, index: sf.Index, most: most}
	if !strings.HasPrefix(options, "omit") {
		f.required |= 1 << n
	}
}

// name returns the name of the first field of a set.
func (f *fields) name(set uint64) string {
	first := bits.TrailingZeros64(set)
	for name, field := range f.byName {
		if field.number == first {
			return name
		}
	}
	return ""
}
