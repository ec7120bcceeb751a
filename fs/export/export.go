// Package export writes a tree of views to disk and verifies what is there.
package export

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dequantfs/dequantfs/adapter/readback"
	"github.com/dequantfs/dequantfs/fs"
)

// Files of a view that get their names last: loaders start with them.
const (
	configName = "config.json"
	indexName  = "model.safetensors.index.json"
)

// What an export keeps beside its files. A dot-directory, so that no loader and no view of the
// export takes it for a part of the checkpoint.
const (
	stateDir     = ".dequantfs"
	manifestName = "manifest.json" // once all is written
	exportName   = "export.json"   // what is being exported; until then
	recordsDir   = "records"       // one record for each finished file; until then
	partialDir   = "partial"       // files being written; until then
)

// Options say how an export is written. Useful zero values.
type Options struct {
	Part, Parts int // this process writes part Part (from 0) of Parts; Parts 0: all
	Jobs        int // files written at once; 0: one for each processor, at least 2 and at most 8

	// Progress is told what happens, one event after the other, never two at once.
	Progress func(Event)

	chunk int // bytes read and written at a time; 0: chunkSize
}

// Event is one thing that happened during an export.
type Event struct {
	Kind  EventKind
	File  string // Written, Finished, Skipped
	Bytes int64  // of the file (Finished, Skipped), of this piece (Written), to be written (Started)
	Files int    // Started: to be written
}

// EventKind says what happened.
type EventKind string

// What can happen.
const (
	Started  EventKind = "started"  // the work is known
	Written  EventKind = "written"  // a piece of a file was written
	Finished EventKind = "finished" // a file is whole, on disk, and under its name
	Skipped  EventKind = "skipped"  // a file was finished by an earlier run
	Complete EventKind = "complete" // all parts are done and the manifest is written
)

const (
	chunkSize      = 8 << 20
	buffersPerFile = 3 // for each file being written: one filled, one written, one between
)

// Tree is the tree of files to export. It is an [fs.FS] outside of tests.
type Tree interface {
	iofs.FS // lists the files

	// ReaderAt opens a file for reads that can be cancelled.
	ReaderAt(name string) (fs.ReaderAtContext, error)
	// Views returns the views that the files belong to.
	Views() []fs.View
	// Fingerprint identifies the source of the files.
	Fingerprint() (string, error)
}

// Write writes every file of the tree into dir, which is made if it is missing: the bytes that a
// mount shows, read in the same way.
//
// A file gets its name only once it is whole and on disk, and config.json and the index get theirs
// last, so that an unfinished export is not taken for a checkpoint. An export that was
// interrupted in whatever way goes on where it was when Write is called again; finished
// files are not written again. A directory that holds anything but an export of the same tree is
// refused. Several processes may share the work (Options.Parts); the one that
// finishes last writes the manifest, and to the others Write returns none.
func Write(ctx context.Context, t Tree, dir string, o Options) (*Manifest, error) {
	m, err := manifestOf(t)
	if err != nil {
		return nil, err
	}
	return newWriter(m, t, dir, o).run(ctx)
}

// writer is one run of Write.
type writer struct {
	manifest *Manifest // without checksums
	tree     Tree
	path     string
	dir      *directory
	options  Options
	made     map[string]iofs.FileMode // what is made in the state directory, and its type
	buffers  chan []byte
	mu       sync.Mutex // progress
}

func newWriter(m *Manifest, t Tree, dir string, o Options) *writer {
	o.Parts = max(o.Parts, 1)
	o.Jobs = cmp.Or(max(o.Jobs, 0), min(max(runtime.GOMAXPROCS(0), 2), 8))
	o.chunk = cmp.Or(o.chunk, chunkSize)
	if o.Progress == nil {
		o.Progress = func(Event) {}
	}
	return &writer{manifest: m, tree: t, path: dir, options: o, made: m.made()}
}

// made gives what an export makes in the state directory, and its type.
func (m *Manifest) made() map[string]iofs.FileMode {
	made := map[string]iofs.FileMode{inState(manifestName): 0, inState(exportName): 0}
	for _, f := range m.Files {
		for _, name := range []string{partialOf(f.Name), recordOf(f.Name)} {
			made[name] = 0
			for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
				made[dir] = iofs.ModeDir
			}
		}
	}
	return made
}

func (x *writer) run(ctx context.Context) (*Manifest, error) {
	if x.options.Part < 0 || x.options.Part >= x.options.Parts {
		return nil, fmt.Errorf("part %d of %d: parts are numbered from 0 to %d", x.options.Part, x.options.Parts, x.options.Parts-1)
	}
	var err error
	if x.dir, err = openDirectory(x.path); err != nil {
		return nil, err
	}
	defer x.dir.close()
	m, err := x.write(ctx)
	if err != nil && ctx.Err() == nil { // another part may have come to its end meanwhile, and cleared up
		if done, again := x.complete(); done != nil && again == nil {
			return done, nil
		}
	}
	return m, err
}

// write writes what this part has to write.
func (x *writer) write(ctx context.Context) (*Manifest, error) {
	if m, err := x.begin(); m != nil || err != nil {
		return m, err
	}
	todo, last, err := x.work()
	if err != nil {
		return nil, err
	}
	if err := x.files(ctx, todo); err != nil {
		return nil, err
	}
	return x.finish(ctx, last)
}

// begin makes the directory ours. It returns the manifest if the export is complete already.
func (x *writer) begin() (*Manifest, error) {
	if m, err := x.complete(); m != nil || err != nil {
		return m, err
	}
	ours, err := x.ours()
	if err == nil {
		err = x.survey()
	}
	if err == nil && !ours {
		err = x.vacant()
	}
	if err == nil {
		err = x.tryRename()
	}
	if err == nil && !ours {
		err = x.claim()
	}
	return nil, err
}

// complete finds the manifest of a finished export of the same tree.
func (x *writer) complete() (*Manifest, error) {
	m, err := x.readManifest(manifestName, true)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if d := x.manifest.difference(m); d != "" {
		return nil, fmt.Errorf("%s holds an export %s: give another directory", x.path, d)
	}
	if err := x.survey(); err != nil {
		return nil, err
	}
	for i := range m.Files {
		content, err := x.tree.ReaderAt(m.Files[i].Name)
		if err == nil {
			err = x.whole(&m.Files[i], content)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: but %s says that it was finished: remove %s to export again, or give another directory", err, x.dir.name(inState(manifestName)), x.path)
		}
	}
	for _, f := range m.Files {
		x.tell(Event{Kind: Skipped, File: f.Name, Bytes: f.Size})
	}
	x.tell(Event{Kind: Complete})
	return m, x.tidy()
}

// readManifest reads a manifest in the state directory.
func (x *writer) readManifest(name string, finished bool) (*Manifest, error) {
	f, err := x.dir.open(inState(name), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	limit, err := manifestLimit(f, x.path)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(f, limit, finished)
	if err != nil {
		return nil, fmt.Errorf("%w: remove %s and what is exported there, or give another directory", err, x.dir.name(stateDir))
	}
	return m, nil
}

// ours says whether an export of the same tree was begun here.
func (x *writer) ours() (bool, error) {
	m, err := x.readManifest(exportName, false)
	if errors.Is(err, iofs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if d := x.manifest.difference(m); d != "" {
		return false, fmt.Errorf("%s holds an unfinished export %s: give another directory, or remove that one", x.path, d)
	}
	return true, nil
}

// survey makes sure that nothing is in the state directory, or under the name of a file to come, that an
// export of this tree has not made.
func (x *writer) survey() error {
	err := x.walkState(stateDir, func(name string, known bool) error {
		if !known {
			return fmt.Errorf("%s is not of this export: remove it, or give another directory", x.dir.name(name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range x.manifest.Files {
		if _, err := x.dir.expect(f.Name, 0); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// walkState visits what is in a part of the state directory, and then that part itself. What an export
// makes there has to be of the type that it makes; of the rest nothing is looked at but the name.
func (x *writer) walkState(name string, visit func(name string, known bool) error) error {
	want, known := x.made[name]
	known = known || isTemp(path.Base(name))
	if !known {
		return visit(name, false)
	}
	if _, err := x.dir.expect(name, want); err != nil {
		if errors.Is(err, iofs.ErrNotExist) {
			return nil
		}
		return err
	}
	if want.IsDir() {
		err := x.dir.each(name, func(name string) error { return x.walkState(name, visit) })
		if err != nil {
			return err
		}
	}
	return visit(name, true)
}

// vacant makes sure that nothing is in the directory but the state of an export that was hardly begun.
func (x *writer) vacant() error {
	return x.dir.each(".", func(name string) error {
		if name == stateDir || name == "lost+found" {
			return nil
		}
		if ok, err := x.ours(); ok || err != nil { // another part was quicker
			return err
		}
		return fmt.Errorf("%s is not empty (it holds %s) and not an export: give an empty or a new directory", x.path, name)
	})
}

// tryRename finds out whether files can be renamed. If not nothing is left behind that was not there.
func (x *writer) tryRename() error {
	err := x.dir.mkdir(inState(partialDir))
	if err == nil {
		err = x.dir.canRename(stateDir, inState(partialDir))
	}
	if err != nil {
		x.dir.remove(inState(partialDir), iofs.ModeDir)
		x.dir.remove(stateDir, iofs.ModeDir)
	}
	return err
}

// claim writes down what is being exported. Of several that try, the first wins.
func (x *writer) claim() error {
	data, err := x.manifest.encode()
	if err != nil {
		return err
	}
	temp, err := x.dir.writeTemp(stateDir, data)
	if err != nil {
		return err
	}
	defer x.dir.remove(temp, 0)
	err = x.dir.link(temp, inState(exportName))
	if err != nil && !errors.Is(err, iofs.ErrExist) { // no hard links here
		err = x.dir.rename(temp, inState(exportName))
	}
	if err != nil && !errors.Is(err, iofs.ErrExist) {
		return err
	}
	if err := x.dir.sync(stateDir); err != nil {
		return err
	}
	_, err = x.ours()
	return err
}

// order parts the files in those that are written first and those that come last, when all others are whole.
func (m *Manifest) order() (first, last []FileRecord) {
	comesLast := map[string]bool{}
	for _, v := range m.Views {
		comesLast[path.Join(v.Dir, configName)] = true
		comesLast[path.Join(v.Dir, indexName)] = true
	}
	for _, f := range m.Files {
		if comesLast[f.Name] {
			last = append(last, f)
		} else {
			first = append(first, f)
		}
	}
	return first, last
}

// work lists the files to write in this part, and those that the last part to end writes.
func (x *writer) work() (todo, last []FileRecord, err error) {
	first, last := x.manifest.order()
	var need int64
	var done []FileRecord
	for _, f := range share(first, x.options.Part, x.options.Parts) {
		if x.finished(f) != nil {
			done = append(done, f)
			continue
		}
		todo, need = append(todo, f), need+f.Size
	}
	x.tell(Event{Kind: Started, Bytes: need, Files: len(todo)})
	for _, f := range done {
		x.tell(Event{Kind: Skipped, File: f.Name, Bytes: f.Size})
	}
	return todo, last, x.fits(todo, need)
}

// share gives part i of n: the files, largest first, each to the part that has least so far.
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

// finished gives the record of a file that an earlier run finished.
func (x *writer) finished(f FileRecord) *FileRecord {
	file, err := x.dir.open(recordOf(f.Name), os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer file.Close()
	content, err := x.tree.ReaderAt(f.Name)
	if err != nil {
		return nil
	}
	r := new(FileRecord)
	if err := readback.DecodeFile(file, r, readback.Limits{Bytes: recordLimit(content)}); err != nil {
		return nil
	}
	if r.check(true) != nil || !sameFile(*r, f) || x.whole(r, content) != nil {
		return nil
	}
	return r
}

// recordLimit is how long the record of a file may be: see manifestLimit.
func recordLimit(content fs.ReaderAtContext) int64 {
	limit := int64(2 * maxNameBytes * 6)
	if n := dataOffset(content); n <= content.Size() {
		limit += 8 * n
	}
	return limit
}

// whole makes sure that a file is there, as long as its record says, and that the record has the tensors of its content.
func (x *writer) whole(r *FileRecord, content fs.ReaderAtContext) error {
	info, err := x.dir.expect(r.Name, 0)
	if err != nil {
		return err
	}
	if info.Size() != r.Size {
		return fmt.Errorf("%s has %d bytes, not %d", x.dir.name(r.Name), info.Size(), r.Size)
	}
	tensors, err := tensorsOf(r.Name, content, content.Size())
	if err != nil {
		return fmt.Errorf("%s: %w", r.Name, err)
	}
	if tensor, problem := r.disagree(tensors); problem != "" {
		return fmt.Errorf("%s: %s %s", x.dir.name(r.Name), tensor, problem)
	}
	return nil
}

// fits checks that there is room for what is to be written.
func (x *writer) fits(todo []FileRecord, need int64) error {
	free, ok := freeSpace(x.path)
	if !ok {
		return nil
	}
	for _, f := range todo { // an unfinished file gives its room back
		if info, err := x.dir.expect(partialOf(f.Name), 0); err == nil {
			free += allocated(info)
		}
	}
	if free < need {
		return fmt.Errorf("%s: %d bytes are to be written, but only %d are free", x.path, need, free)
	}
	return nil
}

// files writes several files at a time.
func (x *writer) files(ctx context.Context, todo []FileRecord) error {
	jobs := min(x.options.Jobs, len(todo))
	x.buffers = make(chan []byte, jobs*buffersPerFile)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(jobs, 1))
	for _, f := range todo {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return x.file(ctx, f) })
	}
	return g.Wait()
}

// file writes one file and its record.
func (x *writer) file(ctx context.Context, f FileRecord) error {
	r, err := x.tree.ReaderAt(f.Name)
	if err != nil {
		return err
	}
	tensors, err := tensorsOf(f.Name, r, r.Size())
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	sums := newChecksums(f.Name, f.Size, tensors)
	if err := x.content(ctx, f, r, sums); err != nil {
		return err
	}
	record, err := sums.result()
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := record.encode(&line); err != nil {
		return err
	}
	if err := x.dir.replace(recordOf(f.Name), line.Bytes()); err != nil {
		return err
	}
	x.tell(Event{Kind: Finished, File: f.Name, Bytes: f.Size})
	return nil
}

// content brings the bytes of a file to disk under its name.
func (x *writer) content(ctx context.Context, f FileRecord, r fs.ReaderAtContext, sums *checksums) error {
	for _, dir := range []string{path.Dir(partialOf(f.Name)), path.Dir(f.Name)} {
		if err := x.dir.mkdir(dir); err != nil {
			return err
		}
	}
	t, err := createTarget(x.dir, partialOf(f.Name), f.Size)
	if err != nil {
		return explainFull(x.path, f, err)
	}
	if err := x.copy(ctx, t, f, r, sums); err != nil {
		t.abandon()
		return explainFull(x.path, f, err)
	}
	if err := t.finish(); err != nil {
		return explainFull(x.path, f, err)
	}
	if err := x.dir.rename(partialOf(f.Name), f.Name); err != nil {
		return err
	}
	return x.dir.sync(path.Dir(f.Name))
}

// copy reads, sums and writes at the same time: while one piece is written the next is computed.
func (x *writer) copy(ctx context.Context, t *target, f FileRecord, r fs.ReaderAtContext, sums *checksums) error {
	type piece struct{ buf, data []byte }
	full := make(chan piece, buffersPerFile-2)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(full)
		for off := int64(0); off < f.Size; {
			p := piece{buf: x.buffer()}
			p.data = p.buf[:min(int64(len(p.buf)), f.Size-off)]
			if n, err := r.ReadAtContext(ctx, p.data, off); n < len(p.data) {
				return fmt.Errorf("%s at byte %d: %w", f.Name, off+int64(n), cmp.Or(err, io.ErrUnexpectedEOF))
			}
			off += int64(len(p.data))
			select {
			case full <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		for p := range full {
			if err := t.write(p.data, sums.write); err != nil {
				return err
			}
			x.recycle(p.buf)
			x.tell(Event{Kind: Written, File: f.Name, Bytes: int64(len(p.data))})
		}
		return nil
	})
	return g.Wait()
}

func (x *writer) buffer() []byte {
	select {
	case b := <-x.buffers:
		return b
	default:
		return make([]byte, x.options.chunk) // of this size they begin on a page, as direct writes want
	}
}

func (x *writer) recycle(b []byte) {
	select {
	case x.buffers <- b:
	default:
	}
}

// finish writes what comes last, if all parts are done, and then the manifest.
func (x *writer) finish(ctx context.Context, last []FileRecord) (*Manifest, error) {
	m := *x.manifest
	m.Files = slices.Clone(m.Files)
	lock, err := x.dir.open(inState(exportName), os.O_RDWR)
	if errors.Is(err, iofs.ErrNotExist) { // another part has finished it
		return x.complete()
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := lockFile(lock); err != nil {
		return nil, err
	}
	for i, f := range m.Files {
		if slices.ContainsFunc(last, func(l FileRecord) bool { return l.Name == f.Name }) {
			continue
		}
		r := x.finished(f)
		if r == nil {
			return x.complete() // nothing if another part has to write it, all if one has just ended
		}
		m.Files[i] = *r
	}
	if err := x.files(ctx, last); err != nil {
		return nil, err
	}
	for i, f := range m.Files {
		if f.SHA256 != "" {
			continue
		}
		r := x.finished(f)
		if r == nil {
			return nil, fmt.Errorf("%s was changed while it was exported: run the export again", x.dir.name(f.Name))
		}
		m.Files[i] = *r
	}
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	if err := x.dir.replace(inState(manifestName), data); err != nil {
		return nil, err
	}
	x.tell(Event{Kind: Complete})
	return &m, x.tidy()
}

// tidy removes what only an unfinished export needs, also what killed runs have left.
func (x *writer) tidy() error {
	return x.walkState(stateDir, func(name string, known bool) error {
		switch {
		case !known || name == stateDir || name == inState(manifestName):
			return nil
		case x.made[name].IsDir(): // with whatever came into it just now
			x.dir.remove(name, iofs.ModeDir)
			return nil
		}
		return x.dir.remove(name, 0)
	})
}

func (x *writer) tell(e Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.options.Progress(e)
}

// The names in the state directory.
func inState(name string) string   { return path.Join(stateDir, name) }
func partialOf(name string) string { return path.Join(stateDir, partialDir, name) }
func recordOf(name string) string  { return path.Join(stateDir, recordsDir, name+".json") }
