package fs

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
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
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

// ExportOptions say how an export is written. Useful zero values.
type ExportOptions struct {
	Part, Parts int // this process writes part Part (from 0) of Parts; Parts 0: all
	Jobs        int // files written at once; 0: one for each processor, at least 2 and at most 8

	// Progress is told what happens, one event after the other, never two at once.
	Progress func(ExportEvent)

	chunk int // bytes read and written at a time; 0: exportChunk
}

// ExportEvent is one thing that happened during an export.
type ExportEvent struct {
	Kind  ExportKind
	File  string // Written, Finished, Skipped
	Bytes int64  // of the file (Finished, Skipped), of this piece (Written), to be written (Started)
	Files int    // Started: to be written
}

// ExportKind says what happened.
type ExportKind string

// What can happen.
const (
	ExportStarted  ExportKind = "started"  // the work is known
	ExportWritten  ExportKind = "written"  // a piece of a file was written
	ExportFinished ExportKind = "finished" // a file is whole, on disk, and under its name
	ExportSkipped  ExportKind = "skipped"  // a file was finished by an earlier run
	ExportComplete ExportKind = "complete" // all parts are done and the manifest is written
)

const (
	exportChunk   = 8 << 20
	exportBuffers = 3 // for each file being written: one filled, one written, one between
)

// Export writes every file of the tree into dir, which is made if it is missing: the bytes that a
// mount shows, read in the same way.
//
// A file gets its name only once it is whole and on disk, and config.json and the index get theirs
// last, so that an unfinished export is not taken for a checkpoint. An export that was
// interrupted in whatever way goes on where it was when Export is called again; finished
// files are not written again. A directory that holds anything but an export of the same tree is
// refused. Several processes may share the work (ExportOptions.Parts); the one that
// finishes last writes the manifest, and to the others Export returns none.
func (f *FS) Export(ctx context.Context, dir string, o ExportOptions) (*Manifest, error) {
	m, err := f.manifest()
	if err != nil {
		return nil, err
	}
	return newExporter(m, f.ReaderAt, dir, o).run(ctx)
}

// exporter is one run of Export.
type exporter struct {
	manifest *Manifest // without checksums
	open     func(name string) (ReaderAtContext, error)
	dir      string
	options  ExportOptions
	buffers  chan []byte
	mu       sync.Mutex // progress
}

func newExporter(m *Manifest, open func(string) (ReaderAtContext, error), dir string, o ExportOptions) *exporter {
	o.Parts = max(o.Parts, 1)
	o.Jobs = cmp.Or(max(o.Jobs, 0), min(max(runtime.GOMAXPROCS(0), 2), 8))
	o.chunk = cmp.Or(o.chunk, exportChunk)
	if o.Progress == nil {
		o.Progress = func(ExportEvent) {}
	}
	return &exporter{manifest: m, open: open, dir: dir, options: o}
}

func (x *exporter) run(ctx context.Context) (*Manifest, error) {
	if x.options.Part < 0 || x.options.Part >= x.options.Parts {
		return nil, fmt.Errorf("part %d of %d: parts are numbered from 0 to %d", x.options.Part, x.options.Parts, x.options.Parts-1)
	}
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
func (x *exporter) begin() (*Manifest, error) {
	if err := os.MkdirAll(x.dir, 0o777); err != nil {
		return nil, err
	}
	if m, err := x.complete(); m != nil || err != nil {
		return m, err
	}
	if ok, err := x.ours(); ok || err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(x.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() == stateDir || e.Name() == "lost+found" {
			continue
		}
		if ok, err := x.ours(); ok || err != nil { // another part was quicker
			return nil, err
		}
		return nil, fmt.Errorf("%s is not empty (it holds %s) and not an export: give an empty or a new directory", x.dir, e.Name())
	}
	return nil, x.claim()
}

// complete finds the manifest of a finished export of the same tree.
func (x *exporter) complete() (*Manifest, error) {
	m, err := ReadManifest(x.dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if d := x.manifest.difference(m); d != "" {
		return nil, fmt.Errorf("%s holds an export %s: give another directory", x.dir, d)
	}
	for _, f := range m.Files {
		if s, err := os.Stat(x.path(f.Name)); err != nil || s.Size() != f.Size {
			return nil, fmt.Errorf("%s is missing or not of %d bytes, but %s says it was finished: remove that manifest to export again", x.path(f.Name), f.Size, x.state(manifestName))
		}
		x.tell(ExportEvent{Kind: ExportSkipped, File: f.Name, Bytes: f.Size})
	}
	x.tell(ExportEvent{Kind: ExportComplete})
	return m, x.tidy()
}

// ours says whether an export of the same tree was begun here.
func (x *exporter) ours() (bool, error) {
	m, err := readJSON[Manifest](x.state(exportName))
	if errors.Is(err, iofs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if d := x.manifest.difference(m); d != "" {
		return false, fmt.Errorf("%s holds an unfinished export %s: give another directory, or remove that one", x.dir, d)
	}
	return true, nil
}

// claim writes down what is being exported. Of several that try, the first wins.
func (x *exporter) claim() error {
	data, err := x.manifest.encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(x.state(), 0o777); err != nil {
		return err
	}
	temp, err := writeTemp(x.state(), data)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	err = os.Link(temp, x.state(exportName))
	if err != nil && !errors.Is(err, iofs.ErrExist) { // no hard links here
		err = os.Rename(temp, x.state(exportName))
	}
	if err != nil && !errors.Is(err, iofs.ErrExist) {
		return err
	}
	if err := syncDir(x.state()); err != nil {
		return err
	}
	_, err = x.ours()
	return err
}

// work lists the files to write in this part, and those that the last part to end writes.
func (x *exporter) work() (todo, last []FileRecord, err error) {
	var rest []FileRecord
	comesLast := map[string]bool{}
	for _, v := range x.manifest.Views {
		comesLast[path.Join(v.Dir, configName)] = true
		comesLast[path.Join(v.Dir, indexName)] = true
	}
	for _, f := range x.manifest.Files {
		if comesLast[f.Name] {
			last = append(last, f)
		} else {
			rest = append(rest, f)
		}
	}
	var need int64
	var done []FileRecord
	for _, f := range share(rest, x.options.Part, x.options.Parts) {
		if x.finished(f) != nil {
			done = append(done, f)
			continue
		}
		todo, need = append(todo, f), need+f.Size
	}
	x.tell(ExportEvent{Kind: ExportStarted, Bytes: need, Files: len(todo)})
	for _, f := range done {
		x.tell(ExportEvent{Kind: ExportSkipped, File: f.Name, Bytes: f.Size})
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
func (x *exporter) finished(f FileRecord) *FileRecord {
	r, err := readJSON[FileRecord](x.recordPath(f.Name))
	if err != nil || !sameFile(*r, f) {
		return nil
	}
	if s, err := os.Stat(x.path(f.Name)); err != nil || s.Size() != f.Size {
		return nil
	}
	return r
}

// fits checks that there is room for what is to be written.
func (x *exporter) fits(todo []FileRecord, need int64) error {
	free, ok := freeSpace(x.dir)
	if !ok {
		return nil
	}
	for _, f := range todo { // an unfinished file gives its room back
		free += allocated(x.partial(f.Name))
	}
	if free < need {
		return fmt.Errorf("%s: %d bytes are to be written, but only %d are free", x.dir, need, free)
	}
	return nil
}

// files writes several files at a time.
func (x *exporter) files(ctx context.Context, todo []FileRecord) error {
	jobs := min(x.options.Jobs, len(todo))
	x.buffers = make(chan []byte, jobs*exportBuffers)
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
func (x *exporter) file(ctx context.Context, f FileRecord) error {
	r, err := x.open(f.Name)
	if err != nil {
		return err
	}
	tensors, err := tensorsOf(f.Name, r)
	if err != nil {
		return err
	}
	sums := newChecksums(f.Name, f.Size, tensors)
	if err := x.write(ctx, f, r, sums); err != nil {
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
	if err := replace(x.recordPath(f.Name), line.Bytes()); err != nil {
		return err
	}
	x.tell(ExportEvent{Kind: ExportFinished, File: f.Name, Bytes: f.Size})
	return nil
}

// write brings the bytes of a file to disk under its name.
func (x *exporter) write(ctx context.Context, f FileRecord, r ReaderAtContext, sums *checksums) error {
	partial, path := x.partial(f.Name), x.path(f.Name)
	for _, p := range []string{partial, path} {
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			return err
		}
	}
	t, err := createTarget(partial, f.Size)
	if err != nil {
		return explainFull(x.dir, f, err)
	}
	if err := x.copy(ctx, t, f, r, sums); err != nil {
		t.abandon()
		return explainFull(x.dir, f, err)
	}
	if err := t.finish(); err != nil {
		return explainFull(x.dir, f, err)
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// copy reads, sums and writes at the same time: while one piece is written the next is computed.
func (x *exporter) copy(ctx context.Context, t *target, f FileRecord, r ReaderAtContext, sums *checksums) error {
	type piece struct{ buf, data []byte }
	full := make(chan piece, exportBuffers-2)
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
			x.tell(ExportEvent{Kind: ExportWritten, File: f.Name, Bytes: int64(len(p.data))})
		}
		return nil
	})
	return g.Wait()
}

func (x *exporter) buffer() []byte {
	select {
	case b := <-x.buffers:
		return b
	default:
		return make([]byte, x.options.chunk) // of this size they begin on a page, as direct writes want
	}
}

func (x *exporter) recycle(b []byte) {
	select {
	case x.buffers <- b:
	default:
	}
}

// finish writes what comes last, if all parts are done, and then the manifest.
func (x *exporter) finish(ctx context.Context, last []FileRecord) (*Manifest, error) {
	m := *x.manifest
	m.Files = slices.Clone(m.Files)
	unlock, err := lockFile(x.state(exportName))
	if errors.Is(err, iofs.ErrNotExist) { // another part has finished it
		return x.complete()
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
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
		if r := x.finished(f); r != nil {
			m.Files[i] = *r
		}
	}
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	if err := replace(x.state(manifestName), data); err != nil {
		return nil, err
	}
	x.tell(ExportEvent{Kind: ExportComplete})
	return &m, x.tidy()
}

// tidy removes what only an unfinished export needs.
func (x *exporter) tidy() error {
	entries, err := os.ReadDir(x.state())
	for _, e := range entries {
		if e.Name() != manifestName { // also what killed runs left
			err = errors.Join(err, os.RemoveAll(x.state(e.Name())))
		}
	}
	return err
}

func (x *exporter) tell(e ExportEvent) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.options.Progress(e)
}

func (x *exporter) path(name string) string {
	return filepath.Join(x.dir, filepath.FromSlash(name))
}

func (x *exporter) state(names ...string) string {
	return filepath.Join(append([]string{x.dir, stateDir}, names...)...)
}

func (x *exporter) partial(name string) string {
	return x.state(partialDir, filepath.FromSlash(name))
}

func (x *exporter) recordPath(name string) string {
	return x.state(recordsDir, filepath.FromSlash(name)+".json")
}

// replace writes a file so that it is either the old or the new one, whatever happens.
func replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	temp, err := writeTemp(filepath.Dir(path), data)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeTemp writes data to disk under a name of its own.
func writeTemp(dir string, data []byte) (string, error) {
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}
