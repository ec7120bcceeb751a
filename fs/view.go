package fs

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

const (
	shardEnd   = ".safetensors"
	indexEnd   = ".safetensors.index.json"
	singleName = "model.safetensors"
	configName = "config.json"
	paramsName = "params.json"
	dataAlign  = 4096
)

// shard is a virtual file that is being laid out.
type shard struct {
	name    string
	group   string
	ofRank  bool // see adapter.Tensor
	tensors []adapter.Tensor
	bytes   int64 // upper bound of the file's size
}

// view adds the files of one view to the tree.
func (b *builder) view(v View) error {
	d, err := b.mkdir(v.Dir)
	if err != nil {
		return err
	}
	shards := split(v.Plan.Tensors, v.ShardSize, b.single())
	stem := b.stem()
	nameShards(shards, stem)
	index := &safetensors.Index{WeightMap: make(map[string]string, len(v.Plan.Tensors))}
	var total int64
	for _, s := range shards {
		if err := b.shard(d, v, s); err != nil {
			return err
		}
		for _, t := range s.tensors {
			if other, ok := index.WeightMap[t.Name]; ok {
				return fmt.Errorf("%s: tensor is in both %s and %s", t.Name, other, s.name)
			}
			index.WeightMap[t.Name] = s.name
			total += t.Node.Size()
		}
	}
	if len(shards) != 1 || shards[0].name != stem+shardEnd {
		index.Metadata = map[string]any{"total_size": total}
		if n := v.Plan.TensorParallel; n > 0 {
			index.Metadata["tp_size"] = n
		}
		data, err := index.Encode()
		if err != nil {
			return err
		}
		if err := b.blob(d, v.Dir, stem+indexEnd, data); err != nil {
			return err
		}
	}
	if err := b.configurations(d, v); err != nil {
		return err
	}
	return b.side(d, v.Dir)
}

// configurations adds config.json and params.json, if the view has them.
func (b *builder) configurations(d *node, v View) error {
	for _, f := range []struct {
		name string
		data []byte
	}{{configName, v.Plan.Config}, {paramsName, v.Plan.Params}} {
		if f.data == nil {
			continue
		}
		if err := b.blob(d, v.Dir, f.name, f.data); err != nil {
			return err
		}
	}
	return nil
}

// stem returns the beginning of the names of shards and of their index.
func (b *builder) stem() string {
	if b.fs.checkpoint == nil {
		return strings.TrimSuffix(singleName, shardEnd)
	}
	return b.fs.checkpoint.Stem()
}

// single reports whether the source is one file without a shard number. Its views are single files,
// too.
func (b *builder) single() bool {
	if b.fs.checkpoint == nil {
		return false
	}
	shards := b.fs.checkpoint.Shards()
	return len(shards) == 1 && !strings.Contains(shards[0], "-of-")
}

// split sorts the tensors into files: one for each group, or a single one. Experts of a rank have
// files of their own. A file larger than limit is cut.
func split(tensors []adapter.Tensor, limit int64, single bool) []*shard {
	type id struct {
		group  string
		ofRank bool
	}
	var groups []*shard
	byID := map[id]*shard{}
	for _, t := range tensors {
		at := id{t.Group, t.OfRank}
		if single {
			at.group = singleName
		}
		g := byID[at]
		if g == nil {
			g = &shard{group: at.group, ofRank: at.ofRank}
			byID[at] = g
			groups = append(groups, g)
		}
		g.tensors = append(g.tensors, t)
	}
	groups = ownFirst(groups)
	if limit <= 0 {
		return groups
	}
	var out []*shard
	for _, g := range groups {
		out = append(out, g.cut(limit)...)
	}
	return out
}

// cut splits a group into files of at most limit bytes. A file with one tensor may be larger.
func (g *shard) cut(limit int64) []*shard {
	const overhead = dataAlign + 64 // header length, metadata, padding
	var out []*shard
	var s *shard
	for _, t := range g.tensors {
		n := t.Node.Size() + headerBytes(t)
		if s == nil || s.bytes+n > limit {
			s = &shard{group: g.group, ofRank: g.ofRank, bytes: overhead}
			out = append(out, s)
		}
		s.tensors = append(s.tensors, t)
		s.bytes += n
	}
	if len(out) == 1 {
		return []*shard{g}
	}
	for _, s := range out {
		s.group = "" // the source has no such file
	}
	return out
}

// headerBytes returns the most bytes that a tensor takes in a header.
func headerBytes(t adapter.Tensor) int64 {
	return int64(6*len(t.Name) + 24*len(t.Node.Shape()) + 128)
}

// nameShards names the files. They keep the source's names if each file is a file of the source.
// Otherwise they are numbered. A single file is model.safetensors, or consolidated.safetensors if
// that is the stem.
//
// One of several files is never called model.safetensors: transformers would read only that one.
func nameShards(shards []*shard, stem string) {
	numbered := false
	for _, s := range shards {
		stored := strings.HasSuffix(s.group, shardEnd) && path.Base(s.group) == s.group
		if !stored || len(shards) > 1 && s.group == stem+shardEnd {
			numbered = true
		}
	}
	for i, s := range shards {
		s.name = s.group
		if numbered {
			s.name = fmt.Sprintf("%s-%05d-of-%05d%s", stem, i+1, len(shards), shardEnd)
		}
	}
	if len(shards) == 1 && (numbered || !strings.Contains(shards[0].name, "-of-")) {
		shards[0].name = stem + shardEnd
	}
}

// shard adds one virtual file. Its tensors are ordered by item size, largest first, then by key. A
// file without experts may be that of another rank.
func (b *builder) shard(d *node, v View, s *shard) error {
	tensors := slices.Clone(s.tensors)
	slices.SortStableFunc(tensors, func(x, y adapter.Tensor) int {
		if c := cmp.Compare(y.Node.DType().Bits(), x.Node.DType().Bits()); c != 0 {
			return c
		}
		return cmp.Compare(x.Name, y.Name)
	})
	entries := make([]safetensors.Tensor, len(tensors))
	for i, t := range tensors {
		entries[i] = safetensors.Tensor{Name: t.Name, DType: t.Node.DType(), Shape: t.Node.Shape()}
	}
	h, header, err := safetensors.NewHeader(entries, map[string]string{"format": "pt"}, dataAlign)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	f := &file{
		fs: b.fs, name: path.Join(v.Dir, s.name), header: header,
		ends: []int64{h.DataOffset}, segments: []*segment{{}},
	}
	for i, t := range tensors {
		if got := h.Tensors[i].End - h.Tensors[i].Begin; got != t.Node.Size() {
			return fmt.Errorf("%s: %s: recipe gives %d bytes, its shape and dtype %d",
				s.name, t.Name, t.Node.Size(), got)
		}
		if t.Node.Size() > 0 {
			f.segments = append(f.segments, &segment{key: t.Name, node: t.Node})
			f.ends = append(f.ends, h.DataOffset+h.Tensors[i].End)
		}
	}
	if v.Plan.Options.EP.Size > 1 && !s.ofRank {
		return b.share(d, v.Dir, s.name, f)
	}
	return b.file(d, v.Dir, s.name, f, b.perm, time.Time{})
}

// attributes narrows perm to what a source file permits, and moves mtime forward to its time.
func (b *builder) attributes(f expr.File, perm uint32, mtime time.Time) (uint32, time.Time) {
	perm &= uint32(f.Mode())
	if t := f.ModTime(); t.After(mtime) {
		mtime = t
	}
	if mtime.After(b.mtime) {
		b.mtime = mtime
	}
	return perm, mtime
}

// blob adds a file with the given bytes.
func (b *builder) blob(d *node, dir, name string, data []byte) error {
	c := &section{
		fs: b.fs, name: path.Join(dir, name),
		read: without(bytes.NewReader(data)), size: int64(len(data)),
	}
	return b.file(d, dir, name, c, b.perm, time.Time{})
}

// side adds the checkpoint's side files, except those that the view writes itself. Files of
// subfolders are in subfolders of the view.
func (b *builder) side(d *node, dir string) error {
	if b.fs.checkpoint == nil {
		return nil
	}
	for i, s := range b.fs.checkpoint.SideFiles() {
		if d.byName[s.Name] != nil || strings.HasSuffix(s.Name, shardEnd) ||
			s.Name == b.stem()+indexEnd {
			continue
		}
		at, name := dir, s.Name
		if folder := path.Dir(s.Name); folder != "." {
			at, name = path.Join(dir, folder), path.Base(s.Name)
		}
		parent, err := b.mkdir(at)
		if err != nil {
			return err
		}
		_, mtime := b.attributes(s.File, 0o444, time.Time{})
		c := &section{fs: b.fs, name: path.Join(at, name), read: s.File.ReadAt, size: s.Size}
		if err := b.file(parent, at, name, c, s.Mode, mtime); err != nil {
			return err
		}
		parent.byName[name].side = i + 1
		for folder := path.Dir(s.Name); folder != "."; folder = path.Dir(folder) {
			d, err := b.mkdir(path.Join(dir, folder))
			if err != nil {
				return err
			}
			d.folder = folder
		}
	}
	return nil
}
