//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// shard opens a shard of the source at random.
func (s *soak) shard() (*os.File, os.FileInfo, error) {
	names, err := filepath.Glob(s.path("source", "*.safetensors"))
	if err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(names[s.rng.IntN(len(names))], os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	return f, info, err
}

// change changes a source file under the mount: reads may fail then, but not give the new bytes.
// Put back, it is as changed as before until it is mounted again.
func (s *soak) change(ctx context.Context) error { return s.changeAnd(ctx, nil) }

// changeUnseen does so and puts the time of modification back each time.
func (s *soak) changeUnseen(ctx context.Context) error {
	return s.changeAnd(ctx, func(f *os.File, was os.FileInfo) error {
		return os.Chtimes(f.Name(), was.ModTime(), was.ModTime())
	})
}

func (s *soak) changeAnd(ctx context.Context, after func(f *os.File, was os.FileInfo) error) error {
	return s.disturbed(func() error {
		f, info, err := s.shard()
		if err != nil {
			return err
		}
		defer f.Close()
		off := info.Size()/2 + s.rng.Int64N(info.Size()/4)
		old := make([]byte, 64<<10)
		n, err := f.ReadAt(old[:min(int64(len(old)), info.Size()-off)], off)
		if err != nil {
			return err
		}
		for _, bytes := range [][]byte{make([]byte, n), old[:n]} {
			if _, err := f.WriteAt(bytes, off); err != nil {
				return err
			}
			if after != nil {
				if err := after(f, info); err != nil {
					return err
				}
			}
			time.Sleep(time.Second)
		}
		return s.mountAgain(ctx)
	})
}

// mountAgain ends the daemon, whose source was changed, and mounts again.
func (s *soak) mountAgain(ctx context.Context) error {
	s.daemon.Process.Signal(syscall.SIGTERM)
	if err := s.gone(); err != nil {
		return err
	}
	return s.mount(ctx)
}

// relink changes a shard's links, names and permissions, but not its bytes. If nothing proves that
// this was harmless, reads may fail until it is mounted again.
func (s *soak) relink(ctx context.Context) error {
	return s.disturbed(func() error {
		f, info, err := s.shard()
		if err != nil {
			return err
		}
		f.Close()
		name, other := f.Name(), f.Name()+".other"
		err = errors.Join(
			os.Link(name, other), os.Remove(other), os.Rename(name, other), os.Rename(other, name),
			os.Chmod(name, 0o600), os.Chmod(name, info.Mode().Perm()))
		if err != nil {
			return err
		}
		time.Sleep(500 * time.Millisecond)
		if s.serves() {
			return nil
		}
		return s.mountAgain(ctx)
	})
}

// serves says whether the beginning and the middle of every file can be read past the page cache.
func (s *soak) serves() bool {
	for _, f := range s.files {
		for _, off := range []int64{0, f.size / 2} {
			p := make([]byte, min(4096, f.size-off))
			if err := directRange(s.path("mnt", f.name), p, off); err != nil {
				s.excused.Add(1)
				return false
			}
		}
	}
	return true
}

// sync syncs files of the mount in every way; reads go on.
func (s *soak) sync(context.Context) error {
	var errs []error
	for _, f := range s.files {
		h, err := os.Open(s.path("mnt", f.name))
		if err != nil {
			return err
		}
		for call, sync := range map[string]func(int) error{"fsync": syscall.Fsync,
			"fdatasync": syscall.Fdatasync} {
			if err := sync(int(h.Fd())); err != nil {
				errs = append(errs, fmt.Errorf("%s of %s: %w", call, f.name, err))
			}
		}
		h.Close()
	}
	return errors.Join(errs...)
}
