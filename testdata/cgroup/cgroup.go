//go:build linux

// Package cgroup makes memory cgroups for tests, of version 2 or 1. It needs root.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

// Group is a cgroup with a limit of memory.
type Group struct{ dir string }

// versions are where memory cgroups are, and how their files are called.
var versions = []struct{ root, limit string }{
	{"/sys/fs/cgroup", "memory.max"},
	{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
}

var made atomic.Int64

// ErrNone says that no memory cgroup can be made here.
var ErrNone = errors.New("no memory cgroup can be made here")

// New makes a group whose processes may use so many bytes together.
func New(bytes int64) (*Group, error) {
	name := fmt.Sprintf("dequantfs-test-%d-%d", os.Getpid(), made.Add(1))
	for _, v := range versions {
		g := &Group{filepath.Join(v.root, name)}
		if os.Mkdir(g.dir, 0o755) != nil {
			continue
		}
		// Where only version 1 is mounted, the first of these is a plain folder like any
		// other.
		if _, err := os.Stat(g.Procs()); err == nil && g.write(v.limit, bytes) == nil {
			return g, nil
		}
		_ = os.Remove(g.dir) // it was of no use
	}
	return nil, ErrNone
}

func (g *Group) write(name string, n int64) error {
	return os.WriteFile(filepath.Join(g.dir, name), []byte(strconv.FormatInt(n, 10)), 0)
}

// Procs is the file into which a process writes its number to join.
func (g *Group) Procs() string { return filepath.Join(g.dir, "cgroup.procs") }

// Join puts a process into the group.
func (g *Group) Join(pid int) error { return g.write("cgroup.procs", int64(pid)) }

// Remove removes the group, once its processes have ended.
func (g *Group) Remove() error {
	var err error
	for range 1000 {
		if err = os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
