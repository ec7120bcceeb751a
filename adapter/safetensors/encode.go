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

// NewHeader lays the tensors out behind each other in the order given (Begin and
// End are set here) and returns the header with its encoded bytes, the eight
// length bytes included, padded with spaces so that data begins at a multiple of align.
// An align below 8 means 8, which is what the reference serializer takes. The same
// arguments give the same bytes. The tensors of the caller are not changed.
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
		size, err := Size(t.DType, t.Shape)
		if _, twice := seen[t.Name]; err == nil {
			switch {
			case twice:
				err = errors.New("is in it twice")
			case t.Name == "" || t.Name == metadataKey || !utf8.ValidString(t.Name):
				err = errors.New("is not a name for a tensor")
			case at > math.MaxInt64-size:
				err = errors.New("the file's size overflows")
			}
		}
		if err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		seen[t.Name] = struct{}{}
		t.Begin, t.End = at, at+size
		at = t.End
	}
	return nil
}

// encode gives the length, the JSON and the padding.
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
		return nil, fmt.Errorf("header of %d bytes, at most %d are allowed: use smaller shards", len(b)-lengthBytes, maxHeaderBytes)
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

// appendStrings writes an object of strings with sorted keys. Every member goes on a
// line of its own behind indent, the brace behind closing, unless both are empty.
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
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) < 0 {
		return append(append(append(b, '"'), s...), '"')
	}
	var e strings.Builder
	enc := json.NewEncoder(&e)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string into memory cannot fail
	return append(b, strings.TrimSuffix(e.String(), "\n")...)
}
