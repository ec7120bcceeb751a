// Package synth writes synthetic checkpoints for tests, benchmarks and the Python suites.
//
// Two kinds. [DeepSeek] makes a small, whole DeepSeek-V3-like checkpoint in memory
// from a seed; every shape is an option, so that sizes which are no multiples of
// the block, odd prefixes, scales in another shard and so on are one field each:
//
//	c := synth.DeepSeek(synth.Options{Experts: 12, Hidden: 200, ScalesApart: true, Shards: 3})
//	err := c.Write(dir)
//	want := c.Native("BF16", 0, 1) // what a reader of the native view must see
//
// [WriteFull] writes the published model's full size, 689 GB in 163 shards, as
// sparse files: real keys and shapes, holes for data, and known codes and scales at
// a few thousand positions that [Full.Seeds] lists with the value expected.
//
// The package shares no code with the program. [Checkpoint.Value], [Checkpoint.Native]
// and [Checkpoint.HF] are slow, go element by element, and serve as the oracle.
package synth

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Tensor is one stored tensor.
type Tensor struct {
	Name  string
	DType string // the format's name: "F8_E4M3", "BF16", "F32", …
	Shape []int64
	Data  []byte // row-major, little-endian; nil is a hole of the right length
	Shard int    // counted from 0
}

// Size is the number of bytes of the tensor.
func (t *Tensor) Size() int64 {
	n := int64(Width(t.DType))
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Width is the number of bytes of one element.
func Width(dtype string) int {
	switch dtype {
	case "F64", "I64", "U64":
		return 8
	case "F32", "I32", "U32":
		return 4
	case "BF16", "F16", "I16", "U16":
		return 2
	}
	return 1
}

// Checkpoint is a directory to be written. Tests may change any of it before Write.
type Checkpoint struct {
	Config  map[string]any
	Tensors []Tensor
	Single  bool              // model.safetensors without an index
	NoIndex bool              // shards without an index
	Side    map[string][]byte // further files, by name

	block  [2]int64
	places map[string]place
}

// place is where a written tensor's data lies.
type place struct {
	file   string
	offset int64
}

// Find gives the tensor of that name, or nil.
func (c *Checkpoint) Find(name string) *Tensor {
	for i := range c.Tensors {
		if c.Tensors[i].Name == name {
			return &c.Tensors[i]
		}
	}
	return nil
}

// Shards is the number of files that Write makes.
func (c *Checkpoint) Shards() int {
	n := 1
	for i := range c.Tensors {
		n = max(n, c.Tensors[i].Shard+1)
	}
	return n
}

// ShardName names shard i, counted from 0.
func (c *Checkpoint) ShardName(i int) string {
	if c.Single {
		return "model.safetensors"
	}
	return fmt.Sprintf("model-%05d-of-%06d.safetensors", i+1, c.Shards())
}

// Write writes the checkpoint into dir, which is made if it is missing.
func (c *Checkpoint) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	c.places = make(map[string]place, len(c.Tensors))
	byShard := make([][]*Tensor, c.Shards())
	for i := range c.Tensors {
		t := &c.Tensors[i]
		if t.Data != nil && int64(len(t.Data)) != t.Size() {
			return fmt.Errorf("synth: %s has %d bytes, its shape asks for %d", t.Name, len(t.Data),
				t.Size())
		}
		byShard[t.Shard] = append(byShard[t.Shard], t)
	}
	for i, ts := range byShard {
		if err := c.writeShard(filepath.Join(dir, c.ShardName(i)), ts); err != nil {
			return err
		}
	}
	return c.writeRest(dir)
}

// writeShard writes one file in the order of the reference serializer.
func (c *Checkpoint) writeShard(path string, ts []*Tensor) error {
	slices.SortFunc(ts, func(a, b *Tensor) int {
		if d := Width(b.DType) - Width(a.DType); d != 0 {
			return d
		}
		return compare(a.Name, b.Name)
	})
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := header(ts)
	w := bufio.NewWriter(f)
	_, _ = w.Write(head) // Flush tells of a failure
	off := int64(len(head))
	for _, t := range ts {
		c.places[t.Name] = place{path, off}
		off += t.Size()
		if t.Data != nil {
			_, _ = w.Write(t.Data)
		} else if err := skip(w, f, off); err != nil { // leave a hole
			return err
		}
	}
	if err := errors.Join(w.Flush(), f.Truncate(off)); err != nil {
		return err
	}
	return f.Close()
}

// skip continues to write a file at an offset.
func skip(w *bufio.Writer, f *os.File, off int64) error {
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := f.Seek(off, io.SeekStart)
	return err
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// header encodes the length and the JSON header, padded to a multiple of eight.
func header(ts []*Tensor) []byte {
	b := make([]byte, 8, 8+len(ts)*160)
	b = append(b, `{"__metadata__":{"format":"pt"}`...)
	off := int64(0)
	for _, t := range ts {
		b = append(b, ',')
		name, _ := json.Marshal(t.Name) // a string cannot fail
		b = append(b, name...)
		b = append(b, `:{"dtype":"`...)
		b = append(b, t.DType...)
		b = append(b, `","shape":[`...)
		for i, d := range t.Shape {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, d, 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = strconv.AppendInt(b, off, 10)
		off += t.Size()
		b = append(b, ',')
		b = strconv.AppendInt(b, off, 10)
		b = append(b, "]}"...)
	}
	b = append(b, '}')
	for len(b)%8 != 0 {
		b = append(b, ' ')
	}
	for i, n := 0, uint64(len(b)-8); i < 8; i++ {
		b[i] = byte(n >> (8 * i))
	}
	return b
}

// writeRest writes config.json, the index and the side files.
func (c *Checkpoint) writeRest(dir string) error {
	files := map[string][]byte{}
	for name, data := range c.Side {
		files[name] = data
	}
	if c.Config != nil {
		b, err := json.MarshalIndent(c.Config, "", "  ")
		if err != nil {
			return err
		}
		files["config.json"] = append(b, '\n')
	}
	if !c.Single && !c.NoIndex {
		b, err := c.index()
		if err != nil {
			return err
		}
		files["model.safetensors.index.json"] = b
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checkpoint) index() ([]byte, error) {
	names := make([]string, c.Shards())
	for i := range names {
		names[i] = c.ShardName(i)
	}
	total := int64(0)
	weightMap := make(map[string]string, len(c.Tensors))
	for i := range c.Tensors {
		t := &c.Tensors[i]
		weightMap[t.Name] = names[t.Shard]
		total += t.Size()
	}
	return json.MarshalIndent(map[string]any{
		"metadata":   map[string]any{"total_size": total},
		"weight_map": weightMap,
	}, "", "  ")
}
