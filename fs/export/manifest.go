package export

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/dequantfs/dequantfs/adapter/readback"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Bounds of a manifest. The manifest of DeepSeek-V3 has 92,000 tensors and 20 MB.
const (
	manifestBytes = 64 << 20 // read without a look at the files it is of
	manifestMost  = 1 << 30
	maxNameBytes  = 4096 // of a path in the export, and of a tensor's name
)

// ReadManifest reads the manifest of a finished export. It gives a manifest that an export can have
// written, or an error. Whether the files are as it says is for Verify to find out.
func ReadManifest(dir string) (*Manifest, error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s is %s: give the directory of an export, or a mountpoint", dir, readback.Kind(info.Mode()))
	}
	f, err := readback.Open(filepath.Join(dir, stateDir, manifestName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	limit, err := manifestLimit(f, dir)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(f, limit, true)
	if err != nil {
		return nil, fmt.Errorf("%w: export again, or compare with the source: dequantfs verify --source SOURCE --layout LAYOUT", err)
	}
	return m, nil
}

// decodeManifest reads a manifest from an open file.
func decodeManifest(f *os.File, limit int64, finished bool) (*Manifest, error) {
	m := new(Manifest)
	err := readback.DecodeFile(f, m, readback.Limits{Bytes: limit})
	if err != nil {
		if v := versionOf(f, limit); v != 0 && v != manifestVersion {
			return nil, fmt.Errorf("%s: %w", f.Name(), errVersion(v))
		}
		return nil, err
	}
	if err := m.check(finished); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return m, nil
}

func errVersion(v int) error {
	return fmt.Errorf("a manifest of version %d, which another version of dequantfs wrote: this one reads version %d", v, manifestVersion)
}

// versionOf finds the version in a manifest that cannot be read otherwise, or 0.
func versionOf(f *os.File, limit int64) int {
	var v struct {
		Version int `json:"version"`
	}
	if _, err := f.Seek(0, 0); err != nil || readback.DecodeFile(f, &v, readback.Limits{Bytes: limit, Loose: true}) != nil {
		return 0
	}
	return v.Version
}

// manifestLimit is how long a manifest may be: as long as the files in its directory can need. A
// tensor's entry takes at most eight times as many bytes in a manifest as in the header of its
// file.
func manifestLimit(manifest *os.File, dir string) (int64, error) {
	info, err := manifest.Stat()
	if err != nil || info.Size() <= manifestBytes {
		return manifestBytes, err
	}
	need := int64(manifestBytes)
	err = filepath.WalkDir(dir, func(path string, d iofs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != dir:
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		need = min(need+4096, manifestMost)
		if isShard(path) {
			need = min(need+8*headerLength(path), manifestMost)
		}
		return nil
	})
	return need, err
}

// headerLength is how long the header of a shard is, 0 if that is not known.
func headerLength(path string) int64 {
	f, err := readback.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return min(dataOffset(f), info.Size())
}

// dataOffset is where the data of a safetensors file begin by what its first bytes say, 0 if it has
// none.
func dataOffset(f io.ReaderAt) int64 {
	var length [8]byte
	if n, _ := f.ReadAt(length[:], 0); n < len(length) {
		return 0
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > math.MaxInt64-8 {
		return 0
	}
	return 8 + int64(n)
}

func isShard(name string) bool { return strings.HasSuffix(name, ".safetensors") }

// check makes sure that a manifest is one that an export writes. If it is finished it has all
// checksums, else none.
func (m *Manifest) check(finished bool) error {
	switch {
	case m.Version != manifestVersion:
		return errVersion(m.Version)
	case m.Source != "" && !isSum(m.Source):
		return fmt.Errorf("source: %.80q is not a SHA-256", m.Source)
	case len(m.Views) == 0:
		return errors.New("it names no view")
	case len(m.Files) == 0:
		return errors.New("it names no file")
	}
	for i := range m.Files {
		f := &m.Files[i]
		if i > 0 && f.Name <= m.Files[i-1].Name {
			return fmt.Errorf("files: %.200q does not come after %.200q", f.Name, m.Files[i-1].Name)
		}
		if err := f.check(finished); err != nil {
			return fmt.Errorf("files: %.200q: %w", f.Name, err)
		}
	}
	return m.checkPlaces()
}

// checkPlaces makes sure that each file is in a view, that each view has files, and that the sizes
// can be added up.
func (m *Manifest) checkPlaces() error {
	views, files := map[string]bool{}, map[string]bool{} // whether a view has files; the names
	for i := range m.Views {
		v := &m.Views[i]
		if _, twice := views[v.Dir]; twice {
			return fmt.Errorf("views: %.200q is there twice", v.Dir)
		}
		if err := v.check(); err != nil {
			return fmt.Errorf("views: %.200q: %w", v.Dir, err)
		}
		views[v.Dir] = false
	}
	total := int64(0)
	for _, f := range m.Files {
		if total > math.MaxInt64-f.Size {
			return errors.New("files: more bytes than there can be")
		}
		total += f.Size
		files[f.Name] = true
		if !inView(f.Name, views) {
			return fmt.Errorf("files: %.200q is in no view", f.Name)
		}
	}
	for _, f := range m.Files {
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			if files[dir] {
				return fmt.Errorf("files: %.200q is both a file and a directory", dir)
			}
		}
	}
	for dir, used := range views {
		if !used {
			return fmt.Errorf("views: %.200q has no files", dir)
		}
	}
	return nil
}

// inView finds the innermost view that a file is in, and notes that it has files.
func inView(name string, views map[string]bool) bool {
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		if dir == "." {
			dir = ""
		}
		if _, ok := views[dir]; ok {
			views[dir] = true
			return true
		}
		if dir == "" {
			return false
		}
	}
}

// check makes sure that a view is one that can be asked for.
func (r *ViewRecord) check() error {
	_, err := safetensors.ParseDType(r.DType)
	switch {
	case r.Dir != "" && !validName(r.Dir):
		return errors.New("not the name of a directory in the export")
	case !isWord(r.Layout) || !isWord(r.MTP) || !isWord(r.Scales):
		return fmt.Errorf("%.80q, %.80q and %.80q are not a layout, a way with MTP layers and a kind of scales", r.Layout, r.MTP, r.Scales)
	case r.Rank < 0 || r.Ranks < 0 || r.Rank >= max(r.Ranks, 1):
		return fmt.Errorf("there is no rank %d of %d", r.Rank, r.Ranks)
	case r.ShardSize < 0:
		return fmt.Errorf("shards of %d bytes", r.ShardSize)
	}
	return err
}

// isWord reports whether s can be the value of a flag such as hf-fp8.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') })
}

// check makes sure that a record is one that an export writes, with all checksums if it is finished
// and none if it is not.
func (f *FileRecord) check(finished bool) error {
	switch {
	case !validName(f.Name):
		return errors.New("not the name of a file in the export")
	case f.Size < 0:
		return fmt.Errorf("%d bytes", f.Size)
	case !finished && (f.SHA256 != "" || f.Tensors != nil):
		return errors.New("it has checksums before it is written")
	case finished && !isSum(f.SHA256):
		return fmt.Errorf("sha256: %.80q is not a SHA-256", f.SHA256)
	case f.Tensors == nil:
		return nil
	case len(f.Tensors) == 0:
		return errors.New("tensors: an empty list, which no export writes")
	case !isShard(f.Name):
		return errors.New("it has tensors, but is not a safetensors file")
	}
	return f.checkTensors()
}

// checkTensors makes sure that the tensors fill the file from the end of its header to its own.
func (f *FileRecord) checkTensors() error {
	const least = 10 // bytes of a header
	at, names := f.Tensors[0].Begin, make(map[string]bool, len(f.Tensors))
	if at < least {
		return fmt.Errorf("the first tensor begins at byte %d, within the header", at)
	}
	for i := range f.Tensors {
		t := &f.Tensors[i]
		if names[t.Name] {
			return fmt.Errorf("tensor %.200q is there twice", t.Name)
		}
		if err := t.check(at); err != nil {
			return fmt.Errorf("tensor %.200q: %w", t.Name, err)
		}
		at, names[t.Name] = t.End, true
	}
	if at != f.Size {
		return fmt.Errorf("the last tensor ends at byte %d, the file at %d", at, f.Size)
	}
	return nil
}

// check makes sure that a tensor begins at a byte and is as long as its shape says.
func (t *TensorRecord) check(at int64) error {
	d, err := safetensors.ParseDType(t.DType)
	if err != nil {
		return err
	}
	size, err := safetensors.Size(d, t.Shape)
	switch {
	case err != nil:
		return err
	case t.Name == "" || len(t.Name) > maxNameBytes:
		return fmt.Errorf("a name of %d bytes", len(t.Name))
	case t.Begin != at:
		return fmt.Errorf("it begins at byte %d, not at %d where the one before it ends", t.Begin, at)
	case t.End < t.Begin || t.End-t.Begin != size:
		return fmt.Errorf("it ends at byte %d, but %s of shape %v from byte %d takes %d bytes", t.End, t.DType, t.Shape, t.Begin, size)
	case !isSum(t.SHA256):
		return fmt.Errorf("sha256: %.80q is not a SHA-256", t.SHA256)
	}
	return nil
}

// isSum reports whether s is a SHA-256 as we write it.
func isSum(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// validName reports whether a slash-separated path is the name of a file that an export can hold:
// it leads nowhere else on any system, and nothing in it is hidden or drives a terminal.
func validName(name string) bool {
	if !iofs.ValidPath(name) || len(name) > maxNameBytes || !filepath.IsLocal(filepath.FromSlash(name)) {
		return false
	}
	for element := range strings.SplitSeq(name, "/") {
		if element[0] == '.' || len(element) > 255 || strings.ContainsFunc(element, func(c rune) bool { return c == '\\' || unicode.IsControl(c) }) {
			return false
		}
	}
	return true
}
