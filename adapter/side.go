package adapter

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// maxSide is the most side files that are open.
const maxSide = 1000

// The limits of subfolders. Larger ones are left out. The last two bound the entries of a subfolder
// and the subfolders of a source that are examined.
const (
	maxFolderFiles   = 200
	maxFolderBytes   = 64 << 20
	maxFolderDepth   = 3
	maxFolderEntries = 10 * maxFolderFiles
	maxFolders       = 100
)

// SideFile is a regular file of the source that is not a shard. Reading it makes the same promise
// as reading a shard: the original bytes or an error.
type SideFile struct {
	Name string // slash-separated path; may be in a small subfolder
	Size int64
	Mode uint32 // permission bits, reduced by those of the folders above
	File source.File
}

// openSide opens the files beside the shards, and those of small subfolders. A file that cannot be
// opened is left out with a warning, because the model may not need it. Over a network the source
// is refused instead, because a fault that passes must not look like a missing file.
func (c *Checkpoint) openSide(d *folder) error {
	s := sideFiles{c: c, d: d, odd: map[string][]string{}}
	c.findParams(d)
	shards := map[string]bool{}
	for _, name := range c.shards {
		shards[name] = true
	}
	var folders []string
	for _, name := range d.entries {
		switch {
		case shards[name] || isHidden(name) || name == paramsName && c.params != nil:
		case d.isFolder(name):
			folders = append(folders, name)
		case len(s.found) < maxSide:
			s.open(name)
		default:
			s.tooMany++
		}
	}
	for i, name := range folders {
		if i == maxFolders {
			s.leftOut = append(s.leftOut, fmt.Sprintf("%d that are too many", len(folders)-i))
			break
		}
		s.openFolder(name)
	}
	if s.lost != nil {
		return s.lost
	}
	s.look()
	s.warn()
	slices.SortFunc(s.found, func(a, b SideFile) int { return cmp.Compare(a.Name, b.Name) })
	c.side = s.found
	return nil
}

// sideFiles collects the side files of a source.
type sideFiles struct {
	c       *Checkpoint
	d       *folder
	found   []SideFile
	odd     map[string][]string // maps unexpected contents to the names of the files
	looks   []source.File       // to be examined
	tooMany int
	leftOut []string // subfolders, and why
	lost    error    // why a file over a network cannot be had
}

// lost is why a file or folder cannot be had that its store lists over a network.
type lost struct {
	name string
	err  error
}

func (l lost) Error() string {
	return fmt.Sprintf("%s is listed, but cannot be opened: %v: mend that, or remove the file",
		l.name, l.err)
}
func (l lost) Unwrap() error { return l.err }

// open opens one side file.
func (s *sideFiles) open(name string) {
	switch f, err := s.d.openListed(name); {
	case err != nil:
		s.lost = cmp.Or(s.lost, err)
	case f != nil:
		s.add(f, 0o777)
	}
}

// openListed opens a file that its folder lists. A file that cannot be opened is nil, unless it is
// over a network.
func (d *folder) openListed(name string) (source.File, error) {
	f, err := d.open(name)
	switch {
	case err == nil:
		return f, nil
	case isNetworked(d.store):
		return nil, lost{name, err}
	}
	d.logger.Warn("side file left out", "file", fmt.Sprintf("%q", name), "error", err)
	return nil, nil
}

// add adds a file with the permissions that the folders above leave. A file with unexpected
// contents is shown all the same, because a model may not need it. Files over a network come
// together, and are examined later.
func (s *sideFiles) add(f source.File, perm uint32) {
	s.c.files = append(s.c.files, f)
	s.found = append(s.found, SideFile{Name: f.Name(), Size: f.Size(),
		Mode: uint32(f.Mode()) & perm, File: f})
	if s.looksInto(f) {
		fetchAhead(f, 0, f.Size())
		s.looks = append(s.looks, f)
	}
}

// looksInto reports whether the beginning of a file is examined. Over a network only small files
// are, since a reader of a large one fetches much more. Small ones are pointers and messages.
func (s *sideFiles) looksInto(f source.File) bool {
	return !isNetworked(s.d.store) || f.Size() <= headBytes
}

// look examines the beginnings of the files.
func (s *sideFiles) look() {
	for _, f := range s.looks {
		s.examine(f)
	}
}

// examine notes unexpected contents of a file.
func (s *sideFiles) examine(f source.File) {
	h, err := s.d.headOf(f)
	if err != nil {
		return // its reader will get the error
	}
	if is, way := h.recognise(); is != "" {
		is += ": " + s.d.way(way)
		s.odd[is] = append(s.odd[is], f.Name())
	}
}

// warn logs all that is unusual.
func (s *sideFiles) warn() {
	if s.tooMany > 0 {
		s.d.logger.Warn("side files left out: there are too many", "most", maxSide)
	}
	if len(s.leftOut) > 0 {
		s.d.logger.Warn("subfolders left out: " + few(s.leftOut))
	}
	for _, is := range slices.Sorted(maps.Keys(s.odd)) {
		s.d.logger.Warn("not what its name says: " + few(s.odd[is]) + ": " + is)
	}
}

// hiddenFolders hold the same model in other formats, or files that no model needs.
var hiddenFolders = []string{"original", "onnx", "openvino", "gguf", "__pycache__"}

// openFolder opens all files of a subfolder, or none.
func (s *sideFiles) openFolder(name string) {
	if slices.Contains(hiddenFolders, name) {
		return
	}
	w := folderWalk{d: s.d}
	err := w.walk(name, 1, 0o777)
	if err == nil && len(s.found)+len(w.files) > maxSide {
		err = fmt.Errorf("would make more than %d side files", maxSide)
	}
	if err == nil {
		err = w.open()
	}
	switch {
	case errors.As(err, new(lost)):
		s.lost = cmp.Or(s.lost, err)
		return
	case err != nil:
		s.leftOut = append(s.leftOut, fmt.Sprintf("%s %v", name, err))
		return
	}
	for _, f := range w.files {
		if f.file != nil {
			s.add(f.file, f.perm)
		}
	}
}

// folderWalk collects the files of a subfolder.
type folderWalk struct {
	d       *folder
	files   []nestedFile
	entries int
}

// nestedFile is a file of a subfolder.
type nestedFile struct {
	name string
	perm uint32      // permissions that the folders above leave
	file source.File // nil if it cannot be opened
}

// walk lists the files of a folder if they are few and none holds weights. Its errors continue a
// sentence that begins with the folder's name.
func (w *folderWalk) walk(folder string, depth int, perm uint32) error {
	if depth > maxFolderDepth {
		return fmt.Errorf("has folders deeper than %d", maxFolderDepth)
	}
	l, err := w.d.readFolder(folder)
	if err != nil {
		return err
	}
	if w.entries += len(l.Entries); w.entries > maxFolderEntries {
		return fmt.Errorf("has more than %d entries", maxFolderEntries)
	}
	perm &= throughFolder(l.Mode)
	for _, e := range l.Entries {
		if err := w.visit(e, path.Join(folder, e.Name), depth, perm); err != nil {
			return err
		}
		if len(w.files) > maxFolderFiles {
			return fmt.Errorf("has more than %d files", maxFolderFiles)
		}
	}
	return nil
}

// visit lists an entry of a folder: a file, or the files of a folder in it.
func (w *folderWalk) visit(e source.Entry, name string, depth int, perm uint32) error {
	switch {
	case !isFileName(e.Name) || strings.HasSuffix(e.Name, ".incomplete"):
		return nil
	case e.Dir:
		return w.walk(name, depth+1, perm)
	case isShardName(e.Name) || isOtherWeights(e.Name):
		return fmt.Errorf("holds weights (%s)", name)
	}
	w.files = append(w.files, nestedFile{name: name, perm: perm})
	return nil
}

// open opens the files if they are small together.
func (w *folderWalk) open() error {
	var size int64
	for i := range w.files {
		f, err := w.d.openListed(w.files[i].name)
		if err != nil {
			w.close()
			return err
		}
		if f == nil {
			continue
		}
		w.files[i].file = f
		if size += f.Size(); size > maxFolderBytes {
			w.close()
			return fmt.Errorf("has more than %s", formatBytes(maxFolderBytes))
		}
	}
	return nil
}

// close closes the open files.
func (w *folderWalk) close() {
	for _, f := range w.files {
		if f.file != nil {
			_ = f.file.Close() // nothing was read from it
		}
	}
}

// throughFolder returns the permissions that a folder leaves to its files: a user must be able to
// enter it.
func throughFolder(mode fs.FileMode) uint32 {
	enter := uint32(mode.Perm()) & 0o111
	return enter | enter<<1 | enter<<2
}

// hiddenEnds and hiddenStarts are endings and beginnings of names that views do not show. A loader
// might take such files for weights, or they describe the source and not the view.
var (
	hiddenEnds   = []string{shardEnd, ".index.json", ".incomplete", controlEnd}
	hiddenStarts = []string{".", "consolidated", "adapter_"}
)

// hiddenNames are files that describe a quantization. No view shows them, because it is not
// quantized that way. AutoRound's quantization_config.json is not read.
var hiddenNames = slices.Concat(quantizeNames, []string{"quantization_config.json"})

// variantIndex matches the indexes of variants: model.safetensors.index.fp16.json.
var variantIndex = regexp.MustCompile(`\.(?:safetensors|bin)\.index\..*\.json$`)

// isHidden reports whether views must not show an entry of the folder.
func isHidden(name string) bool {
	begins := func(start string) bool { return strings.HasPrefix(name, start) }
	ends := func(end string) bool { return strings.HasSuffix(name, end) }
	return name == configName || !isFileName(name) || isOtherWeights(name) ||
		slices.Contains(hiddenNames, name) || variantIndex.MatchString(name) ||
		slices.ContainsFunc(hiddenStarts, begins) || slices.ContainsFunc(hiddenEnds, ends)
}

// readFolder lists a subfolder.
func (d *folder) readFolder(name string) (source.Listing, error) {
	l, err := d.store.List(d.ctx, name, maxFolderEntries+1)
	switch {
	case err == nil, errors.Is(err, source.ErrLink):
	case isNetworked(d.store) && !errors.Is(err, source.ErrMissing) &&
		!errors.Is(err, source.ErrTooMany):
		err = lost{name + "/", err}
	default:
		err = fmt.Errorf("cannot be read: %w", err)
	}
	return l, err
}
