package diskcache

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"time"
)

var (
	// errFull is a disk that is too full for a cache.
	errFull = errors.New("the disk is too full")

	errNoRoom = errors.New("there is no room")
)

// makeRoom removes blocks if there is no room for the files that are being written. size is that of
// one of them. c.mu is locked.
func (c *Cache) makeRoom(size int64, now time.Time) error {
	if c.index.due(now, c.limit, size) {
		if err := c.refresh(now); err != nil {
			return err
		}
	}
	switch {
	case c.lack(c.index.total) <= 0:
		return nil
	case now.Before(c.nextFree):
		return errNoRoom
	}
	if err := c.evict(now); err != nil {
		return err
	}
	if c.lack(c.index.total) <= 0 {
		return nil
	}
	c.nextFree = now.Add(settled) // some file systems take a while to free space
	if c.index.total == c.index.temps && c.disk() > 0 {
		free, all, _ := space(c.folder.dir)
		return fmt.Errorf("%w: %d of %d MiB are free, and a tenth stays so", errFull, free>>20,
			all>>20)
	}
	return errNoRoom
}

// lack is how many bytes have to be removed before the files that are being written can be placed.
// total is the bytes of all others.
func (c *Cache) lack(total int64) int64 {
	over := c.disk()
	if c.limit > 0 {
		over = max(over, total+c.inFlight()-c.limit)
	}
	return over
}

// inFlight is the bytes that this process is writing.
func (c *Cache) inFlight() (n int64) {
	for _, size := range c.writing {
		n += size
	}
	return n
}

// disk is how many bytes have to be freed on the disk for the files that are being written.
func (c *Cache) disk() int64 {
	free, all, ok := space(c.folder.dir)
	if !ok || c.free < 0 {
		return 0
	}
	keep := c.free
	if keep == 0 {
		keep = all / 10
	}
	return keep + c.inFlight() - free
}

// reserveShare is the share of the cache that is freed at once, so that this happens rarely.
const reserveShare = 16

// evict removes the blocks that were not used for the longest time, until there is room and some
// more. Another process that does so already leaves no room for now. c.mu is locked.
func (c *Cache) evict(now time.Time) error {
	unlock, err := c.folder.lock()
	if err != nil {
		return err
	}
	defer unlock()
	files, err := c.folder.files()
	if err != nil {
		return err
	}
	total := c.index.temps
	for _, f := range files {
		total += f.size
	}
	if lack := c.lack(total); lack > 0 {
		share := total
		if c.limit > 0 {
			share = min(share, c.limit)
		}
		c.removeOldest(files, lack+share/reserveShare)
	}
	c.index = index{}
	return c.refresh(now)
}

// removeOldest removes the files that were not used for the longest time, until they had so many
// bytes.
func (c *Cache) removeOldest(files []file, bytes int64) {
	slices.SortFunc(files, func(a, b file) int { return a.used.Compare(b.used) })
	dirs := map[string]bool{}
	for _, f := range files {
		if bytes <= 0 || c.closed.Load() {
			break
		}
		if c.folder.root.Remove(path.Join(f.dir, f.name)) == nil {
			bytes -= f.size
			dirs[f.dir] = true
		}
	}
	for dir := range dirs {
		c.folder.root.Remove(dir) // fails unless it is empty
	}
}

// file is the file of a block.
type file struct {
	dir, name string
	n, size   int64 // bytes of the block, and of the file on a disk
	used      time.Time
}

// files lists all blocks.
func (f *folder) files() (all []file, err error) {
	fans, err := f.names(blocksDir)
	for _, fan := range fans {
		dir := path.Join(blocksDir, fan)
		if _, ok := f.directory(dir); !ok || !isHex(fan, 2) {
			continue
		}
		objects, err := f.names(dir)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			some, err := f.filesOf(path.Join(dir, o))
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
	}
	return all, err
}

// filesOf lists the blocks of an object.
func (f *folder) filesOf(dir string) (all []file, err error) {
	if _, ok := f.directory(dir); !ok || !isHex(path.Base(dir), 64) {
		return nil, nil
	}
	root, err := f.root.OpenRoot(dir)
	if err != nil {
		return nil, unlessGone(err)
	}
	defer root.Close()
	names, err := f.names(dir)
	if err != nil {
		return nil, fmt.Errorf("listing blocks: %w", err)
	}
	for _, name := range names {
		_, n, ok := parseName(name)
		if info, err := root.Lstat(name); err == nil && ok && info.Mode().IsRegular() {
			all = append(all, file{dir, name, n, onDisk(n), info.ModTime()})
		}
	}
	return all, nil
}
