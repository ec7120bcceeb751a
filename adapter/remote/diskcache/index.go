package diskcache

import (
	"io/fs"
	"path"
	"time"
)

// index counts the bytes of a cache by the names below its folder. It stays right when other
// processes add and remove blocks, since it lists directories again that have changed.
type index struct {
	fans    map[string]*fan // by the first two digits
	temps   int64           // bytes of the temporary files of other processes
	total   int64           // bytes of all blocks and temporary files
	checked time.Time
	added   int64 // bytes that this process has added since
}

// fan is a directory of objects.
type fan struct {
	stamp
	objects map[string]*shelf
}

// shelf is the directory of one object.
type shelf struct {
	stamp
	bytes int64
}

// stamp is the time of modification of a directory when it was listed.
type stamp struct{ modified, listed time.Time }

// settled is how old the last change of a directory must be before its time of modification is
// sure to change with the next one.
const settled = 2 * time.Second

func (s stamp) unchanged(info fs.FileInfo) bool {
	return s.modified.Equal(info.ModTime()) && s.listed.Sub(s.modified) > settled
}

// add counts a block that this process has added or removed.
func (x *index) add(b block, bytes int64) {
	x.total += bytes
	x.added += max(bytes, 0)
	dir := b.key.dir()
	if f := x.fans[path.Base(path.Dir(dir))]; f != nil {
		if s := f.objects[path.Base(dir)]; s != nil {
			s.bytes += bytes
			s.stamp = stamp{}
		}
	}
}

// due reports whether the index has to be refreshed before a block is added. It is refreshed more
// often the less room is left, since other processes may be adding blocks too.
func (x *index) due(now time.Time, limit, size int64) bool {
	age := now.Sub(x.checked)
	if limit <= 0 {
		return age > time.Minute
	}
	return age > time.Second || age < 0 || x.added+size > (limit-x.total)/16
}

// refresh lists what has changed. c.mu is locked.
func (c *Cache) refresh(now time.Time) error {
	names, err := c.folder.names(blocksDir)
	if err != nil {
		return err
	}
	x := index{fans: map[string]*fan{}, checked: now}
	for _, name := range names {
		info, ok := c.folder.directory(path.Join(blocksDir, name))
		if !ok || !isHex(name, 2) {
			continue
		}
		f := c.index.fans[name]
		if f == nil {
			f = &fan{}
		}
		if err := c.folder.refreshFan(f, path.Join(blocksDir, name), info); err != nil {
			return err
		}
		x.fans[name] = f
		x.total += f.bytes()
	}
	if x.temps, err = c.listTemps(now); err != nil {
		return err
	}
	x.total += x.temps
	c.index = x
	return nil
}

func (f *fan) bytes() (n int64) {
	for _, s := range f.objects {
		n += s.bytes
	}
	return n
}

// refreshFan lists a directory of objects and those below it, where they have changed.
func (f *folder) refreshFan(x *fan, dir string, info fs.FileInfo) error {
	if !x.unchanged(info) {
		begin := time.Now()
		names, err := f.names(dir)
		if err != nil {
			return err
		}
		before := x.objects
		x.objects = map[string]*shelf{}
		for _, name := range names {
			if s := before[name]; s != nil {
				x.objects[name] = s
			} else if isHex(name, 64) {
				x.objects[name] = &shelf{}
			}
		}
		x.stamp = stamp{info.ModTime(), begin}
	}
	for name, s := range x.objects {
		if err := f.refreshShelf(s, path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// refreshShelf counts the blocks of an object if they have changed.
func (f *folder) refreshShelf(s *shelf, dir string) error {
	info, ok := f.directory(dir)
	if !ok {
		*s = shelf{}
		return nil
	}
	if s.unchanged(info) {
		return nil
	}
	begin := time.Now()
	names, err := f.names(dir)
	if err != nil {
		return err
	}
	s.bytes = 0
	for _, name := range names {
		if _, n, ok := parseName(name); ok {
			s.bytes += onDisk(n)
		}
	}
	s.stamp = stamp{info.ModTime(), begin}
	return nil
}

// listTemps counts the bytes of the temporary files of other processes, and removes those of dead
// ones.
func (c *Cache) listTemps(now time.Time) (bytes int64, err error) {
	names, err := c.folder.names(tempDir)
	for _, name := range names {
		size, _, ok := parseTemp(name)
		if _, own := c.writing[name]; own || !ok {
			continue
		}
		if !c.folder.removeDead(name, now) {
			bytes += size
		}
	}
	return bytes, err
}

// tempLife is how old a temporary file gets before its process is taken for dead, if nothing else
// tells.
const tempLife = time.Hour

// removeDead removes a temporary file of a dead process. It reports whether the file is gone.
func (f *folder) removeDead(name string, now time.Time) bool {
	_, here, ok := parseTemp(name)
	name = path.Join(tempDir, name)
	info, err := f.root.Lstat(name)
	if err != nil || !ok {
		return ok
	}
	dead := now.Sub(info.ModTime()) > tempLife || here && f.abandoned(name)
	return dead && f.root.Remove(name) == nil
}
