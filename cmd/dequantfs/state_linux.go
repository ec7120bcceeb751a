package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// stateDir returns the directory of this user's mounts. It makes the directory if it is missing. If
// the root is read-only, it is in memory.
func stateDir() (string, error) {
	name := "dequantfs-" + strconv.Itoa(os.Getuid())
	dir := filepath.Join("/tmp", name)
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		dir = filepath.Join(run, "dequantfs")
	}
	var first error
	for _, dir := range []string{dir, filepath.Join("/dev/shm", name)} {
		err := os.Mkdir(dir, 0o700)
		switch {
		case err == nil, errors.Is(err, os.ErrExist):
			return dir, checkPrivate(dir)
		case first == nil:
			first = err
		}
		if !errors.Is(err, syscall.EROFS) && !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return "", first
}

// checkPrivate refuses a directory that another user has made or can enter.
func checkPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm() != 0o700 {
		return withHint(fmt.Errorf("%s is not a directory that only this user can enter", dir),
			"remove it, or set XDG_RUNTIME_DIR to a directory of your own")
	}
	return nil
}

// defaultLog returns the log file of a mount without --log-file. The lines of earlier mounts stay
// in it, up to a megabyte.
func defaultLog(mountpoint string) (string, error) {
	dir, err := stateDir()
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, stateName(mountpoint)+".log")
	if info, err := os.Stat(name); err == nil && info.Size() > 1<<20 {
		return name, os.Rename(name, name+".old")
	}
	return name, nil
}

// control is the registered state of a mount that this process serves.
type control struct {
	path     string // of the files, less their endings
	listener net.Listener
}

// register makes the mount known to dequantfs status.
func register(r record, stats func() fs.Stats) (*control, error) {
	dir, err := stateDir()
	if err != nil {
		return nil, err
	}
	r.Namespace = pidNamespace()
	c := &control{path: filepath.Join(dir, r.name())}
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	for path, old := range recordsOf(dir, r.Mountpoint) {
		if over(path, old) || path == c.path {
			forget(path)
		}
	}
	if c.listener, err = listenUnix(c.path + ".sock"); err != nil {
		return nil, err
	}
	go c.serve(r, stats)
	if err := writeFile(c.path+".json", data); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// writeFile writes a file atomically.
func writeFile(name string, data []byte) error {
	temporary := name + ".new"
	os.Remove(temporary) // a killed process may have left it
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temporary, name)
	}
	if err != nil {
		os.Remove(temporary)
	}
	return err
}

func (c *control) serve(r record, stats func() fs.Stats) {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			json.NewEncoder(conn).Encode(snapshot{r, time.Now(), stats()})
		}()
	}
}

// Close removes the record of the mount. The log stays.
func (c *control) Close() error {
	os.Remove(c.path + ".json")
	err := c.listener.Close()
	os.Remove(c.path + ".sock")
	return err
}

// listenUnix listens on a socket to which only this user can connect. The address of a socket holds
// only 107 bytes, so the path goes through an open directory.
func listenUnix(path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: throughFD(dir, path), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return l, os.Chmod(path, 0o600)
}

func throughFD(dir *os.File, path string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
}

// states asks all mounts of this user for their state. It removes records of mounts that are gone.
// An error may be about some records alone, and the other mounts are returned too.
func states(ctx context.Context) ([]mountState, error) {
	dir, err := stateDir()
	if err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	here, err := mounts.List()
	if err != nil {
		return nil, err
	}
	var all []mountState
	var unreadable error
	for _, name := range names {
		m, err := stateOf(ctx, strings.TrimSuffix(name, ".json"))
		if errors.Is(err, os.ErrNotExist) {
			continue // unmounted since
		}
		if err != nil { // perhaps of another version
			err = withHint(err, "if no mount belongs to that file, remove it")
			unreadable = cmp.Or(unreadable, err)
			continue
		}
		if m.State != stateAlive && !mountedAt(here, m.Mountpoint) {
			if m.State == stateDead {
				forget(m.path)
			}
			continue // unmounted, or about to end
		}
		all = append(all, m)
	}
	return latest(all), unreadable
}

// latest keeps the newest mount at each mountpoint. It removes the records of older ones if their
// processes are gone.
func latest(all []mountState) (kept []mountState) {
	slices.SortStableFunc(all, func(a, b mountState) int {
		return cmp.Or(cmp.Compare(a.Mountpoint, b.Mountpoint), b.Started.Compare(a.Started))
	})
	for i, m := range all {
		switch {
		case i == 0, m.Mountpoint != all[i-1].Mountpoint, isDescriptor(m.Mountpoint):
			kept = append(kept, m)
		case m.State == stateDead:
			forget(m.path)
		}
	}
	return kept
}

// stateOf reads a record and asks the process of the mount.
func stateOf(ctx context.Context, path string) (m mountState, err error) {
	m.path, m.State = path, stateAlive
	if m.record, err = readRecord(path); err != nil {
		return m, err
	}
	answer, err := ask(ctx, path+".sock")
	switch {
	case err == nil && answer.PID == m.PID && answer.Mountpoint == m.Mountpoint:
		m.snapshot = answer
	case refused(err) || !m.record.foreign() && ended(m.PID):
		m.State = stateDead
	default:
		m.State = stateSilent
	}
	return m, nil
}

// waitEnded waits until the process that served a mountpoint has ended. Then its log is complete
// and its memory free. It gives up after a while, since the mount is gone in any case. It does not
// wait for older ones: they serve what was detached with --lazy.
func waitEnded(ctx context.Context, mountpoint string) {
	dir, err := stateDir()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	path, r := newest(recordsOf(dir, mountpoint))
	for path != "" && !over(path, r) && ctx.Err() == nil {
		pause(ctx)
	}
}

// newest returns the record of the mount that began last, and its path.
func newest(records map[string]record) (path string, last record) {
	for p, r := range records {
		if path == "" || r.Started.After(last.Started) {
			path, last = p, r
		}
	}
	return path, last
}

// pause waits a moment before the next try.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Millisecond):
	}
}

// ask connects to the socket of a mount.
func ask(ctx context.Context, path string) (s snapshot, err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return s, err
	}
	defer dir.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", throughFD(dir, path))
	if err != nil {
		return s, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	return readAnswer(conn)
}

// forget removes the files of a mount that is gone, except its log.
func forget(path string) {
	os.Remove(path + ".json")
	os.Remove(path + ".json.new")
	os.Remove(path + ".sock")
}

// mountedAt reports whether a checkpoint is mounted at a mountpoint.
func mountedAt(all []mounts.Entry, mountpoint string) bool {
	return slices.ContainsFunc(all, func(m mounts.Entry) bool {
		return m.Mountpoint == mountpoint && m.Type == mounts.Type
	})
}
