package export

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"syscall"
)

// target is a file being written, in order and in large pieces.
type target struct {
	dir    *directory
	name   string
	file   *os.File
	size   int64
	at     int64
	direct bool
}

// createTarget makes a file for writing, which nobody else may be writing, and reserves its room.
// What a run that was killed has left there is removed.
func createTarget(dir *directory, name string, size int64) (*target, error) {
	if err := removeStale(dir, name); err != nil {
		return nil, err
	}
	file, err := dir.create(name)
	if errors.Is(err, iofs.ErrExist) {
		return nil, errTaken(dir, name)
	}
	if err != nil {
		return nil, err
	}
	t := &target{dir: dir, name: name, file: file, size: size}
	if err := lockNamed(dir, name, file); err != nil {
		file.Close()
		return nil, err
	}
	// Past the page cache where that works: an export is as large as the disk and would otherwise
	// push everything else out of memory.
	t.direct = directAlign > 1 && setDirect(file, true) == nil
	if err := reserve(file, size); err != nil {
		t.abandon()
		return nil, fmt.Errorf("%s: %w", dir.name(name), err)
	}
	return t, nil
}

// removeStale removes a file that nobody is writing.
func removeStale(dir *directory, name string) error {
	file, err := dir.open(name, os.O_WRONLY)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if err := lockNamed(dir, name, file); err != nil {
		return err
	}
	return dir.remove(name, 0)
}

// lockNamed locks a file and makes sure that it still has its name: the process that had it locked
// may have finished it.
func lockNamed(dir *directory, name string, file *os.File) error {
	if err := tryLock(file); err != nil {
		return fmt.Errorf("%s is being written by another export: %w", dir.name(name), err)
	}
	opened, err := file.Stat()
	if err != nil {
		return err
	}
	named, err := dir.stat(name)
	if err != nil || !os.SameFile(opened, named) {
		return errTaken(dir, name)
	}
	return nil
}

func errTaken(dir *directory, name string) error {
	return fmt.Errorf("%s was begun or finished by another export just now: run this one again", dir.name(name))
}

// write appends p while also runs on it too.
func (t *target) write(p []byte, also func([]byte)) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		also(p)
	}()
	err := t.append(p)
	<-done
	return err
}

// append writes p. Direct writes are of whole blocks, so the end of a file that is none is
// written through the page cache.
func (t *target) append(p []byte) error {
	whole := len(p)
	if t.direct {
		whole -= whole % directAlign
	}
	if err := t.writeAt(p[:whole]); err != nil || whole == len(p) {
		return err
	}
	if err := t.notDirect(); err != nil {
		return err
	}
	return t.writeAt(p[whole:])
}

func (t *target) writeAt(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := t.file.WriteAt(p, t.at)
	if t.direct && n == 0 && errors.Is(err, syscall.EINVAL) { // it can be set so, but not written
		if err := t.notDirect(); err != nil {
			return err
		}
		n, err = t.file.WriteAt(p, t.at)
	}
	t.at += int64(n)
	return err
}

// notDirect goes on through the page cache.
func (t *target) notDirect() error {
	if !t.direct {
		return nil
	}
	t.direct = false
	return setDirect(t.file, false)
}

// finish brings the file to disk.
func (t *target) finish() error {
	err := syncFile(t.file)
	if t.at != t.size {
		err = fmt.Errorf("%s: %d of %d bytes were written", t.dir.name(t.name), t.at, t.size)
	}
	if err != nil {
		t.abandon()
		return err
	}
	return t.file.Close()
}

// abandon gives the room back.
func (t *target) abandon() {
	t.file.Truncate(0)
	t.dir.remove(t.name, 0)
	t.file.Close()
}

// explainFull says what to do about a full disk.
func explainFull(dir string, f FileRecord, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%s: no room for %s (%d bytes); finished files are kept: make room and run the same command again: %w", dir, f.Name, f.Size, err)
	}
	return err
}
