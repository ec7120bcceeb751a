package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Index is the contents of model.safetensors.index.json.
type Index struct {
	// Metadata has total_size and other short entries. ParseIndex returns numbers as json.Number.
	Metadata  map[string]any
	Large     bool              // the metadata was too long to decode, so Metadata is nil
	WeightMap map[string]string // key to file name
}

// ParseIndex reads an index. Duplicate keys are an error. File names are not checked: the caller
// must verify that they stay inside the checkpoint.
func ParseIndex(data []byte) (*Index, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("the index is not UTF-8")
	}
	x, s := &Index{}, &scanner{data: data}
	s.expect('{')
	for first := true; s.more(&first, '}'); {
		switch k := s.key(); string(k) {
		case "weight_map":
			if x.WeightMap != nil {
				s.fail("weight_map appears twice")
			}
			x.weightMap(s)
		case "metadata":
			x.metadata(s)
		default:
			s.skip(1)
		}
	}
	s.end()
	if s.err == nil && x.WeightMap == nil {
		s.err = errors.New("there is no weight_map")
	}
	if s.err != nil {
		return nil, fmt.Errorf("bad index: %w", s.err)
	}
	return x, nil
}

// weightMap reads the map of key to file. All keys of one file share one string for its name.
func (x *Index) weightMap(s *scanner) {
	const usual = 96 // bytes of an entry
	x.WeightMap = make(map[string]string, min(len(s.data)/usual, maxTensors))
	files := map[string]string{}
	s.expect('{')
	for first := true; s.more(&first, '}'); {
		key := string(s.key())
		value := s.str()
		file, ok := files[string(value)]
		if !ok {
			file = string(value)
			files[file] = file
		}
		if _, twice := x.WeightMap[key]; twice {
			s.fail("tensor %.100q appears twice", key)
		}
		if len(x.WeightMap) == maxTensors {
			s.fail("more than %d tensors", maxTensors)
			return
		}
		x.WeightMap[key] = file
	}
}

// maxMetadata is the most bytes of metadata that are decoded. Published indexes have about a
// hundred. Longer metadata is skipped, because decoding takes many times its size in memory.
const maxMetadata = 64 << 10

func (x *Index) metadata(s *scanner) {
	open := s.peek()
	from := s.pos
	s.skip(1)
	switch {
	case s.err != nil:
		return
	case open == '{' && s.pos-from > maxMetadata:
		x.Metadata, x.Large = nil, true
		return
	}
	d := json.NewDecoder(bytes.NewReader(s.data[from:s.pos]))
	d.UseNumber()
	if err := d.Decode(&x.Metadata); err != nil {
		s.fail("metadata: %w", err)
	}
}

// Encode returns the index as indented JSON with sorted keys. Metadata that JSON cannot hold is an
// error.
func (x *Index) Encode() ([]byte, error) {
	meta := x.Metadata
	if meta == nil {
		meta = map[string]any{}
	}
	m, err := json.MarshalIndent(meta, "  ", "  ")
	if err != nil {
		return nil, fmt.Errorf("index metadata: %w", err)
	}
	b := append(make([]byte, 0, 128*len(x.WeightMap)+len(m)+64), "{\n  \"metadata\": "...)
	b = append(append(b, m...), ",\n  \"weight_map\": "...)
	b = appendStrings(b, x.WeightMap, "\n    ", "\n  ")
	return append(b, "\n}\n"...), nil
}
