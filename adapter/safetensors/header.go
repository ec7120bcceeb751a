package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

const (
	lengthBytes    = 8           // of the number in front of the header
	maxHeaderBytes = 100_000_000 // the format's limit
	metadataKey    = "__metadata__"

	// minEntry is less than the shortest entry that describes a tensor takes.
	minEntry = len(`"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}`)

	maxMetadataEntries = 1 << 16 // published files have a handful

	maxRank = 64   // dimensions of a tensor; what NumPy and PyTorch can hold
	maxName = 4096 // bytes of a tensor's name, so that messages stay readable

	maxTensors = 1 << 20 // of a file or an index; the largest published checkpoints have a third of it
)

// Tensor is one entry of a header.
type Tensor struct {
	Name       string
	DType      DType
	Shape      []int64
	Begin, End int64 // bytes, relative to Header.DataOffset
}

// Header is the parsed and validated header of one file.
type Header struct {
	Tensors    []Tensor // in the order of their data
	Metadata   map[string]string
	DataOffset int64 // of the first tensor's first byte in the file
}

// ReadHeader parses and validates the header of a file of size bytes.
func ReadHeader(r io.ReaderAt, size int64) (*Header, error) {
	data, err := readHeaderBytes(r, size)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(data) {
		return nil, errors.New("the header is not UTF-8")
	}
	h := &Header{DataOffset: lengthBytes + int64(len(data))}
	p := headerParser{scanner: scanner{data: data}, header: h}
	if err := p.parse(); err != nil {
		return nil, err
	}
	return h, h.validate(size)
}

// readHeaderBytes reads what stands between the length and the data.
func readHeaderBytes(r io.ReaderAt, size int64) ([]byte, error) {
	if size < lengthBytes {
		return nil, fmt.Errorf("not a safetensors file: %d bytes are less than the %d of the header's length", size, lengthBytes)
	}
	var length [lengthBytes]byte
	if err := readFull(r, length[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	switch {
	case n > maxHeaderBytes:
		return nil, fmt.Errorf("header of %d bytes, at most %d are allowed: not a safetensors file, or a damaged one", n, maxHeaderBytes)
	case int64(n) > size-lengthBytes:
		return nil, fmt.Errorf("header of %d bytes in a file of %d: the file is truncated", n, size)
	case n == 0:
		return nil, errors.New("the header is empty")
	}
	data := make([]byte, n)
	return data, readFull(r, data, lengthBytes)
}

// readFull reads all of p: an io.ReaderAt may report the end of the file with a full read.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading the header: %w", err)
}

// headerParser fills a header from its JSON.
type headerParser struct {
	scanner
	header *Header
	seen   map[string]struct{}
	arena  []int64 // shapes are cut from it, so that few allocations hold many
}

func (p *headerParser) parse() error {
	if p.data[0] != '{' {
		return errors.New("the header does not begin with a brace")
	}
	n := min(bytes.Count(p.data, []byte(`"data_offsets"`)), len(p.data)/minEntry+1, maxTensors)
	p.header.Tensors = make([]Tensor, 0, n)
	p.seen = make(map[string]struct{}, n)
	p.arena = make([]int64, 0, 2*n)
	p.pos++
	for first := true; p.more(&first, '}'); {
		p.entry()
	}
	p.end()
	if p.err != nil {
		return fmt.Errorf("bad header: %w", p.err)
	}
	return nil
}

// entry reads one member of the header.
func (p *headerParser) entry() {
	key := p.key()
	if p.err != nil {
		return
	}
	if len(key) == 0 || len(key) > maxName {
		p.fail("a tensor's name of %d bytes, 1 to %d are allowed", len(key), maxName)
		return
	}
	if _, twice := p.seen[string(key)]; twice {
		p.fail("tensor %q is in it twice", key)
		return
	}
	name := string(key)
	p.seen[name] = struct{}{}
	if name == metadataKey {
		p.metadata()
		return
	}
	t, err := p.tensor(name)
	if p.err != nil {
		p.err = fmt.Errorf("tensor %q: %w", name, p.err)
		return
	}
	if err != nil {
		p.fail("tensor %q: %w", name, err)
		return
	}
	if len(p.header.Tensors) == maxTensors {
		p.fail("more than %d tensors", maxTensors)
		return
	}
	p.header.Tensors = append(p.header.Tensors, t)
}

// metadata reads the map of strings; null is the same as none.
func (p *headerParser) metadata() {
	if p.peek() == 'n' {
		p.literal()
		return
	}
	m := map[string]string{}
	p.expect('{')
	for first := true; p.more(&first, '}'); {
		k := string(p.key())
		if _, twice := m[k]; twice {
			p.fail("%.100q is in it twice", k)
		}
		if len(m) == maxMetadataEntries {
			p.fail("more than %d entries", maxMetadataEntries)
		}
		m[k] = string(p.str())
	}
	if p.err != nil {
		p.err = fmt.Errorf("%s: %w", metadataKey, p.err)
	}
	p.header.Metadata = m
}

// tensor reads the object that describes one tensor.
func (p *headerParser) tensor(name string) (Tensor, error) {
	const dtype, shape, offsets = 1, 2, 4
	t, seen := Tensor{Name: name}, 0
	once := func(field int) {
		if seen&field != 0 {
			p.fail("a field is in it twice")
		}
		seen |= field
	}
	var err error
	p.expect('{')
	for first := true; err == nil && p.more(&first, '}'); {
		switch k := p.key(); string(k) {
		case "dtype":
			once(dtype)
			t.DType, err = p.dtype()
		case "shape":
			once(shape)
			t.Shape = p.shape()
		case "data_offsets":
			once(offsets)
			t.Begin, t.End = p.offsets()
		default:
			p.skip(2)
		}
	}
	if err == nil && seen != dtype|shape|offsets {
		err = errors.New("dtype, shape or data_offsets is missing")
	}
	return t, err
}

func (p *headerParser) dtype() (DType, error) {
	s := p.str()
	if d, ok := dtypeByName[string(s)]; ok || p.err != nil {
		return d, nil
	}
	return ParseDType(string(s[:min(len(s), 100)]))
}

func (p *headerParser) shape() []int64 {
	p.expect('[')
	from := len(p.arena)
	for first := true; p.more(&first, ']'); {
		if len(p.arena)-from == maxRank {
			p.fail("more than %d dimensions", maxRank)
			return nil
		}
		if len(p.arena) == cap(p.arena) {
			// What was cut off stays where it is; the shape at hand moves on.
			begun := p.arena[from:]
			p.arena = append(make([]int64, 0, 16*maxRank), begun...)
			from = 0
		}
		p.arena = append(p.arena, p.size())
	}
	return p.arena[from:len(p.arena):len(p.arena)]
}

func (p *headerParser) offsets() (begin, end int64) {
	p.expect('[')
	begin = p.size()
	p.expect(',')
	end = p.size()
	p.expect(']')
	return begin, end
}

// validate sorts the tensors by their data and checks that they fill the file.
func (h *Header) validate(size int64) error {
	byData := func(a, b Tensor) int { return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End)) }
	if !slices.IsSortedFunc(h.Tensors, byData) {
		slices.SortStableFunc(h.Tensors, byData)
	}
	room, at := size-h.DataOffset, int64(0)
	for i := range h.Tensors {
		t := &h.Tensors[i]
		if err := t.validate(at, room); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		at = t.End
	}
	if at != room {
		return fmt.Errorf("%d bytes more in the file than its header describes", room-at)
	}
	return nil
}

// validate checks a tensor that should begin at byte at of room bytes of data.
func (t *Tensor) validate(at, room int64) error {
	size, err := Size(t.DType, t.Shape)
	switch {
	case err != nil:
		return err
	case t.End < t.Begin:
		return fmt.Errorf("data_offsets [%d,%d] end before they begin", t.Begin, t.End)
	case t.End-t.Begin != size:
		return fmt.Errorf("data_offsets [%d,%d] hold %d bytes, %v of shape %v takes %d", t.Begin, t.End, t.End-t.Begin, t.DType, t.Shape, size)
	case t.Begin > at:
		return fmt.Errorf("a hole of %d bytes before its data_offsets [%d,%d]", t.Begin-at, t.Begin, t.End)
	case t.Begin < at:
		return fmt.Errorf("data_offsets [%d,%d] overlap the tensor before it, which ends at %d", t.Begin, t.End, at)
	case t.End > room:
		return fmt.Errorf("ends at byte %d of the data, the file has %d: it is truncated", t.End, room)
	}
	return nil
}
