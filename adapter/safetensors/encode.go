package safetensors

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// NewHeader lays the tensors out one after another in the given order and returns the header with
// its encoded bytes. It sets Begin and End of each tensor in the returned header; the caller's
// tensors are not changed.
//
// The encoded bytes include the eight length bytes. They are padded with spaces so that the data
// begins at a multiple of align. An align below 8 means 8, as in the reference serializer. The same
// arguments always give the same bytes.
//
// A repeated, empty or reserved name, a shape that [Size] refuses, and a header above the format's
// limit are errors.
func NewHeader(tensors []Tensor, metadata map[string]string, align int) (*Header, []byte, error) {
	h := &Header{Tensors: slices.Clone(tensors), Metadata: metadata}
	if err := h.layOut(); err != nil {
		return nil, nil, err
	}
	data, err := h.encode(max(align, lengthBytes))
	if err != nil {
		return nil, nil, err
	}
	h.DataOffset = int64(len(data))
	return h, data, nil
}

// layOut sets the offsets and checks the names.
func (h *Header) layOut() error {
	seen, at := make(map[string]struct{}, len(h.Tensors)), int64(0)
	for i := range h.Tensors {
		t := &h.Tensors[i]
		_, twice := seen[t.Name]
		if err := t.layOut(at, twice); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		seen[t.Name] = struct{}{}
		at = t.End
	}
	return nil
}

// layOut sets the offsets of a tensor that begins at byte at.
func (t *Tensor) layOut(at int64, twice bool) error {
	size, err := Size(t.DType, t.Shape)
	switch {
	case err != nil:
		return err
	case twice:
		return errors.New("appears twice")
	case t.Name == "" || t.Name == metadataKey || !utf8.ValidString(t.Name):
		return errors.New("is not a valid name of a tensor")
	case at > math.MaxInt64-size:
		return errors.New("the size of the file overflows")
	}
	t.Begin, t.End = at, at+size
	return nil
}

// encode returns the length, the JSON and the padding.
func (h *Header) encode(align int) ([]byte, error) {
	b := append(make([]byte, lengthBytes, lengthBytes+128*len(h.Tensors)+align), '{')
	if len(h.Metadata) > 0 {
		b = append(appendString(b, metadataKey), ':')
		b = appendStrings(b, h.Metadata, "", "")
		b = append(b, ',')
	}
	for i := range h.Tensors {
		b = append(h.Tensors[i].append(b), ',')
	}
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	b = append(b, '}')
	for len(b)%align != 0 {
		b = append(b, ' ')
	}
	if len(b)-lengthBytes > maxHeaderBytes {
		return nil, fmt.Errorf("header of %d bytes, at most %d are allowed: use smaller shards",
			len(b)-lengthBytes, maxHeaderBytes)
	}
	binary.LittleEndian.PutUint64(b, uint64(len(b)-lengthBytes))
	return b, nil
}

// append writes the member that describes t.
func (t *Tensor) append(b []byte) []byte {
	b = append(appendString(b, t.Name), `:{"dtype":"`...)
	b = append(append(b, t.DType.String()...), `","shape":[`...)
	for i, dim := range t.Shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, dim, 10)
	}
	b = strconv.AppendInt(append(b, `],"data_offsets":[`...), t.Begin, 10)
	b = strconv.AppendInt(append(b, ','), t.End, 10)
	return append(b, "]}"...)
}

// appendStrings writes an object of strings with sorted keys. It writes indent before each member
// and closing before the last brace. Both may be empty.
func appendStrings(b []byte, m map[string]string, indent, closing string) []byte {
	colon := ":"
	if indent != "" {
		colon = ": "
	}
	b = append(b, '{')
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(append(b, indent...), k), colon...)
		b = appendString(b, m[k])
	}
	return append(append(b, closing...), '}')
}

// appendString writes a JSON string.
func appendString(b []byte, s string) []byte {
	special := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
	if strings.IndexFunc(s, special) < 0 {
		return append(append(append(b, '"'), s...), '"')
	}
	var e strings.Builder
	enc := json.NewEncoder(&e)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // encoding a string into memory cannot fail
	return append(b, strings.TrimSuffix(e.String(), "\n")...)
}
