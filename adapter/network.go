package adapter

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
)

// isNetworked reports whether a store is read over a network.
func isNetworked(s source.Store) bool {
	_, ok := s.(source.Networked)
	return ok
}

// paceOf returns how many things are done at the same time with a store.
func paceOf(s source.Store) pace {
	if isNetworked(s) {
		return networkPace
	}
	return localPace
}

// Traffic counts what was transferred from the source. ok is false if the source is not read over a
// network.
func (c *Checkpoint) Traffic() (t source.Traffic, ok bool) {
	n, ok := c.store.(source.Networked)
	if ok {
		t = n.Traffic()
	}
	return t, ok
}

// descriptions are the files that are read to know which shards there are.
var descriptions = slices.Concat(
	[]string{configName, paramsName, indexName, mistralStem + indexEnd}, quantizeNames)

// begin begins to fetch the files that describe the checkpoint over a network, so that they come
// together.
func (d *folder) begin() {
	if !isNetworked(d.store) {
		return
	}
	d.begun = map[string]source.File{}
	for _, name := range descriptions {
		if !d.has(name) {
			continue
		}
		f, err := d.store.Open(d.ctx, name)
		if err != nil {
			continue // its reader gets the error
		}
		d.begun[name] = f
		fetchAhead(f, 0, min(f.Size(), maxIndex))
	}
}

// closeBegun closes the files that were fetched and not opened.
func (d *folder) closeBegun() {
	for _, f := range d.begun {
		_ = f.Close() // nothing was read from it
	}
}

// fetchAhead begins to fetch a range of a file over a network.
func fetchAhead(f source.File, off, n int64) {
	if a, ok := f.(source.Ahead); ok {
		a.Ahead(off, n) // without room, its reader waits
	}
}

// cuts has where the tensors of files begin that fetch whole sections. Until such a file is cut, it
// fetches exactly what is read. So small tensors are read first.
type cuts map[source.Sectioned][]int64

// add notes the tensors of a shard. All of them count, so that the sections do not depend on what
// is shown.
func (c cuts) add(f source.File, h *safetensors.Header) {
	s, ok := f.(source.Sectioned)
	if !ok {
		return
	}
	begins := make([]int64, len(h.Tensors))
	for i, t := range h.Tensors {
		begins[i] = h.DataOffset + t.Begin
	}
	slices.Sort(begins)
	c[s] = begins
}

// cut cuts the files.
func (c cuts) cut() {
	for f, begins := range c {
		f.Cut(begins)
	}
}

// reopened returns a file whose reads fetch exactly what is read, and a function that closes it.
func (c *Checkpoint) reopened(f source.File) (again source.File, done func(), err error) {
	if _, ok := f.(source.Sectioned); !ok {
		return f, func() {}, nil
	}
	again, err = c.store.Open(context.Background(), f.Name())
	if err != nil {
		return nil, nil, err
	}
	return again, func() { _ = again.Close() }, nil // it was only read
}

// Credentials names the credentials with which the source is read, without a secret. It is empty if
// none are used.
func (c *Checkpoint) Credentials() string {
	if a, ok := c.store.(source.Authenticated); ok {
		return a.Credentials()
	}
	return ""
}

// Probe is how fast a source answers.
type Probe struct {
	Answer time.Duration // until one byte was there
	Bytes  int64         // that one request asked for
	Took   time.Duration // that request
}

// Probe reads one byte, and then up to n bytes by one request, from the largest shard.
func (c *Checkpoint) Probe(ctx context.Context, n int64) (p Probe, err error) {
	largest := slices.MaxFunc(c.files[:len(c.shards)], func(a, b source.File) int {
		return cmp.Compare(a.Size(), b.Size())
	})
	f, done, err := c.reopened(largest)
	if err != nil {
		return p, err
	}
	defer done()
	p.Bytes = min(n, f.Size()/2)
	buf := make([]byte, max(p.Bytes, 1))
	begun := time.Now()
	if _, err := f.ReadAt(ctx, buf[:1], f.Size()-1); err != nil && !errors.Is(err, io.EOF) {
		return p, err
	}
	p.Answer = time.Since(begun)
	begun = time.Now()
	if _, err := f.ReadAt(ctx, buf[:p.Bytes], f.Size()/4); err != nil && !errors.Is(err, io.EOF) {
		return p, err
	}
	p.Took = time.Since(begun)
	return p, nil
}
