package fs

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// target is a file being written, in order and in large pieces.
type target struct {
	file   *os.File
	size   int64
	at     int64
	direct bool
}

// createTarget opens a file for writing, which nobody else may be writing, and reserves its room.
func createTarget(path string, size int64) (*target, error) {
	file, direct, err := openForWriting(path)
	if err != nil {
		return nil, err
	}
	t := &target{file: file, size: size, direct: direct}
	if err := t.begin(path); err != nil {
		file.Close()
		return nil, err
	}
	if err := errors.Join(file.Truncate(0), reserve(file, size)); err != nil {
		t.abandon()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// begin locks the file and makes sure that it still has its name: the process that had it
// locked may have finished it.
func (t *target) begin(path string) error {
	if err := tryLock(t.file); err != nil {
		return fmt.Errorf("%s is being written by another export: %w", path, err)
	}
	opened, err := t.file.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(path)
	if err != nil || !os.SameFile(opened, named) {
		return fmt.Errorf("%s was finished by another export just now: run this one again", path)
	}
	return nil
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
	if err := setDirect(t.file, false); err != nil {
		return err
	}
	t.direct = false
	return t.writeAt(p[whole:])
}

func (t *target) writeAt(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := t.file.WriteAt(p, t.at)
	if t.direct && n == 0 && errors.Is(err, syscall.EINVAL) { // it can be opened so, but not written
		if err := setDirect(t.file, false); err != nil {
			return err
		}
		t.direct = false
		n, err = t.file.WriteAt(p, t.at)
	}
	t.at += int64(n)
	return err
}

// finish brings the file to disk.
func (t *target) finish() error {
	if t.at != t.size {
		t.abandon()
		return fmt.Errorf("%s: %d of %d bytes were written", t.file.Name(), t.at, t.size)
	}
	err := t.file.Sync()
	if err != nil {
		t.abandon()
		return err
	}
	return t.file.Close()
}

// abandon gives the room back.
func (t *target) abandon() {
	t.file.Truncate(0)
	os.Remove(t.file.Name())
	t.file.Close()
}

// explainFull says what to do about a full disk.
func explainFull(dir string, f FileRecord, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%s: no room for %s (%d bytes); finished files are kept: make room and run the same command again: %w", dir, f.Name, f.Size, err)
	}
	return err
}
