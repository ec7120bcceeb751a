// Package diskcache keeps blocks of remote objects in files of a local folder. Several processes
// and nodes may share the folder, and any of them may be killed at any moment.
//
// # Files
//
// A block is one file, DIR/v1/ab/HASH/OFFSET-LENGTH. HASH is the SHA-256 of the origin, the object
// and its version, and ab its first two digits. So a block never has to be invalidated. The file
// begins with the bytes of the block. Then come the CRC32C of each 32 KiB and a footer, which
// repeats what the name says and has a CRC of its own.
//
// A file is written under another name in DIR/v1/tmp and then renamed. It is locked meanwhile, so
// files of dead processes are found and removed; those of other machines, after an hour. A file is
// not synced, so after a crash of the machine it may have other bytes. Each read checks the footer
// and the CRC of every byte that it returns. If one is wrong, the file is removed, and the cache
// does not have the block.
//
// # Size
//
// Blocks that were not read for the longest time are removed once there is no room. Reading a block
// sets its time of modification, at most once a minute. One process removes blocks at a time: it
// has the lock of DIR/lock. Each process knows the bytes below DIR by the names there. It lists a
// directory again when its time of modification has changed.
//
// # Trust
//
// A CRC is not a signature. So DIR and all files must belong to this user or to root, and others
// must not be able to write to them.
package diskcache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"
)

// Options change a cache. The zero value suits most programs.
type Options struct {
	Size   int64        // bytes of all files; 0: as far as the disk has room
	Free   int64        // bytes of the disk that stay free; 0: a tenth of it; negative: none
	Logger *slog.Logger // receives warnings; nil discards them
}

// Key identifies one version of an object. Objects without a version are not kept.
type Key struct{ Origin, Object, Version string }

// Cache is a folder of blocks. It is safe for concurrent use.
type Cache struct {
	folder  *folder
	limit   int64
	log     *slog.Logger
	free    int64          // as in Options
	listing sync.WaitGroup // the first look into the folder; Close does not wait for it
	closed  atomic.Bool

	mu       sync.Mutex
	index    index
	writing  map[string]int64 // bytes of the temporary files of this process, by name
	resume   time.Time        // when blocks are kept again
	said     map[string]time.Time
	nextFree time.Time // when blocks are removed again because the disk is full
}

// Open opens the cache in a folder, which it makes if it is missing. It refuses a folder that other
// users can write to.
func Open(dir string, o Options) (*Cache, error) {
	f, err := openFolder(dir, true)
	if err != nil {
		return nil, err
	}
	c := &Cache{folder: f, limit: o.Size, free: o.Free, log: o.Logger,
		writing: map[string]int64{}, said: map[string]time.Time{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.listing.Go(c.list)
	return c, nil
}

// list counts the blocks that are there already.
func (c *Cache) list() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refresh(time.Now()); err != nil && !c.closed.Load() {
		c.say(fmt.Errorf("listing blocks: %w", err))
	}
}

// touchAfter is how old the time of modification may be before a read sets it.
const touchAfter = time.Minute

// Read fills p with bytes of a block of n bytes at offset off of an object, from offset at of the
// block on. It reports whether the cache has them and they are right. If not, p may have been
// overwritten.
func (c *Cache) Read(k Key, off, n int64, p []byte, at int64) bool {
	b := block{k, off, n}
	if !b.valid() || at < 0 || at > n || int64(len(p)) > n-at || c.closed.Load() {
		return false
	}
	used, err := c.folder.read(b, p, at)
	switch {
	case err == nil:
		if now := time.Now(); now.Sub(used) > touchAfter {
			c.folder.root.Chtimes(b.path(), now, now) // without it, the block is removed earlier
		}
		return true
	case isGone(err) || c.closed.Load():
	case errors.Is(err, errDamaged):
		c.discard(b, err)
	default:
		c.mu.Lock()
		c.say(fmt.Errorf("blocks cannot be read: %w", err))
		c.mu.Unlock()
	}
	return false
}

// discard removes a damaged block.
func (c *Cache) discard(b block, why error) {
	err := c.folder.root.Remove(b.path())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.say(fmt.Errorf("a block was damaged and is fetched again: %w", why))
	if err == nil {
		c.index.add(b, -onDisk(b.n))
	}
}

// Write keeps a block, unless it is there already. It returns once the block is written, or if it
// cannot be kept. Errors are only logged: a block that is not kept is fetched again.
func (c *Cache) Write(k Key, off int64, data []byte) {
	b := block{k, off, int64(len(data))}
	if !b.valid() || c.closed.Load() || c.folder.has(b) {
		return
	}
	temp, ok := c.begin(onDisk(b.n))
	if !ok {
		return
	}
	err := c.fill(temp, b, data)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = c.folder.place(temp, b)
	}
	delete(c.writing, temp)
	switch {
	case err == nil:
		c.index.add(b, onDisk(b.n))
	case !errors.Is(err, errNoRoom) && !c.closed.Load():
		c.pause(err)
	}
}

// begin names a temporary file, unless no blocks are kept now.
func (c *Cache) begin(size int64) (temp string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limit > 0 && size > c.limit || time.Now().Before(c.resume) {
		return "", false
	}
	temp = tempName(size)
	c.writing[temp] = size
	return temp, true
}

// fill writes a block to a temporary file. It makes room when the file is there, so other processes
// count it when they make room.
func (c *Cache) fill(temp string, b block, data []byte) error {
	file, err := c.folder.createTemp(temp)
	if err != nil {
		return err
	}
	c.mu.Lock()
	err = c.makeRoom(onDisk(b.n), time.Now())
	c.mu.Unlock()
	if err == nil {
		_, err = file.Write(data)
	}
	if err == nil {
		_, err = file.Write(b.trailer(data))
	}
	if err = errors.Join(err, file.Close()); err != nil {
		c.folder.root.Remove(path.Join(tempDir, temp))
	}
	return err
}

// pauseTime is how long no block is kept after an error.
const pauseTime = time.Minute

// pause keeps no blocks for a while. c.mu is locked.
func (c *Cache) pause(err error) {
	c.resume = time.Now().Add(pauseTime)
	c.say(fmt.Errorf("blocks are not kept for now: %w", err))
}

// sayAgain is how long the same warning is not repeated.
const sayAgain = time.Hour

// say warns of an error, but not of the same kind again and again. c.mu is locked.
func (c *Cache) say(err error) {
	kind := kindOf(err)
	if now := time.Now(); now.Sub(c.said[kind]) > sayAgain {
		c.said[kind] = now
		c.log.Warn(fmt.Sprintf("disk cache %s: %v", c.folder.name, err))
	}
}

// kindOf is an error without the name of the file.
func kindOf(err error) string {
	for _, kind := range []error{errDamaged, errFull} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// Close ends the use of the cache. Reads that follow find nothing.
func (c *Cache) Close() error {
	c.closed.Store(true)
	return c.folder.close()
}
