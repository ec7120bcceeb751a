package mutate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Op is one change to a file.
type Op struct {
	Name string // of Mutations
	Off  int64  // where, for those that change bytes; on a page
	Len  int64  // how much; at least a page
}

// file is the file to change. It is found even if its names change.
type file struct {
	path   string // where it was at first
	names  []string
	handle int // for its path only
	old    []byte
	times  [2]unix.Timespec
	mapped []byte // nil: it is not
	seen   byte   // of it
	open   int    // for writing; -1: it is not
	binds  []string
	made   int // names made
}

const page = 4096

// mutation is a way to change a file.
type mutation struct {
	do func(f *file, o Op) error
	// Harmless changes leave the bytes as they are.
	Harmless bool
}

// Mutations are all ways, by name.
var Mutations = map[string]mutation{
	"write":                   {do: (*file).write},
	"punch":                   {do: (*file).punch},
	"truncate and regrow":     {do: (*file).regrow},
	"mapped store":            {do: (*file).store},
	"O_DIRECT store":          {do: (*file).storeDirect},
	"clone range":             {do: (*file).clone},
	"copy range":              {do: (*file).copyRange},
	"exchange blocks":         {do: (*file).exchange},
	"open for writing":        {do: (*file).openOnly},
	"utimens":                 {do: (*file).putTimesBack},
	"rename":                  {do: (*file).rename, Harmless: true},
	"rename another over":     {do: (*file).replace, Harmless: true},
	"link":                    {do: (*file).link, Harmless: true},
	"unlink":                  {do: (*file).unlink, Harmless: true},
	"link and unlink":         {do: (*file).linkAndUnlink, Harmless: true},
	"chmod":                   {do: (*file).chmod, Harmless: true},
	"chown":                   {do: (*file).chown, Harmless: true},
	"bind mount over it":      {do: (*file).bind, Harmless: true},
	"read by another program": {do: (*file).read, Harmless: true},
}

// Early are the things that may exist before the file is first read: nothing, a mapping with a
// dirty page, one with clean pages, or a descriptor.
var Early = []string{"", "dirty mapping", "clean mapping", "descriptor"}

// newFile takes a file whose bytes are known.
func newFile(path, early string) (*file, error) {
	old, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	f := &file{path: path, names: []string{path}, old: old,
		times: [2]unix.Timespec{st.Atim, st.Mtim}, open: -1}
	if f.handle, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return nil, err
	}
	return f, f.begin(early)
}

// begin makes one of Early. Bytes and times stay as they are.
func (f *file) begin(early string) (err error) {
	switch early {
	case "":
		return nil
	case "descriptor":
		f.open, err = f.openFor(unix.O_RDWR)
		return err
	}
	if err = f.mapIt(); err == nil && early == "dirty mapping" {
		for off := 0; off < len(f.mapped); off += page {
			f.mapped[off] = f.old[off]
		}
		err = f.putTimesBack(Op{})
	}
	return err
}

// end closes and unmaps everything.
func (f *file) end() (err error) {
	if f.mapped != nil {
		err = unix.Munmap(f.mapped)
	}
	if f.open >= 0 {
		err = errors.Join(err, unix.Close(f.open))
	}
	for _, b := range slices.Backward(f.binds) {
		err = errors.Join(err, unix.Unmount(b, unix.MNT_DETACH))
	}
	return errors.Join(err, unix.Close(f.handle))
}

// self is a path to the file itself.
func (f *file) self() string { return fmt.Sprintf("/proc/self/fd/%d", f.handle) }

func (f *file) openFor(flags int) (int, error) {
	return unix.Open(f.self(), flags|unix.O_CLOEXEC, 0)
}

// writing opens the file for a moment.
func (f *file) writing(flags int, do func(fd int) error) error {
	fd, err := f.openFor(unix.O_RDWR | flags)
	if err != nil {
		return err
	}
	return errors.Join(do(fd), unix.Close(fd))
}

// other makes bytes that differ from those of the file everywhere.
func (f *file) other(o Op) []byte {
	p := slices.Clone(f.old[o.Off : o.Off+o.Len])
	for i := range p {
		p[i] ^= 0x5a
	}
	return p
}

func (f *file) write(o Op) error {
	return f.writing(0, func(fd int) error {
		_, err := unix.Pwrite(fd, f.other(o), o.Off)
		return err
	})
}

func (f *file) punch(o Op) error {
	return f.writing(0, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, o.Off, o.Len)
	})
}

// regrow truncates the file by its path, without a descriptor for writing.
func (f *file) regrow(o Op) error {
	return errors.Join(unix.Truncate(f.self(), o.Off), unix.Truncate(f.self(), int64(len(f.old))))
}

func (f *file) mapIt() error {
	return f.writing(0, func(fd int) (err error) {
		f.mapped, err = unix.Mmap(fd, 0, len(f.old), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_SHARED)
		return err
	})
}

// store reads a page before it stores to it. On a file system in memory the kernel then reports the
// store to no one.
func (f *file) store(o Op) error {
	if f.mapped == nil {
		if err := f.mapIt(); err != nil {
			return err
		}
	}
	for off := o.Off; off < o.Off+o.Len; off += page {
		f.seen += f.mapped[off]
	}
	copy(f.mapped[o.Off:], f.other(o))
	return nil
}

// aligned is memory that begins on a page.
func aligned(p []byte) ([]byte, error) {
	m, err := unix.Mmap(-1, 0, len(p), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		copy(m, p)
	}
	return m, err
}

func (f *file) storeDirect(o Op) error {
	p, err := aligned(f.other(o))
	if err != nil {
		return err
	}
	defer unix.Munmap(p)
	return f.writing(unix.O_DIRECT, func(fd int) error {
		_, err := unix.Pwrite(fd, p, o.Off)
		return err
	})
}

// beside makes another file of the same size in the same folder, with other bytes.
func (f *file) beside() (string, error) {
	f.made++
	name := fmt.Sprintf("%s.other%d", f.path, f.made)
	return name, os.WriteFile(name, f.other(Op{Len: int64(len(f.old))}), 0o644)
}

// from opens a file beside this one, to take bytes from.
func (f *file) from(do func(fd, from int) error) error {
	name, err := f.beside()
	if err != nil {
		return err
	}
	from, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	return f.writing(0, func(fd int) error { return do(fd, int(from.Fd())) })
}

func (f *file) clone(o Op) error {
	return f.from(func(fd, from int) error {
		return unix.IoctlFileCloneRange(fd, &unix.FileCloneRange{
			Src_fd: int64(from), Src_offset: uint64(o.Off), Src_length: uint64(o.Len),
			Dest_offset: uint64(o.Off),
		})
	})
}

func (f *file) copyRange(o Op) error {
	return f.from(func(fd, from int) error {
		in, out := o.Off, o.Off
		_, err := unix.CopyFileRange(from, &in, fd, &out, int(o.Len), 0)
		return err
	})
}

// exchange swaps the blocks of two files, which leaves the times of both as they are. The page
// cache still has the old bytes then, until it forgets them.
func (f *file) exchange(o Op) error {
	var st unix.Statfs_t
	if err := unix.Statfs(f.self(), &st); err != nil {
		return err
	}
	var err error
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC:
		err = f.from(moveExtents(o))
	case unix.XFS_SUPER_MAGIC:
		err = f.swapExtents()
	default:
		return unix.EOPNOTSUPP
	}
	if err != nil {
		return err
	}
	fd, err := f.openFor(unix.O_RDONLY)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fsync(fd), unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), unix.Close(fd))
}

// moveExtents gives our blocks to another file of an ext4, and us its own.
func moveExtents(o Op) func(fd, from int) error {
	return func(fd, from int) error {
		if err := errors.Join(unix.Fsync(fd), unix.Fsync(from)); err != nil {
			return err
		}
		move := struct {
			_, donor                uint32
			from, to, length, moved uint64
		}{
			donor: uint32(fd), from: uint64(o.Off / page),
			to: uint64(o.Off / page), length: uint64(o.Len / page),
		}
		const moveExt = 3<<30 | unsafe.Sizeof(move)<<16 | 'f'<<8 | 15 // EXT4_IOC_MOVE_EXT
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(from), moveExt,
			uintptr(unsafe.Pointer(&move))); errno != 0 {
			return errno
		}
		return nil
	}
}

// swapExtents swaps all blocks with another file of an XFS.
func (f *file) swapExtents() error {
	name, err := f.name()
	if err != nil {
		return err
	}
	other, err := f.beside()
	if err != nil {
		return err
	}
	out, err := exec.Command("xfs_io", "-c", "swapext "+other, name).CombinedOutput()
	if err == nil && len(out) > 0 {
		err = fmt.Errorf("swapext: %s", out)
	}
	return err
}

func (f *file) openOnly(Op) error { return f.writing(0, func(int) error { return nil }) }

func (f *file) putTimesBack(Op) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, f.self(), f.times[:], 0)
}

// name returns a name of the file.
func (f *file) name() (string, error) {
	if len(f.names) == 0 {
		return "", unix.ENOENT
	}
	return f.names[len(f.names)-1], nil
}

// unused makes a name.
func (f *file) unused() string {
	f.made++
	return fmt.Sprintf("%s.name%d", f.path, f.made)
}

func (f *file) rename(Op) error {
	from, err := f.name()
	to := f.unused()
	if err == nil {
		err = os.Rename(from, to)
	}
	if err == nil {
		f.names[len(f.names)-1] = to
	}
	return err
}

func (f *file) replace(Op) error {
	name, err := f.name()
	if err != nil {
		return err
	}
	other, err := f.beside()
	if err == nil {
		err = os.Rename(other, name)
	}
	if err == nil {
		f.names = f.names[:len(f.names)-1]
	}
	return err
}

func (f *file) link(Op) error {
	from, err := f.name()
	to := f.unused()
	if err == nil {
		err = os.Link(from, to)
	}
	if err == nil {
		f.names = append(f.names, to)
	}
	return err
}

func (f *file) unlink(Op) error {
	name, err := f.name()
	if err == nil {
		err = os.Remove(name)
	}
	if err == nil {
		f.names = f.names[:len(f.names)-1]
	}
	return err
}

// linkAndUnlink does the same as cp -al and then rm -r of the copy.
func (f *file) linkAndUnlink(o Op) error {
	if err := f.link(o); err != nil {
		return err
	}
	return f.unlink(o)
}

func (f *file) chmod(Op) error { return unix.Chmod(f.self(), 0o444) }

// chown gives the file the owner that it has.
func (f *file) chown(Op) error {
	var st unix.Stat_t
	if err := unix.Stat(f.self(), &st); err != nil {
		return err
	}
	return unix.Chown(f.self(), int(st.Uid), int(st.Gid))
}

// bind mounts another file where this one is.
func (f *file) bind(Op) error {
	name, err := f.name()
	if err != nil {
		return err
	}
	other, err := f.beside()
	if err == nil {
		err = unix.Mount(other, name, "", unix.MS_BIND, "")
	}
	if err == nil {
		f.binds = append(f.binds, name)
		f.names = f.names[:len(f.names)-1] // the name leads to the other file now
	}
	return err
}

func (f *file) read(Op) error {
	_, err := os.ReadFile(f.self())
	return err
}
