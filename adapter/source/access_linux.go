package source

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// walkers has the walker of each folder.
type walkers map[*folder]*walker

// walker returns the walker of a folder. It holds the folder open until the lookup is closed.
func (l *Lookup) walker(d *folder) (*walker, error) {
	if w := l.walkers[d]; w != nil {
		return w, nil
	}
	w := &walker{path: d.path, at: -1, seen: map[folderID]*grant{}}
	root, err := openPath(unix.AT_FDCWD, "/")
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	at, way, err := w.walk(root, d.path)
	if err != nil {
		return nil, err
	}
	w.at, w.enter = at, append(way, w.folder(at, canSearch))
	if l.walkers == nil {
		l.walkers = walkers{}
	}
	l.walkers[d] = w
	return w, nil
}

// close closes the folders.
func (all walkers) close() {
	for _, w := range all {
		_ = unix.Close(w.at)
	}
}

// Access returns the users who may read the file. It inspects the file, the folders from the root
// of the file system to it, and those on the way of its links. Only the file that was opened
// counts. If the name leads to another file now, it grants nothing.
func (f *localFile) Access(l *Lookup) *Access {
	w, err := l.walker(f.in)
	if err != nil {
		return lost(f.in.path, err)
	}
	return w.access(w.file(f.grant(&w.mounts)))
}

// Access returns the users who may use a folder. It inspects the folders from the root of the file
// system to it.
func (d *folder) Access(l *Lookup, name string) FolderAccess {
	w, err := l.walker(d)
	if err != nil {
		a := lost(d.path, err)
		return FolderAccess{a, a}
	}
	at, way, err := w.walk(w.at, name)
	if err != nil {
		a := lost(filepath.Join(w.path, name), err)
		return FolderAccess{a, a}
	}
	defer unix.Close(at)
	return w.readers(at, way...)
}

// readers returns the users who may use an open folder. way has the grants of folders that were
// passed first.
func (w *walker) readers(folder int, way ...*grant) FolderAccess {
	way = append(way, w.folder(folder, canSearch))
	return FolderAccess{
		Enter: w.access(way),
		List:  w.access(way, []*grant{w.folder(folder, canRead)}),
	}
}

// lastGrant inspects a file that is about to be closed. It does not once the folder is closed: then
// no user is asked about, and a silent server must not keep a file open.
func (d *folder) lastGrant(f *localFile) grant {
	d.closing.Lock()
	defer d.closing.Unlock()
	g := grant{path: f.name, want: canRead}
	if d.closed {
		g.unknown = os.ErrClosed.Error()
		return g
	}
	g.inspect(int(f.fd), &d.mounts)
	return g
}

// lost is the access to a file that cannot be inspected.
func lost(path string, err error) *Access {
	return NoAccess(path, "cannot be looked at: "+err.Error())
}

// grant inspects an open file.
func (f *localFile) grant(m *mountTable) grant {
	f.use.RLock()
	defer f.use.RUnlock()
	if f.closed {
		return f.last
	}
	g := grant{path: f.name, want: canRead}
	g.inspect(int(f.fd), m)
	return g
}

// folderID identifies the grant of a folder, since the same folder is on many ways. One folder may
// be mounted at two paths, with different owners.
type folderID struct {
	path     string
	dev, ino uint64
	want     uint32
}

// walker follows names as the kernel does, and records the grant of each folder on the way.
type walker struct {
	path   string   // of the source's folder
	at     int      // that folder
	enter  []*grant // the grants needed to enter it
	seen   map[folderID]*grant
	mounts mountTable
}

// access returns the access that needs the grants of the folder and of some ways from there.
func (w *walker) access(ways ...[]*grant) *Access {
	return &Access{distinct(slices.Concat(w.enter, slices.Concat(ways...)))}
}

// maxLinks is the most symlinks that are followed in one name, as in the kernel.
const maxLinks = 40

// walk follows a name from an open folder. It returns the target as an O_PATH descriptor, and the
// folders in which parts of the name were looked up.
func (w *walker) walk(from int, name string) (end int, way []*grant, err error) {
	at, err := unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		way = append(way, w.folder(at, canSearch))
		next, target, err := step(at, part)
		unix.Close(at)
		if err != nil {
			return -1, nil, fmt.Errorf("%s: %w", part, err)
		}
		at = next
		if target == "" {
			continue
		}
		if links++; links > maxLinks {
			unix.Close(at)
			return -1, nil, unix.ELOOP
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, way, nil
}

// step opens one name in a folder. For a symlink it returns the target, and opens the folder where
// the target begins: the same folder, or the root.
func step(at int, name string) (next int, target string, err error) {
	next, err = openPath(at, name)
	if err != nil {
		return -1, "", err
	}
	st, err := fstat(next)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err = readLink(next)
	}
	if err == nil && target == "" {
		return next, "", nil
	}
	unix.Close(next)
	switch {
	case err != nil:
		return -1, "", err
	case filepath.IsAbs(target):
		next, err = openPath(at, "/")
	default:
		next, err = openPath(at, ".")
	}
	return next, target, err
}

// openPath opens a name in a folder for inspection.
func openPath(at int, name string) (int, error) {
	return again(func() (int, error) {
		return unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

func fstat(fd int) (unix.Stat_t, error) {
	var st unix.Stat_t
	_, err := again(func() (int, error) { return 0, unix.Fstat(fd, &st) })
	return st, err
}

// again repeats a call that a signal has interrupted, which can happen on FUSE.
func again[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// readLink reads the symlink of a descriptor.
func readLink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	return string(buf[:max(n, 0)]), err
}

// folder inspects an open folder once.
func (w *walker) folder(fd int, want uint32) *grant {
	path := pathOf(fd)
	st, err := fstat(fd)
	if err != nil {
		return &grant{path: path, want: want, unknown: "cannot be looked at: " + err.Error()}
	}
	id := folderID{path, st.Dev, st.Ino, want}
	g := w.seen[id]
	if g == nil {
		g = &grant{path: path, want: want}
		g.inspect(fd, &w.mounts)
		w.seen[id] = g
	}
	return g
}

// file returns all grants that the name of a file depends on: those of the folders on the way, of
// the file as it was opened, and of the file that has the name now.
func (w *walker) file(opened grant) []*grant {
	name := opened.path
	opened.path = filepath.Join(w.path, name)
	end, way, err := w.walk(w.at, name)
	if err != nil {
		opened.unknown = "cannot be looked at: " + err.Error()
		return []*grant{&opened}
	}
	defer unix.Close(end)
	now := &grant{path: opened.path, want: canRead}
	now.inspect(end, &w.mounts)
	if now.dev != opened.dev || now.ino != opened.ino {
		now.unknown = "is not the file any more that was opened"
	}
	return append(way, &opened, now)
}

// pathOf returns the path of an open folder, for messages.
func pathOf(fd int) string {
	path, err := os.Readlink(throughProc(fd))
	if err != nil {
		return "a folder of the source"
	}
	return path
}

// throughProc returns a path to an open file, which may be an O_PATH descriptor.
func throughProc(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// inspect finds the users who may use an open file or folder.
func (g *grant) inspect(fd int, m *mountTable) {
	st, err := fstat(fd)
	if err != nil {
		g.unknown = "cannot be looked at: " + err.Error()
		return
	}
	g.dev, g.ino = st.Dev, st.Ino
	g.fromMode(st.Uid, st.Gid, st.Mode)
	if why := g.filesystem(fd, m); why != "" {
		g.unknown = why
		return
	}
	acl, err := attribute(fd, "system.posix_acl_access")
	if err == nil && acl != nil {
		err = g.addACL(acl)
	}
	if err != nil {
		g.unknown = "has an ACL that cannot be read: " + err.Error()
	}
	g.mapped()
}

// attribute reads an extended attribute. It returns nil if there is none.
func attribute(fd int, name string) ([]byte, error) {
	for _, size := range []int{512, 64 << 10} { // the second is the most that there can be
		buf := make([]byte, size)
		n, err := again(func() (int, error) { return unix.Getxattr(throughProc(fd), name, buf) })
		switch {
		case err == nil:
			return buf[:n], nil
		case errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP):
			return nil, nil
		case !errors.Is(err, unix.ERANGE):
			return nil, err
		}
	}
	return nil, unix.ERANGE
}

// mapped replaces the ids of users and groups that have none in our user namespace, or on an
// idmapped mount. The kernel shows all of them as one id, which another user or group may really
// have.
func (g *grant) mapped() {
	user, group := overflow()
	for _, list := range []struct {
		entries []entry
		none    uint32
	}{{g.users, user}, {g.groups, group}} {
		for i := range list.entries {
			if list.entries[i].id == list.none {
				list.entries[i].id = noID
			}
		}
	}
}

// overflow returns the ids that the kernel shows for users and groups without an id.
var overflow = sync.OnceValues(func() (user, group uint32) {
	return overflowID("uid"), overflowID("gid")
})

func overflowID(kind string) uint32 {
	text, err := os.ReadFile("/proc/sys/kernel/overflow" + kind)
	n, failed := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil || failed != nil {
		return 65534 // unless it was changed
	}
	return uint32(n)
}
