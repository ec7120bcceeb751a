//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var errNothingAhead = errors.New("a reader goes forward, and nothing is decoded ahead of it")

// leadAnew mounts again, and then leads. The daemon before may have met readers that stop early,
// and decode no longer ahead.
func (s *soak) leadAnew(ctx context.Context) error {
	if err := s.disturbed(func() error { return s.mountAgain(ctx) }); err != nil {
		return err
	}
	return s.lead(s.path("mnt"))
}

// killAhead kills the daemon while it decodes ahead of a reader.
func (s *soak) killAhead(ctx context.Context) error {
	return s.alone(func() error {
		if err := s.leadAnew(ctx); err != nil {
			return err
		}
		return s.disturbed(func() error {
			if err := s.daemon.Process.Kill(); err != nil {
				return err
			}
			s.gone() // it was killed, so this is its error
			return s.mount(ctx)
		})
	})
}

// unmountAhead unmounts while the daemon decodes ahead of a reader that has just ended. No process
// has a file open, so the mount must not be busy, and the daemon must end with status 0.
func (s *soak) unmountAhead(ctx context.Context) error {
	return s.alone(func() error {
		if err := s.leadAnew(ctx); err != nil {
			return err
		}
		return s.disturbed(func() error {
			if err := unix.Unmount(s.path("mnt"), 0); err != nil {
				return fmt.Errorf("unmounting while it decodes ahead: %w", err)
			}
			if err := s.gone(); err != nil {
				return fmt.Errorf("after it was unmounted: %w", err)
			}
			return s.mount(ctx)
		})
	})
}

// stallAhead has the last shard of a source not answer while it is decoded ahead.
func (s *soak) stallAhead(ctx context.Context) error {
	return s.aheadOf(ctx, func(p *passthrough, last string) func() { return p.stall(last) })
}

// failAhead has reads of the last shard of a source fail while it is decoded ahead.
func (s *soak) failAhead(ctx context.Context) error {
	return s.aheadOf(ctx, func(p *passthrough, last string) func() { return p.fail(last) })
}

// aheadOf mounts a source whose last shard then gets worse, and reads the files of all others. No
// reader may notice, and the mount must go away at once. Once the shard is well again, so is its
// file.
func (s *soak) aheadOf(ctx context.Context, worsen func(*passthrough, string) func()) error {
	return s.alone(func() error {
		through, err := newPassthrough(s.path("together"), s.path("through"))
		if err != nil {
			return err
		}
		defer through.close()
		m, err := s.mountBeside(ctx, s.path("through"), s.path("beside"))
		if err != nil {
			return err
		}
		files := behind(s.together, file{})
		last := files[len(files)-1]
		heal := sync.OnceFunc(worsen(through, last.name))
		defer heal()
		err = s.readBeside(through, files[:len(files)-1])
		if err == nil && s.rng.IntN(2) == 0 {
			heal()
			err = s.readAll(files[len(files)-1:])
		}
		return errors.Join(err, m.end(s.limit))
	})
}

// readBeside reads files whole, and waits before the end of the last one until the shard behind
// them is asked for.
func (s *soak) readBeside(through *passthrough, files []file) error {
	n := len(files) - 1
	if err := s.readAll(files[:n]); err != nil {
		return err
	}
	bad := s.failed.Load()
	buf, want := make([]byte, forwardPiece), make([]byte, forwardPiece)
	waited := false
	s.forwardIn(s.path("beside"), files[n], buf, want, func(read int64) bool {
		if !waited && read > files[n].size/2 {
			waited = true
			for end := time.Now().Add(s.limit / 4); through.met() == 0 && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
		}
		return false
	})
	if s.failed.Load() > bad {
		return errors.New("a reader met the fault of a shard that it does not read")
	}
	if through.met() == 0 {
		return errNothingAhead
	}
	return nil
}

// readAll reads files of the mount beside, from their beginning to their end.
func (s *soak) readAll(files []file) error {
	bad := s.failed.Load()
	buf, want := make([]byte, forwardPiece), make([]byte, forwardPiece)
	for _, f := range files {
		s.forwardIn(s.path("beside"), f, buf, want, func(int64) bool { return false })
	}
	if s.failed.Load() > bad {
		return errors.New("reads fail beside a fault")
	}
	return nil
}

// beside is a second mount.
type beside struct {
	mnt   string
	child *exec.Cmd
	ended chan error
}

// mountBeside mounts a source at another mountpoint.
func (s *soak) mountBeside(ctx context.Context, source, mnt string) (*beside, error) {
	log, err := os.OpenFile(s.path("log-beside"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	b := &beside{mnt, exec.Command(s.path("dequantfs"), "mount", "--foreground", source, mnt,
		"--layout", "hf", "--ahead", "on", "--read-ahead", readAhead), make(chan error, 1)}
	b.child.Stdout, b.child.Stderr = log, log
	if err := b.child.Start(); err != nil {
		return nil, err
	}
	go func() { b.ended <- b.child.Wait() }()
	for deadline := time.Now().Add(s.limit); !answers(mnt); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			said, _ := os.ReadFile(filepath.Join(s.dir, "log-beside"))
			b.child.Process.Kill()
			return nil, fmt.Errorf("the mount beside did not come up: %s", said)
		}
	}
	return b, nil
}

// end unmounts. No file is open, so the mount must not be busy, whatever its source does.
func (b *beside) end(limit time.Duration) error {
	err := unix.Unmount(b.mnt, 0)
	if err != nil {
		err = fmt.Errorf("unmounting beside a fault: %w", err)
		_ = unix.Unmount(b.mnt, unix.MNT_DETACH)
	}
	select {
	case ended := <-b.ended:
		return errors.Join(err, ended)
	case <-time.After(limit):
		b.child.Process.Kill()
		return errors.Join(err, errors.New("the process of the mount beside does not end"))
	}
}
