package diskcache

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Source is what a cache has of one source.
type Source struct {
	Origin  string // empty for blocks that are damaged
	Objects int
	Blocks  int
	Bytes   int64     // on the disk
	Used    time.Time // when a block was last read or written
}

// Sources lists the sources in a folder, by their origin. Other processes may use it meanwhile.
func Sources(dir string) ([]Source, error) {
	f, err := openFolder(dir, false)
	if err != nil {
		return nil, err
	}
	defer f.close()
	objects, err := f.objects()
	if err != nil {
		return nil, err
	}
	all := map[string]*Source{}
	seen := map[[2]string]bool{}
	for _, o := range objects {
		s := all[o.key.Origin]
		if s == nil {
			s = &Source{Origin: o.key.Origin}
			all[o.key.Origin] = s
		}
		s.count(o.files)
		if name := [2]string{o.key.Origin, o.key.Object}; !seen[name] {
			seen[name] = true
			s.Objects++
		}
	}
	list := make([]Source, 0, len(all))
	for _, s := range all {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Source) int { return cmp.Compare(a.Origin, b.Origin) })
	return list, nil
}

// count adds files.
func (s *Source) count(files []file) {
	for _, f := range files {
		s.Blocks++
		s.Bytes += f.size
		if f.used.After(s.Used) {
			s.Used = f.used
		}
	}
}

// cachedObject is the blocks of one version of an object.
type cachedObject struct {
	key   Key
	files []file
}

// objects lists the objects whose blocks are there.
func (f *folder) objects() ([]cachedObject, error) {
	files, err := f.files()
	if err != nil {
		return nil, err
	}
	byDir := map[string][]file{}
	for _, x := range files {
		byDir[x.dir] = append(byDir[x.dir], x)
	}
	var all []cachedObject
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		all = append(all, cachedObject{f.keyOf(dir, byDir[dir]), byDir[dir]})
	}
	return all, nil
}

// keyOf reads the key of an object from the first footer that is right.
func (f *folder) keyOf(dir string, files []file) Key {
	for _, x := range files {
		if b, err := f.identify(x); err == nil && b.key.dir() == dir {
			return b.key
		}
	}
	return Key{}
}

// identify reads the footer of a file.
func (f *folder) identify(x file) (block, error) {
	r, err := f.root.OpenFile(path.Join(x.dir, x.name), os.O_RDONLY|nonblock, 0)
	if err != nil {
		return block{}, err
	}
	defer r.Close()
	t := make([]byte, trailerSize(x.n))
	if err := readTrailer(r, x.n, t); err != nil {
		return block{}, err
	}
	b, ok := parseFooter(t[len(t)-footerSize:])
	if !ok {
		return block{}, errDamaged
	}
	return b, nil
}

// Pruning says which blocks of some sources to remove. Without Older and Limited, it is all.
type Pruning struct {
	Origins []string      // the sources; none: all
	Older   time.Duration // what was not used for so long
	Limited bool          // what was not used for the longest time, until Size bytes are left
	Size    int64
}

// ErrNoSource is a source that has no blocks in a cache.
var ErrNoSource = errors.New("the cache has no blocks of it")

// Prune removes blocks, and counts what it has removed. Other processes may use the folder
// meanwhile: they fetch the blocks again.
func Prune(dir string, p Pruning) (blocks int, bytes int64, err error) {
	f, err := openFolder(dir, false)
	if err != nil {
		return 0, 0, err
	}
	defer f.close()
	objects, err := f.objects()
	if err != nil {
		return 0, 0, err
	}
	files, err := p.chosen(objects)
	if err != nil {
		return 0, 0, err
	}
	for _, x := range p.apply(files, time.Now()) {
		err := f.root.Remove(path.Join(x.dir, x.name))
		if err == nil {
			blocks, bytes = blocks+1, bytes+x.size
		} else if !isGone(err) {
			return blocks, bytes, err
		}
	}
	for _, o := range objects {
		f.root.Remove(o.files[0].dir) // fails unless it is empty
	}
	return blocks, bytes, f.removeTemps(time.Now())
}

// chosen is the files of the sources to prune.
func (p *Pruning) chosen(objects []cachedObject) (files []file, err error) {
	found := map[string]bool{}
	for _, o := range objects {
		i := slices.IndexFunc(p.Origins, func(name string) bool { return isOf(o.key, name) })
		if i >= 0 || len(p.Origins) == 0 {
			files = append(files, o.files...)
		}
		for _, name := range p.Origins {
			found[name] = found[name] || isOf(o.key, name)
		}
	}
	for _, name := range p.Origins {
		if !found[name] {
			return nil, fmt.Errorf("%s: %w", name, ErrNoSource)
		}
	}
	return files, nil
}

// isOf reports whether an object is of a source. The name of a source may lack its revision.
func isOf(k Key, source string) bool {
	rest, ok := strings.CutPrefix(k.Origin, strings.TrimRight(source, "/"))
	return ok && k.Origin != "" && (rest == "" || rest[0] == '/' || rest[0] == '@')
}

// apply is the files to remove.
func (p *Pruning) apply(files []file, now time.Time) (remove []file) {
	slices.SortFunc(files, func(a, b file) int { return a.used.Compare(b.used) })
	var left int64
	for _, x := range files {
		left += x.size
	}
	all := p.Older <= 0 && !p.Limited
	for _, x := range files {
		old := p.Older > 0 && now.Sub(x.used) >= p.Older
		if over := p.Limited && left > p.Size; !all && !old && !over {
			break
		}
		remove, left = append(remove, x), left-x.size
	}
	return remove
}

// removeTemps removes the temporary files of dead processes.
func (f *folder) removeTemps(now time.Time) error {
	names, err := f.names(tempDir)
	for _, name := range names {
		f.removeDead(name, now)
	}
	return err
}
