package fs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"

	"github.com/dequantfs/dequantfs/adapter"
)

// ControlDir is a directory in the root of the tree with facts about the filesystem. It is not
// listed, so copies of the tree do not contain it. Its files are opened by name:
//
//   - stats.json: Stats at the time when the file is opened or, without a mount, read
//   - plan.json: the virtual tensors of each view, with file, dtype, shape, bytes, recipe
//   - report.json: the fate of every key of the source in each view
//
// Their sizes are unknown until they are opened. Through a mount, stat shows 0.
const ControlDir = ".dequantfs"

// controlFiles are generated when they are opened.
var controlFiles = map[string]func(f *FS) any{
	"stats.json":  func(f *FS) any { return f.Stats() },
	"plan.json":   func(f *FS) any { return f.describe() },
	"report.json": func(f *FS) any { return f.report() },
}

// PlannedView is a view in plan.json.
type PlannedView struct {
	Dir     string          `json:"dir"`
	Layout  string          `json:"layout"`
	DType   string          `json:"dtype"` // of dequantized and merged tensors
	Tensors []PlannedTensor `json:"tensors"`
}

// PlannedTensor is a virtual tensor in plan.json.
type PlannedTensor struct {
	Name   string  `json:"name"`
	File   string  `json:"file"`
	Offset int64   `json:"offset"` // of its first byte in the file
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape"`
	Bytes  int64   `json:"bytes"`
	Recipe string  `json:"recipe"`
}

// ReportedView is a view in report.json.
type ReportedView struct {
	Dir    string         `json:"dir"`
	Layout string         `json:"layout"`
	Keys   []ReportedKey  `json:"keys"`
	Count  map[string]int `json:"count"` // keys by fate
}

// ReportedKey is a key of the source in report.json.
type ReportedKey struct {
	Key    string   `json:"key"`
	Fate   string   `json:"fate"` // used, passed, dropped
	Reason string   `json:"reason,omitempty"`
	Into   []string `json:"into,omitempty"`
}

// describe returns the contents of plan.json.
func (f *FS) describe() []PlannedView {
	places := map[string]map[string]PlannedTensor{}
	f.eachFile(func(dir, name string, v *file) {
		if places[dir] == nil {
			places[dir] = map[string]PlannedTensor{}
		}
		for i, s := range v.segments[1:] {
			places[dir][s.key] = PlannedTensor{File: name, Offset: v.ends[i]}
		}
	})
	var all []PlannedView
	for _, v := range f.views {
		o := v.Plan.Options
		view := PlannedView{Dir: v.Dir, Layout: o.Layout, DType: o.DType.String()}
		for _, t := range v.Plan.Tensors {
			p := places[v.Dir][t.Name]
			p.Name, p.DType, p.Shape = t.Name, t.Node.DType().String(), t.Node.Shape()
			p.Bytes, p.Recipe = t.Node.Size(), t.Node.String()
			view.Tensors = append(view.Tensors, p)
		}
		all = append(all, view)
	}
	return all
}

// eachFile visits the virtual files with their directories and names.
func (f *FS) eachFile(visit func(dir, name string, v *file)) {
	var walk func(dir string, n *node)
	walk = func(dir string, n *node) {
		for _, kid := range n.kids {
			if v, ok := kid.content.(*file); ok {
				visit(dir, kid.name, v)
			} else if kid.content == nil {
				walk(path.Join(dir, kid.name), kid)
			}
		}
	}
	walk("", f.root)
}

// report returns the contents of report.json.
func (f *FS) report() []ReportedView {
	var all []ReportedView
	for _, v := range f.views {
		view := ReportedView{Dir: v.Dir, Layout: v.Plan.Options.Layout, Count: map[string]int{}}
		for _, a := range v.Plan.Account {
			view.Keys = append(view.Keys, reported(a))
			view.Count[a.Fate.String()]++
		}
		all = append(all, view)
	}
	return all
}

func reported(a adapter.Account) ReportedKey {
	return ReportedKey{Key: a.Key, Fate: a.Fate.String(), Reason: a.Reason, Into: a.Into}
}

// control is a file that is generated for each reader.
type control struct {
	fs   *FS
	name string
}

// snapshot generates the bytes of the file.
func (c *control) snapshot() (data []byte, err error) {
	defer c.fs.units.Recover(c.name, &err)
	data, err = json.MarshalIndent(controlFiles[c.name](c.fs), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return append(data, '\n'), nil
}

// Size is 0, since the size is unknown before the file is opened.
func (c *control) Size() int64 { return 0 }

// ReadAt reads from a new snapshot.
func (c *control) ReadAt(p []byte, off int64) (int, error) {
	return c.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext reads from a new snapshot.
func (c *control) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	data, err := c.snapshot()
	if err != nil {
		return 0, err
	}
	return bytes.NewReader(data).ReadAt(p, off)
}

// open makes a snapshot for one reader.
func (c *control) open() (*io.SectionReader, error) {
	data, err := c.snapshot()
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), nil
}

// control adds the control directory, which is not listed.
func (b *builder) control() {
	d := b.dir(ControlDir)
	for name := range controlFiles {
		n := &node{
			name: name, ino: b.ino(path.Join(ControlDir, name)), mode: 0o444,
			content: &control{b.fs, name},
		}
		d.byName[name] = n
		d.kids = append(d.kids, n)
	}
	if b.fs.root.byName[ControlDir] == nil { // unless a view has that name
		b.fs.root.byName[ControlDir] = d
	}
	b.hidden = d // finish gives its nodes their times
}
