package export

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"math"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Bounds of names and files.
const (
	maxNameBytes  = 4096 // of a path in the export, and of a tensor's name
	minShardBytes = 10   // of a header, so no tensor begins earlier
)

// check returns an error if no export writes such a manifest. A finished manifest must have all
// checksums, another one must have none.
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

// checkPlaces returns an error if a file is in no view, a view has no files, a file is also a
// directory, or the sum of the sizes overflows.
func (m *Manifest) checkPlaces() error {
	used, err := m.checkViews()
	if err != nil {
		return err
	}
	total := int64(0)
	for _, f := range m.Files {
		if total > math.MaxInt64-f.Size {
			return errors.New("files: more bytes than there can be")
		}
		total += f.Size
		if !useView(f.Name, used) {
			return fmt.Errorf("files: %.200q is in no view", f.Name)
		}
	}
	if err := m.checkDirectories(); err != nil {
		return err
	}
	for dir, used := range used {
		if !used {
			return fmt.Errorf("views: %.200q has no files", dir)
		}
	}
	return nil
}

// checkDirectories returns an error if a file is also the directory of another file.
func (m *Manifest) checkDirectories() error {
	files := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		files[f.Name] = true
	}
	for _, f := range m.Files {
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			if files[dir] {
				return fmt.Errorf("files: %.200q is both a file and a directory", dir)
			}
		}
	}
	return nil
}

// checkViews checks each view and returns the directories of all.
func (m *Manifest) checkViews() (dirs map[string]bool, err error) {
	dirs = map[string]bool{}
	for i := range m.Views {
		v := &m.Views[i]
		if _, twice := dirs[v.Dir]; twice {
			return nil, fmt.Errorf("views: %.200q is there twice", v.Dir)
		}
		if err := v.check(); err != nil {
			return nil, fmt.Errorf("views: %.200q: %w", v.Dir, err)
		}
		dirs[v.Dir] = false
	}
	return dirs, nil
}

// useView marks the innermost view that a file is in as used. It reports whether there is one.
func useView(name string, used map[string]bool) bool {
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		if dir == "." {
			dir = ""
		}
		if _, ok := used[dir]; ok {
			used[dir] = true
			return true
		}
		if dir == "" {
			return false
		}
	}
}

// check returns an error if there cannot be such a view.
func (r *ViewRecord) check() error {
	_, err := safetensors.ParseDType(r.DType)
	switch {
	case r.Dir != "" && !validName(r.Dir):
		return errors.New("not the name of a directory in the export")
	case !isWord(r.Layout) || !isWord(r.MTP) || !isWord(r.Scales):
		return fmt.Errorf("%.80q, %.80q and %.80q are not values of --layout, --mtp and --scales",
			r.Layout, r.MTP, r.Scales)
	case r.Cast != "" && !isWord(r.Cast):
		return fmt.Errorf("%.80q is not a value of --cast", r.Cast)
	case r.Rank < 0 || r.Ranks < 0 || r.Rank >= max(r.Ranks, 1):
		return fmt.Errorf("there is no rank %d of %d", r.Rank, r.Ranks)
	case r.ShardSize < 0:
		return fmt.Errorf("shards of %d bytes", r.ShardSize)
	}
	return err
}

// isWord reports whether s looks like the value of a flag, such as hf-fp8.
func isWord(s string) bool {
	return s != "" && strings.Trim(s, "-abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// check returns an error if no export writes such a record. A finished record must have all
// checksums, another one must have none.
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

// checkTensors returns an error if the tensors do not fill the file from its header to its end.
func (f *FileRecord) checkTensors() error {
	at, names := f.Tensors[0].Begin, make(map[string]bool, len(f.Tensors))
	if at < minShardBytes {
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

// check returns an error if a tensor does not begin at byte at, or has not the length of its shape.
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
		return fmt.Errorf("it begins at byte %d, not at %d where the one before it ends",
			t.Begin, at)
	case t.End < t.Begin || t.End-t.Begin != size:
		return fmt.Errorf("it ends at byte %d, but %s of shape %v from byte %d takes %d bytes",
			t.End, t.DType, t.Shape, t.Begin, size)
	case !isSum(t.SHA256):
		return fmt.Errorf("sha256: %.80q is not a SHA-256", t.SHA256)
	}
	return nil
}

// isSum reports whether s is a SHA-256 in lower-case hexadecimal.
func isSum(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// validName reports whether a slash-separated path can be a file of an export. On no system does
// it lead out of the directory. No part of it is hidden, and none has control characters.
func validName(name string) bool {
	if !iofs.ValidPath(name) || len(name) > maxNameBytes ||
		!filepath.IsLocal(filepath.FromSlash(name)) {
		return false
	}
	for element := range strings.SplitSeq(name, "/") {
		if element[0] == '.' || len(element) > 255 || strings.ContainsFunc(element, isForbidden) {
			return false
		}
	}
	return true
}

// isForbidden reports whether no name in an export has this character.
func isForbidden(c rune) bool { return c == '\\' || unicode.IsControl(c) }
