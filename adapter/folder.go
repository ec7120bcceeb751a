package adapter

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// maxEntries is how many files a source's folder may have.
const maxEntries = 100_000

// folder is where a source's files are opened. Nothing outside its root is, wherever
// symlinks lead, and also when one is changed meanwhile.
type folder struct {
	path    string      // the folder itself, without symlinks
	root    *os.Root    // the folder, or for a snapshot in the Hub's cache the model's folder in it
	inside  string      // the folder's path in the root
	entries []string    // names in the folder, sorted
	repo    *repository // what the snapshot is of; nil if the folder is none
	follow  bool
	logger  *slog.Logger
}

// openFolder opens a directory.
func openFolder(path string, o OpenOptions) (*folder, error) {
	real, err := filepath.Abs(path)
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		return nil, cause(err)
	}
	d := &folder{path: real, inside: ".", follow: o.FollowLinks, logger: o.Logger}
	root := real
	if d.repo = snapshotOf(real); d.repo != nil {
		root = filepath.Dir(filepath.Dir(real))
		d.inside = filepath.Join(filepath.Base(filepath.Dir(real)), filepath.Base(real))
	}
	if d.root, err = os.OpenRoot(root); err != nil {
		return nil, cause(err)
	}
	if err := d.list(); err != nil {
		d.close()
		return nil, cause(err)
	}
	return d, nil
}

// list reads the names in the folder.
func (d *folder) list() error {
	f, err := d.root.Open(d.inside)
	if err != nil {
		return err
	}
	defer f.Close()
	d.entries, err = f.Readdirnames(maxEntries + 1)
	if err != nil && err != io.EOF {
		return err
	}
	if len(d.entries) > maxEntries {
		return fmt.Errorf("more than %d files: not a checkpoint's folder", maxEntries)
	}
	slices.Sort(d.entries)
	return nil
}

// close ends the resolution of names; files that were opened stay open.
func (d *folder) close() { _ = d.root.Close() }

// has says whether there is an entry of that name, whatever it is.
func (d *folder) has(name string) bool {
	_, ok := slices.BinarySearch(d.entries, name)
	return ok
}

// open opens a regular file of the folder.
func (d *folder) open(name string) (*sourceFile, error) {
	file, err := d.openInside(filepath.Join(d.inside, name))
	if err != nil {
		file, err = d.openLinked(name, err)
	}
	if err != nil {
		return nil, err
	}
	return newSourceFile(name, file)
}

// openInside opens a path in the root. What it is is looked at before, since opening a
// device may do something, and by newSourceFile once more after.
func (d *folder) openInside(path string) (*os.File, error) {
	info, err := d.root.Stat(path)
	if err == nil {
		err = regular(info.Mode())
	}
	if err != nil {
		return nil, cause(err)
	}
	file, err := d.root.OpenFile(path, os.O_RDONLY|nonblock, 0)
	return file, cause(err)
}

// openLinked looks again at a name that could not be opened in the root: an absolute
// symlink may still lead to a file inside.
func (d *folder) openLinked(name string, failed error) (*os.File, error) {
	path := filepath.Join(d.path, name)
	target, err := os.Readlink(path)
	if err != nil {
		return nil, d.missing(failed)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, d.incomplete(fmt.Errorf("its link leads to %s, which does not exist", target))
		}
		return nil, cause(err)
	}
	rel, err := filepath.Rel(d.root.Name(), real)
	switch {
	case err == nil && filepath.IsLocal(rel):
		return d.openInside(rel)
	case d.follow:
		return openRegular(real)
	}
	return nil, fmt.Errorf("its link leads to %s, outside of %s: put the file itself there", real, d.root.Name())
}

// openRegular opens a path that may be anywhere.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil {
		err = regular(info.Mode())
	}
	if err != nil {
		return nil, cause(err)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	return file, cause(err)
}

// missing says so of a file that is not there.
func (d *folder) missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return d.incomplete(errors.New("missing"))
	}
	return err
}

// incomplete adds how to finish a download to an error that looks like an unfinished one.
func (d *folder) incomplete(err error) error {
	if d.repo != nil {
		return fmt.Errorf("%w: the download is not finished: run %s", err, d.repo.download())
	}
	if unfinished, _ := filepath.Glob(filepath.Join(d.path, ".cache", "huggingface", "download", "*.incomplete")); len(unfinished) > 0 {
		return fmt.Errorf("%w: a download into this folder is not finished: run its hf download again", err)
	}
	return err
}

// read reads a small file.
func (d *folder) read(name string, limit int64) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer f.close()
	if f.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes: more than %d are not read", name, f.Size(), limit)
	}
	data := make([]byte, f.Size())
	_, err = f.ReadAt(data, 0)
	return data, err
}

// shards names the shards in natural order: those of the index, else those of the folder.
func (d *folder) shards(index *safetensors.Index) ([]string, error) {
	if index != nil {
		names, err := shardsOf(index)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", indexName, err)
		}
		return names, d.present(names)
	}
	var names []string
	for _, name := range d.entries {
		if isShardName(name) && !strings.HasPrefix(name, "consolidated") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, d.incomplete(fmt.Errorf("no %s and no *%s", indexName, shardEnd))
	}
	slices.SortFunc(names, natural)
	return names, d.present(withSiblings(names))
}

// shardsOf names the shards of an index. Only files of the folder itself may be shards.
func shardsOf(index *safetensors.Index) ([]string, error) {
	shards := map[string]bool{} // to whether the name will do
	var bad []string            // keys
	for key, name := range index.WeightMap {
		good, seen := shards[name]
		if !seen {
			good = isShardName(name)
			shards[name] = good
		}
		if !good {
			bad = append(bad, key)
		}
	}
	if len(bad) > 0 {
		first := slices.Min(bad)
		return nil, fmt.Errorf("tensor %.100q is said to be in %.100q%s: not the name of a %s file in the folder",
			first, index.WeightMap[first], andMore(len(bad)-1), shardEnd)
	}
	if len(shards) == 0 {
		return nil, errors.New("no shards in it")
	}
	return slices.SortedFunc(maps.Keys(shards), natural), nil
}

// present makes sure that all shards are there, be it as links that lead nowhere.
func (d *folder) present(names []string) error {
	absent := slices.DeleteFunc(slices.Clone(names), d.has)
	if len(absent) == 0 {
		return nil
	}
	return d.incomplete(fmt.Errorf("%s: missing%s", absent[0], andMore(len(absent)-1)))
}

var numbered = regexp.MustCompile(`^(.*-)(\d{1,6})(-of-(\d{1,6})\.safetensors)$`)

// withSiblings adds the shards that a name like model-00001-of-00163.safetensors
// says that there are.
func withSiblings(names []string) []string {
	all := slices.Clone(names)
	seen := map[string]bool{}
	for _, name := range names {
		m := numbered.FindStringSubmatch(name)
		if m == nil || seen[m[1]+m[3]] {
			continue
		}
		seen[m[1]+m[3]] = true
		n, _ := strconv.Atoi(m[4])
		for i := 1; i <= n; i++ {
			all = append(all, fmt.Sprintf("%s%0*d%s", m[1], len(m[2]), i, m[3]))
		}
	}
	return all
}

// isShardName says whether a name is that of a file in the folder itself that may
// hold tensors.
func isShardName(name string) bool {
	return strings.HasSuffix(name, shardEnd) && isFileName(name)
}

// isFileName says whether a name is one that can be shown: no path, no hidden file,
// nothing that a terminal or a file system would take for something else.
func isFileName(name string) bool {
	return name != "" && len(name) <= 255 && name[0] != '.' && utf8.ValidString(name) &&
		!strings.ContainsAny(name, `/\`) && !strings.ContainsFunc(name, unicode.IsControl)
}

// natural compares names so that numbers in them count as numbers.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, y := leadingDigits(a), leadingDigits(b)
		if x == "" || y == "" {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		m, n := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n), cmp.Compare(len(x), len(y))); c != 0 {
			return c
		}
		a, b = a[len(x):], b[len(y):]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
