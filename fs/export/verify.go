package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/dequantfs/dequantfs/adapter/readback"
)

// VerifyOptions are the options of Verify and VerifyTree. The zero value has useful defaults.
type VerifyOptions struct {
	Jobs int // files read at once; 0: one per processor, at most 8

	// Progress receives each piece that was checked. It is not called twice at the same time.
	Progress func(file string, bytes int64)
}

// Verification is the result of a check.
type Verification struct {
	Files       int          `json:"files"`
	Tensors     int          `json:"tensors"`
	Bytes       int64        `json:"bytes"` // read
	Differences []Difference `json:"differences"`
	Extra       []string     `json:"extra"` // other files in the directory; not a difference
}

// Difference is one thing that is wrong.
type Difference struct {
	File    string `json:"file"`
	Tensor  string `json:"tensor,omitempty"` // empty: the whole file, or bytes outside its tensors
	Problem string `json:"problem"`
}

// String returns the difference as one line.
func (d Difference) String() string {
	if d.Tensor == "" {
		return d.File + ": " + d.Problem
	}
	return d.File + ": " + d.Tensor + ": " + d.Problem
}

// Verify checks an export against its manifest.
//
// It checks all bytes, and also whether the manifest, the header of each file and the index agree.
// A right result proves that the files match the manifest. A person who can write both can change
// both: VerifyTree does not need the manifest.
func Verify(ctx context.Context, dir string, o VerifyOptions) (*Verification, error) {
	m, err := ReadManifest(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(dir, stateDir, exportName)); err == nil {
			return nil, fmt.Errorf("%s is an %w: run the export again to finish it",
				dir, ErrUnfinished)
		}
		return nil, fmt.Errorf("%s is %w: it has no %s/%s",
			dir, ErrNotExport, stateDir, manifestName)
	}
	if err != nil {
		return nil, err
	}
	return m.Verify(ctx, dir, o)
}

// Verify checks the files of a directory against a manifest that ReadManifest read there.
func (m *Manifest) Verify(ctx context.Context, dir string, o VerifyOptions) (*Verification, error) {
	v := newVerifier(dir, o)
	err := v.all(ctx, m.Files, func(ctx context.Context, r FileRecord, file *os.File) error {
		return v.againstRecord(ctx, m, r, file)
	})
	return v.result(), err
}

// VerifyTree checks the files of an export or a mount against a tree. It reads all bytes of the
// tree again.
func VerifyTree(
	ctx context.Context, t Tree, dir string, o VerifyOptions,
) (*Verification, error) {
	m, err := manifestOf(t)
	if err != nil {
		return nil, err
	}
	v := newVerifier(dir, o)
	err = v.all(ctx, m.Files, func(ctx context.Context, r FileRecord, file *os.File) error {
		s, err := openSource(t, r)
		if err != nil {
			return err
		}
		return v.againstContent(ctx, s, file)
	})
	return v.result(), err
}

// verifier checks the files of a directory and collects the differences.
type verifier struct {
	dir     string
	options VerifyOptions

	mu    sync.Mutex // guards found and Progress
	found Verification
}

func newVerifier(dir string, o VerifyOptions) *verifier {
	o.Jobs = cmp.Or(max(o.Jobs, 0), min(runtime.GOMAXPROCS(0), 8))
	if o.Progress == nil {
		o.Progress = func(string, int64) {}
	}
	found := Verification{Differences: []Difference{}, Extra: []string{}}
	return &verifier{dir: dir, options: o, found: found}
}

// result returns the differences in an order that does not depend on timing.
func (v *verifier) result() *Verification {
	slices.SortFunc(v.found.Differences, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Tensor, b.Tensor),
			cmp.Compare(a.Problem, b.Problem))
	})
	return &v.found
}

// differ adds a difference.
func (v *verifier) differ(file, tensor, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := Difference{file, tensor, fmt.Sprintf(format, args...)}
	v.found.Differences = append(v.found.Differences, d)
}

// progress counts and reports a piece that was checked.
func (v *verifier) progress(file string, n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.Bytes += int64(n)
	v.options.Progress(file, int64(n))
}

// checked counts a file that was read to its end.
func (v *verifier) checked(r FileRecord) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.Files++
	v.found.Tensors += len(r.Tensors)
}

// checkFile checks an open file of the right size.
type checkFile func(ctx context.Context, r FileRecord, file *os.File) error

// all checks several files at a time, and then lists the extra files.
func (v *verifier) all(ctx context.Context, files []FileRecord, check checkFile) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.options.Jobs)
	for _, r := range files {
		g.Go(func() error { return v.file(ctx, r, check) })
	}
	return errors.Join(g.Wait(), v.extra(files))
}

// file checks one file.
func (v *verifier) file(ctx context.Context, r FileRecord, check checkFile) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	file, err := readback.Open(filepath.Join(v.dir, filepath.FromSlash(r.Name)))
	if err != nil {
		v.differ(r.Name, "", "%s", notOpened(err))
		return nil
	}
	defer file.Close()
	if ok, err := v.hasSize(r, file); !ok {
		return err
	}
	if err := check(ctx, r, file); err != errUnreadable {
		return err
	}
	return nil
}

// hasSize reports whether a file has the size in its record.
func (v *verifier) hasSize(r FileRecord, file *os.File) (bool, error) {
	s, err := file.Stat()
	if err != nil {
		return false, err
	}
	if s.Size() != r.Size {
		v.differ(r.Name, "", "has %d bytes, not %d", s.Size(), r.Size)
	}
	return s.Size() == r.Size, nil
}

// notOpened says why a file could not be opened.
func notOpened(err error) string {
	var other *readback.NotRegularError
	switch {
	case errors.Is(err, iofs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return "is missing"
	case errors.As(err, &other):
		return "is " + readback.Kind(other.Mode) + ", not a regular file"
	}
	var path *iofs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return "cannot be opened: " + err.Error()
}

// errUnreadable ends the check of a file after a read error, which is a difference.
var errUnreadable = errors.New("unreadable")

// pieces reads a file from its beginning to its end.
func (v *verifier) pieces(
	ctx context.Context, r FileRecord, file *os.File, check func(p []byte, off int64) error,
) error {
	buf := make([]byte, min(chunkSize, r.Size))
	for off := int64(0); off < r.Size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), r.Size-off)]
		if err := v.read(r, file, p, off); err != nil {
			return err
		}
		if err := check(p, off); err != nil {
			return err
		}
		v.progress(r.Name, len(p))
	}
	return nil
}

// read reads a piece. A read error is a difference.
func (v *verifier) read(r FileRecord, file *os.File, p []byte, off int64) error {
	n, err := file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	at := off + int64(n)
	v.differ(r.Name, tensorAt(r.Tensors, at), "cannot be read at byte %d: %v",
		at, cmp.Or(err, io.ErrUnexpectedEOF))
	return errUnreadable
}

// extra lists the files in the directory that are not in the list.
func (v *verifier) extra(files []FileRecord) error {
	known := make(map[string]bool, len(files))
	for _, r := range files {
		known[r.Name] = true
	}
	return filepath.WalkDir(v.dir, func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(v.dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case d.IsDir() && name != "." && isIgnored(d.Name()):
			return filepath.SkipDir
		case !d.IsDir() && !known[name]:
			v.found.Extra = append(v.found.Extra, name)
		}
		return nil
	})
}

// isIgnored reports whether a directory of this name may be in an export with any files.
func isIgnored(dir string) bool { return strings.HasPrefix(dir, ".") || dir == "lost+found" }
