package export

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"syscall"

	"github.com/dequantfs/dequantfs/adapter/readback"
	"github.com/dequantfs/dequantfs/fs"
)

// Loaders begin with these files of a view, so they are written last.
const (
	configName = "config.json"
	indexName  = "model.safetensors.index.json"

	// in place of them in Mistral's own layout
	paramsName       = "params.json"
	mistralIndexName = "consolidated.safetensors.index.json"
)

// order divides the files into those that are written first, and those that are written when all
// others are finished.
func (m *Manifest) order() (first, last []FileRecord) {
	isLast := map[string]bool{}
	for _, v := range m.Views {
		for _, name := range []string{configName, indexName, paramsName, mistralIndexName} {
			isLast[path.Join(v.Dir, name)] = true
		}
	}
	for _, f := range m.Files {
		if isLast[f.Name] {
			last = append(last, f)
		} else {
			first = append(first, f)
		}
	}
	return first, last
}

// plan lists the files to write in this part, except those that are written last.
func (w *writer) plan() (todo []FileRecord, err error) {
	first, _ := w.manifest.order()
	var need int64
	var done []FileRecord
	for _, f := range share(first, w.options.Part, w.options.Parts) {
		if w.finished(f) != nil {
			done = append(done, f)
			continue
		}
		todo, need = append(todo, f), need+f.Size
	}
	w.tell(Event{Kind: Started, Bytes: need, Files: len(todo)})
	w.skip(done)
	return todo, w.fits(todo, need)
}

// share returns part i of n. It gives the largest files out first, each to the part with the
// fewest bytes.
func share(files []FileRecord, i, n int) []FileRecord {
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b FileRecord) int { return cmp.Compare(b.Size, a.Size) })
	load := make([]int64, n)
	var mine []FileRecord
	for _, f := range files {
		least := slices.Index(load, slices.Min(load))
		load[least] += f.Size + 1
		if least == i {
			mine = append(mine, f)
		}
	}
	slices.SortFunc(mine, func(a, b FileRecord) int { return cmp.Compare(a.Name, b.Name) })
	return mine
}

// finished returns the record of a file that an earlier run finished, or nil.
func (w *writer) finished(f FileRecord) *FileRecord {
	s, err := openSource(w.tree, f)
	if err != nil {
		return nil
	}
	r, err := w.readRecord(s)
	if err != nil || r.check(true) != nil || !sameFile(*r, f) || w.whole(r, s) != nil {
		return nil
	}
	return r
}

// readRecord reads the record of a file.
func (w *writer) readRecord(s *source) (*FileRecord, error) {
	file, err := w.dir.open(recordOf(s.Name), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := new(FileRecord)
	return r, readback.DecodeFile(file, r, readback.Limits{Bytes: recordLimit(s.content)})
}

// recordLimit returns the largest size of the record of a file: see manifestLimit.
func recordLimit(content fs.ReaderAtContext) int64 {
	limit := int64(2 * maxNameBytes * 6)
	if n := dataOffset(content); n <= content.Size() {
		limit += 8 * n
	}
	return limit
}

// whole returns an error if a file and its record do not have the size and tensors of the tree.
func (w *writer) whole(r *FileRecord, s *source) error {
	if err := w.hasSize(r); err != nil {
		return err
	}
	if tensor, problem := r.disagree(s.Tensors); problem != "" {
		return fmt.Errorf("%s: %s %s", w.dir.name(r.Name), tensor, problem)
	}
	return nil
}

// hasSize returns an error if a file does not have the size in its record.
func (w *writer) hasSize(r *FileRecord) error {
	info, err := w.dir.expect(r.Name, 0)
	if err == nil && info.Size() != r.Size {
		err = fmt.Errorf("%s has %d bytes, not %d", w.dir.name(r.Name), info.Size(), r.Size)
	}
	return err
}

// fits returns an error if the disk has not enough room.
func (w *writer) fits(todo []FileRecord, need int64) error {
	free, ok := freeSpace(w.path)
	if free += w.partialBytes(todo); ok && free < need {
		return fmt.Errorf("%s: %d bytes are to be written, but only %d are free: %w",
			w.path, need, free, syscall.ENOSPC)
	}
	return nil
}

// partialBytes returns the room that unfinished files take. It becomes free when they are replaced.
func (w *writer) partialBytes(todo []FileRecord) (n int64) {
	for _, f := range todo {
		if info, err := w.dir.expect(partialOf(f.Name), 0); err == nil {
			n += allocated(info)
		}
	}
	return n
}
