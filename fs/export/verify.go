package export

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/dequantfs/dequantfs/adapter/readback"
	"github.com/dequantfs/dequantfs/fs"
)

// VerifyOptions say how files are checked. Useful zero values.
type VerifyOptions struct {
	Jobs     int                            // files read at once; 0: one for each processor, at most 8
	Progress func(file string, bytes int64) // told of each piece checked, never two at once
}

// Verification is what a check found.
type Verification struct {
	Files       int          `json:"files"`
	Tensors     int          `json:"tensors"`
	Bytes       int64        `json:"bytes"` // read
	Differences []Difference `json:"differences"`
	Extra       []string     `json:"extra"` // files that do not belong there; no difference
}

// Difference is one thing that is not as it should be.
type Difference struct {
	File    string `json:"file"`
	Tensor  string `json:"tensor,omitempty"` // empty: the file as such, or what stands outside its tensors
	Problem string `json:"problem"`
}

// String gives the difference in one line.
func (d Difference) String() string {
	if d.Tensor == "" {
		return d.File + ": " + d.Problem
	}
	return d.File + ": " + d.Tensor + ": " + d.Problem
}

// Verify checks an export against its manifest.
//
// Nothing is taken for granted. The manifest has to be one that an export writes (see ReadManifest), the
// header of each file has to list the tensors that the manifest lists, and an index no others. It proves
// that the files are those of the manifest: whoever can change both can change what is right. VerifyTree
// needs no manifest.
func Verify(ctx context.Context, dir string, o VerifyOptions) (*Verification, error) {
	m, err := ReadManifest(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(dir, stateDir, exportName)); err == nil {
			return nil, fmt.Errorf("%s is an unfinished export: run the export again to finish it", dir)
		}
		return nil, fmt.Errorf("%s is not an export: it has no %s/%s", dir, stateDir, manifestName)
	}
	if err != nil {
		return nil, err
	}
	return m.Verify(ctx, dir, o)
}

// Verify checks the files of a directory against a manifest that was read from there.
func (m *Manifest) Verify(ctx context.Context, dir string, o VerifyOptions) (*Verification, error) {
	v := newVerifier(dir, o)
	v.manifest = m
	err := v.all(ctx, m.Files, v.againstRecord)
	return v.result(), err
}

// VerifyTree checks the files of a directory, which may be an export or a mount, against
// the bytes of the tree, computed anew.
func VerifyTree(ctx context.Context, t Tree, dir string, o VerifyOptions) (*Verification, error) {
	m, err := manifestOf(t)
	if err != nil {
		return nil, err
	}
	v := newVerifier(dir, o)
	err = v.all(ctx, m.Files, func(ctx context.Context, r FileRecord, file *os.File) error {
		content, err := t.ReaderAt(r.Name)
		if err != nil {
			return err
		}
		if r.Tensors, err = tensorsOf(r.Name, content, content.Size()); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		return v.againstContent(ctx, r, file, content)
	})
	return v.result(), err
}

// verifier collects what a check finds.
type verifier struct {
	dir      string
	options  VerifyOptions
	manifest *Manifest // nil: the files are compared with a tree

	mu    sync.Mutex
	found Verification
}

func newVerifier(dir string, o VerifyOptions) *verifier {
	o.Jobs = cmp.Or(max(o.Jobs, 0), min(runtime.GOMAXPROCS(0), 8))
	if o.Progress == nil {
		o.Progress = func(string, int64) {}
	}
	return &verifier{dir: dir, options: o, found: Verification{Differences: []Difference{}, Extra: []string{}}}
}

// result gives what was found, in an order that does not depend on who was quicker.
func (v *verifier) result() *Verification {
	slices.SortFunc(v.found.Differences, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Tensor, b.Tensor), cmp.Compare(a.Problem, b.Problem))
	})
	return &v.found
}

func (v *verifier) differ(file, tensor, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.Differences = append(v.found.Differences, Difference{file, tensor, fmt.Sprintf(format, args...)})
}

func (v *verifier) progress(file string, n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.Bytes += int64(n)
	v.options.Progress(file, int64(n))
}

// all checks several files at a time.
func (v *verifier) all(ctx context.Context, files []FileRecord, check func(context.Context, FileRecord, *os.File) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.options.Jobs)
	for _, r := range files {
		g.Go(func() error { return v.file(ctx, r, check) })
	}
	return errors.Join(g.Wait(), v.extra(files))
}

// file checks one file, once it is there and of the right size.
func (v *verifier) file(ctx context.Context, r FileRecord, check func(context.Context, FileRecord, *os.File) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	file, err := readback.Open(filepath.Join(v.dir, filepath.FromSlash(r.Name)))
	if err != nil {
		v.differ(r.Name, "", "%s", notOpened(err))
		return nil
	}
	defer file.Close()
	s, err := file.Stat()
	if err != nil {
		return err
	}
	if s.Size() != r.Size {
		v.differ(r.Name, "", "has %d bytes, not %d", s.Size(), r.Size)
		return nil
	}
	if err := check(ctx, r, file); err != errUnreadable {
		return err
	}
	return nil
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

// errUnreadable ends the check of a file that was found to be unreadable.
var errUnreadable = errors.New("unreadable")

// againstRecord compares the checksums of a file with those recorded.
func (v *verifier) againstRecord(ctx context.Context, r FileRecord, file *os.File) error {
	c := newChecksums(r.Name, r.Size, r.Tensors)
	err := v.pieces(ctx, r, file, func(p []byte, _ int64) error {
		c.write(p)
		return nil
	})
	if err != nil {
		return err
	}
	got, err := c.result()
	if err != nil {
		return err
	}
	for i, t := range got.Tensors {
		if want := r.Tensors[i]; t.SHA256 != want.SHA256 {
			v.differ(r.Name, t.Name, "SHA-256 is %s, not %s", t.SHA256, want.SHA256)
		}
	}
	if got.SHA256 != r.SHA256 {
		v.differ(r.Name, "", "SHA-256 of what is no tensor is %s, not %s", got.SHA256, r.SHA256)
	} else {
		v.content(r, file)
	}
	v.checked(r)
	return nil
}

// content compares what a file says of itself with what the manifest says of it.
func (v *verifier) content(r FileRecord, file *os.File) {
	switch {
	case isShard(r.Name):
		v.header(r, file)
	case path.Base(r.Name) == indexName && v.manifest.hasView(path.Dir(r.Name)):
		v.index(r, file)
	}
}

// header compares the tensors in the header of a file with those of its record.
func (v *verifier) header(r FileRecord, file *os.File) {
	begin := r.Size
	if len(r.Tensors) > 0 {
		begin = r.Tensors[0].Begin
	}
	if at := dataOffset(file); at != begin { // so no more is read than the manifest has room for
		v.differ(r.Name, "", "its tensors begin at byte %d, not at %d as the manifest says", at, begin)
		return
	}
	tensors, err := tensorsOf(r.Name, file, r.Size)
	if err != nil {
		v.differ(r.Name, "", "has the checksums of the manifest, but is no safetensors file: %v", err)
		return
	}
	if tensor, problem := r.disagree(tensors); problem != "" {
		v.differ(r.Name, tensor, "%s", problem)
	}
}

// indexBytes is the largest index that is looked into. One of a million tensors has 100 MB.
const indexBytes = 256 << 20

// index makes sure that the manifest has all tensors that an index names: a shard that is missing in
// both the directory and the manifest shows in the index.
func (v *verifier) index(r FileRecord, file *os.File) {
	var index struct {
		WeightMap map[string]string `json:"weight_map" most:"1048576"`
	}
	_, err := file.Seek(0, io.SeekStart)
	if err == nil {
		err = readback.DecodeFile(file, &index, readback.Limits{Bytes: indexBytes, Loose: true})
	}
	if err != nil {
		v.differ(r.Name, "", "has the checksum of the manifest, but is no index: %v", err)
		return
	}
	known := v.manifest.tensorsIn(path.Dir(r.Name))
	for _, key := range slices.Sorted(maps.Keys(index.WeightMap)) {
		if name := index.WeightMap[key]; !known[[2]string{name, key}] {
			v.differ(r.Name, key, "should be in %s by the index, but the manifest does not have it", name)
			return
		}
	}
}

// hasView reports whether a directory of the export is the root of a view.
func (m *Manifest) hasView(dir string) bool {
	return slices.ContainsFunc(m.Views, func(r ViewRecord) bool { return path.Clean(r.Dir) == dir })
}

// tensorsIn gives the tensors of the files in a directory: the names of file and tensor.
func (m *Manifest) tensorsIn(dir string) map[[2]string]bool {
	known := map[[2]string]bool{}
	for _, f := range m.Files {
		if path.Dir(f.Name) != dir {
			continue
		}
		for _, t := range f.Tensors {
			known[[2]string{path.Base(f.Name), t.Name}] = true
		}
	}
	return known
}

func (v *verifier) checked(r FileRecord) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.Files++
	v.found.Tensors += len(r.Tensors)
}

// againstContent compares a file with bytes computed anew.
func (v *verifier) againstContent(ctx context.Context, r FileRecord, file *os.File, content fs.ReaderAtContext) error {
	want := make([]byte, min(chunkSize, r.Size))
	var spots spots
	err := v.pieces(ctx, r, file, func(p []byte, off int64) error {
		w := want[:len(p)]
		if n, err := content.ReadAtContext(ctx, w, off); n < len(w) {
			return fmt.Errorf("%s at byte %d: %w", r.Name, off+int64(n), cmp.Or(err, io.ErrUnexpectedEOF))
		}
		if !bytes.Equal(p, w) {
			spots.find(r.Tensors, off, p, w)
		}
		return nil
	})
	for _, s := range spots {
		v.differ(r.Name, s.tensor, "%d bytes differ, the first at byte %d of the file", s.bytes, s.first)
	}
	if err == nil {
		v.checked(r)
	}
	return err
}

// spot is where a file differs within one tensor, or outside of all.
type spot struct {
	tensor       string
	first, bytes int64
}

type spots []spot

// find adds the differences between got and want, which lie at off.
func (s *spots) find(tensors []TensorRecord, off int64, got, want []byte) {
	for i := range got {
		if got[i] != want[i] {
			s.add(tensorAt(tensors, off+int64(i)), off+int64(i))
		}
	}
}

func (s *spots) add(tensor string, at int64) {
	if n := len(*s); n == 0 || (*s)[n-1].tensor != tensor {
		*s = append(*s, spot{tensor: tensor, first: at})
	}
	(*s)[len(*s)-1].bytes++
}

// tensorAt names the tensor that byte at belongs to, or none.
func tensorAt(tensors []TensorRecord, at int64) string {
	i, _ := slices.BinarySearchFunc(tensors, at, func(t TensorRecord, at int64) int {
		if t.End <= at {
			return -1
		}
		return 1
	})
	if i < len(tensors) && tensors[i].Begin <= at {
		return tensors[i].Name
	}
	return ""
}

// pieces reads a file from its beginning to its end.
func (v *verifier) pieces(ctx context.Context, r FileRecord, file *os.File, check func(p []byte, off int64) error) error {
	buf := make([]byte, min(chunkSize, r.Size))
	for off := int64(0); off < r.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), r.Size-off)]
		if n, err := file.ReadAt(p, off); n < len(p) {
			v.differ(r.Name, tensorAt(r.Tensors, off+int64(n)), "cannot be read at byte %d: %v", off+int64(n), cmp.Or(err, io.ErrUnexpectedEOF))
			return errUnreadable
		}
		if err := check(p, off); err != nil {
			return err
		}
		off += int64(len(p))
		v.progress(r.Name, len(p))
	}
	return nil
}

// extra lists files that are in the directory but not in the list.
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
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && name != "." || d.Name() == "lost+found" {
				return filepath.SkipDir
			}
			return nil
		}
		if !known[name] {
			v.found.Extra = append(v.found.Extra, name)
		}
		return nil
	})
}
