package remote

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// treeEntry is one file or folder in the Hub's listing of a repository.
type treeEntry struct {
	Type string `json:"type"` // "file" or "directory"
	Path string `json:"path"`
	Size int64  `json:"size"`
	OID  string `json:"oid"` // of Git
	LFS  *struct {
		OID  string `json:"oid"` // SHA-256 of the content
		Size int64  `json:"size"`
	} `json:"lfs"`
}

var (
	gitID = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)
	lfsID = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// isTreePath reports whether a path in a listing may be that of a file.
func isTreePath(p string) bool {
	if p == "" || len(p) > 4096 || !utf8.ValidString(p) || path.Clean("/"+p) != "/"+p {
		return false
	}
	long := func(part string) bool { return len(part) > 255 }
	return !strings.ContainsFunc(p, unicode.IsControl) &&
		!slices.ContainsFunc(strings.Split(p, "/"), long)
}

// object returns what an entry says about a file, with its whole path as name.
func (e *treeEntry) object(modified time.Time) (object, error) {
	o := object{name: e.Path, size: e.Size, version: e.OID, modified: modified}
	if e.LFS != nil {
		o.sha256, o.version = e.LFS.OID, e.LFS.OID
	}
	switch {
	case e.Size < 0 || e.Size > largestObject:
		return o, fmt.Errorf("%q has %d bytes", e.Path, e.Size)
	case !gitID.MatchString(e.OID):
		return o, fmt.Errorf("%q has no version (oid %q)", e.Path, e.OID)
	case e.LFS != nil && !lfsID.MatchString(e.LFS.OID):
		return o, fmt.Errorf("%q has no SHA-256 (lfs.oid %q)", e.Path, e.LFS.OID)
	case e.LFS != nil && e.LFS.Size != e.Size:
		return o, fmt.Errorf("%q has %d bytes, and %d in Git LFS", e.Path, e.Size, e.LFS.Size)
	}
	return o, nil
}

// tree is the files and folders of a repository, by folder. Names are those in the repository.
type tree struct {
	folders  map[string][]object // "." is the repository's own
	kinds    map[string]string   // "file" or "directory", by path
	modified time.Time
}

func newTree(modified time.Time) *tree {
	return &tree{
		folders:  map[string][]object{".": nil},
		kinds:    map[string]string{".": "directory"},
		modified: modified,
	}
}

// add adds an entry. One that is impossible is an error, since then no entry can be trusted.
func (t *tree) add(e *treeEntry) error {
	if !isTreePath(e.Path) {
		return fmt.Errorf("%q is not the path of a file", e.Path)
	}
	switch e.Type {
	case "file":
		o, err := e.object(t.modified)
		if err != nil {
			return err
		}
		if t.kinds[e.Path] != "" {
			return fmt.Errorf("%q is listed twice", e.Path)
		}
		t.kinds[e.Path] = "file"
		return t.put(o)
	case "directory":
		return t.folder(e.Path)
	}
	return nil // such as a submodule, which a download leaves out too
}

// put adds an object to its folder.
func (t *tree) put(o object) error {
	dir := path.Dir(o.name)
	if err := t.folder(dir); err != nil {
		return err
	}
	if len(t.kinds) > mostObjects {
		return fmt.Errorf("there are more than %d files and folders", mostObjects)
	}
	t.folders[dir] = append(t.folders[dir], o)
	return nil
}

// folder adds a folder and those above it, if they are new.
func (t *tree) folder(dir string) error {
	switch t.kinds[dir] {
	case "directory":
		return nil
	case "file":
		return fmt.Errorf("%q is a file and a folder", dir)
	}
	t.kinds[dir] = "directory"
	t.folders[dir] = nil
	return t.put(object{name: dir, dir: true})
}

// below returns the folders below one of them, with names relative to it.
func (t *tree) below(root string) map[string][]object {
	if root == "." {
		return t.sorted()
	}
	m := map[string][]object{}
	for dir, objects := range t.sorted() {
		rest, ok := strings.CutPrefix(dir+"/", root+"/")
		if !ok {
			continue
		}
		for i := range objects {
			objects[i].name = objects[i].name[len(root)+1:]
		}
		m[path.Clean(rest)] = objects
	}
	return m
}

func (t *tree) sorted() map[string][]object {
	for _, l := range t.folders {
		slices.SortFunc(l, func(a, b object) int { return strings.Compare(a.name, b.name) })
	}
	return t.folders
}
