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
	lengthBytes    = 8           // bytes of the number before the header
	maxHeaderBytes = 100_000_000 // the format's limit
	metadataKey    = "__metadata__"

	// minEntry is a lower bound of the bytes of an entry that describes a tensor.
	minEntry = len(`"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}`)

	maxMetadataEntries = 1 << 16 // published files have a handful

	maxRank = 64   // dimensions of a tensor; NumPy and PyTorch allow no more
	maxName = 4096 // bytes of a tensor's name; keeps messages readable

	// maxTensors limits a file and an index. The largest published checkpoints have a third of it.
	maxTensors = 1 << 20
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
	DataOffset int64 // offset in the file of the first tensor's first byte
}

// ReadHeader parses and validates the header of a file of size bytes. Its errors name the tensor,
// but not the file. The package comment lists the rules.
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

// readHeaderBytes reads the JSON between the length and the data.
func readHeaderBytes(r io.ReaderAt, size int64) ([]byte, error) {
	if size < lengthBytes {
		return nil, fmt.Errorf("not a safetensors file: it has %d bytes, "+
			"the length of the header alone takes %d", size, lengthBytes)
	}
	var length [lengthBytes]byte
	if err := readFull(r, length[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	switch {
	case n > maxHeaderBytes:
		return nil, fmt.Errorf("header of %d bytes, at most %d are allowed: "+
			"not a safetensors file, or a damaged one", n, maxHeaderBytes)
	case int64(n) > size-lengthBytes:
		err := fmt.Errorf("header of %d bytes in a file of %d: the file is truncated", n, size)
		return nil, kindError{err, ErrTruncated}
	case n == 0:
		return nil, errors.New("the header is empty")
	}
	data := make([]byte, n)
	return data, readFull(r, data, lengthBytes)
}

// readFull reads all of p. It ignores an end of file that is reported together with a full read.
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
	arena  []int64 // shapes are slices of it, which saves an allocation for each tensor
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
		return kindError{fmt.Errorf("bad header: %w", p.err), ErrDamaged}
	}
	return nil
}

// entry reads one member of the header.
func (p *headerParser) entry() {
	name := p.name()
	switch {
	case p.err != nil:
		return
	case name == metadataKey:
		p.metadata()
		return
	}
	t, err := p.tensor(name)
	switch {
	case p.err != nil:
		p.err = fmt.Errorf("tensor %q: %w", name, p.err)
	case err != nil:
		p.fail("tensor %q: %w", name, err)
	case len(p.header.Tensors) == maxTensors:
		p.fail("more than %d tensors", maxTensors)
	default:
		p.header.Tensors = append(p.header.Tensors, t)
	}
}

// name reads the key of an entry and checks that it is new.
func (p *headerParser) name() string {
	key := p.key()
	if p.err == nil && (len(key) == 0 || len(key) > maxName) {
		p.fail("a name of %d bytes for a tensor, 1 to %d are allowed", len(key), maxName)
	}
	if _, twice := p.seen[string(key)]; twice {
		p.fail("tensor %q appears twice", key)
	}
	name := string(key)
	p.seen[name] = struct{}{}
	return name
}

// metadata reads the map of strings. A null is an empty map.
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
			p.fail("%.100q appears twice", k)
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

// The fields of an entry, as bits.
const (
	dtypeField = 1 << iota
	shapeField
	offsetsField
	allFields = dtypeField | shapeField | offsetsField
)

// tensor reads the object that describes one tensor.
func (p *headerParser) tensor(name string) (t Tensor, err error) {
	t.Name = name
	seen := 0
	p.expect('{')
	for first := true; err == nil && p.more(&first, '}'); {
		var field int
		field, err = p.field(&t)
		if seen&field != 0 {
			p.fail("a field appears twice")
		}
		seen |= field
	}
	if err == nil && seen != allFields {
		err = errors.New("dtype, shape or data_offsets is missing")
	}
	return t, err
}

// field reads one member of an entry into t and returns its bit, 0 for an unknown field.
func (p *headerParser) field(t *Tensor) (field int, err error) {
	switch k := p.key(); string(k) {
	case "dtype":
		t.DType, err = p.dtype()
		return dtypeField, err
	case "shape":
		t.Shape = p.shape()
		return shapeField, nil
	case "data_offsets":
		t.Begin, t.End = p.offsets()
		return offsetsField, nil
	}
	p.skip(2)
	return 0, nil
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
			// Earlier shapes keep the old array. Only the current shape moves to the new one.
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
	byData := func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End))
	}
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
		err := fmt.Errorf("%d bytes more in the file than its header describes", room-at)
		return kindError{err, ErrDamaged}
	}
	return nil
}

// validate checks a tensor that must begin at byte at. The file has room bytes of data.
func (t *Tensor) validate(at, room int64) error {
	if err := t.place(at); err != nil {
		return kindError{err, ErrDamaged}
	}
	if t.End > room {
		err := fmt.Errorf("ends at byte %d of the data, the file has %d: it is truncated", t.End,
			room)
		return kindError{err, ErrTruncated}
	}
	return nil
}

// place checks where the data of a tensor is that must begin at byte at.
func (t *Tensor) place(at int64) error {
	size, err := Size(t.DType, t.Shape)
	switch {
	case err != nil:
		return err
	case t.End < t.Begin:
		return fmt.Errorf("data_offsets [%d,%d] end before they begin", t.Begin, t.End)
	case t.End-t.Begin != size:
		return fmt.Errorf("data_offsets [%d,%d] hold %d bytes, %v of shape %v takes %d",
			t.Begin, t.End, t.End-t.Begin, t.DType, t.Shape, size)
	case t.Begin > at:
		return fmt.Errorf("a hole of %d bytes before its data_offsets [%d,%d]",
			t.Begin-at, t.Begin, t.End)
	case t.Begin < at:
		return fmt.Errorf("data_offsets [%d,%d] overlap the tensor before it, which ends at %d",
			t.Begin, t.End, at)
	}
	return nil
}
