package export

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"syscall"
)

// target is a file that is being written, from its beginning to its end.
type target struct {
	dir    *directory
	name   string
	file   *os.File
	size   int64
	at     int64
	direct bool
}

// createTarget creates a file, locks it and reserves its room. It removes what a killed run left
// under this name. It returns an error if another process writes this file.
func createTarget(dir *directory, name string, size int64) (*target, error) {
	if err := removeStale(dir, name); err != nil {
		return nil, err
	}
	file, err := createLocked(dir, name)
	if err != nil {
		return nil, err
	}
	t := &target{dir: dir, name: name, file: file, size: size}
	// Direct writes bypass the page cache. Otherwise a large export evicts everything else from it.
	t.direct = directAlign > 1 && setDirect(file, true) == nil
	if err := reserve(file, size); err != nil {
		t.abandon()
		return nil, fmt.Errorf("%s: %w", dir.name(name), err)
	}
	return t, nil
}

// createLocked creates a file and locks it.
func createLocked(dir *directory, name string) (*os.File, error) {
	file, err := dir.create(name)
	if errors.Is(err, iofs.ErrExist) {
		return nil, errTaken(dir.name(name))
	}
	if err != nil {
		return nil, err
	}
	if err := lockNamed(dir, name, file); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// removeStale removes a file if no process is writing it.
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

// lockNamed locks a file, and returns an error if the file lost its name: the process that held the
// lock may have finished the file.
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
		return errTaken(dir.name(name))
	}
	return nil
}

// write appends p and calls also(p) at the same time.
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

// append writes p. Direct writes need whole blocks, so the rest of a file is written through the
// page cache.
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
	if t.direct && n == 0 && errors.Is(err, syscall.EINVAL) { // the flag can be set, but not used
		if err := t.notDirect(); err != nil {
			return err
		}
		n, err = t.file.WriteAt(p, t.at)
	}
	t.at += int64(n)
	return err
}

// notDirect switches to the page cache.
func (t *target) notDirect() error {
	if !t.direct {
		return nil
	}
	t.direct = false
	return setDirect(t.file, false)
}

// finish brings the file to disk.
func (t *target) finish() error {
	if t.at != t.size {
		return fmt.Errorf("%s: %d of %d bytes were written", t.dir.name(t.name), t.at, t.size)
	}
	if err := syncFile(t.file); err != nil {
		return err
	}
	return t.file.Close()
}

// abandon removes the file and frees its room.
func (t *target) abandon() {
	t.file.Truncate(0)
	t.dir.remove(t.name, 0)
	t.file.Close()
}
