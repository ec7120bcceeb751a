package source

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// protect makes later stores through existing mappings change the file's times. The kernel notes
// the first store to a page after the page was written back. The returned identity is from before
// the last write-back, so a store in between counts as a change.
func (f *localFile) protect() (id identity, err error) {
	for range 3 {
		if id, err = f.settle(); err != nil {
			return identity{}, err
		}
		if err = f.writeBack(); err != nil {
			return identity{}, err
		}
		if now, err := identify(f); err != nil || now == id {
			return id, err
		}
	}
	return id, nil // it changes all the time, and reads will say so
}

// writeBack writes the dirty pages of the file back. On a local disk it does not flush the disk's
// own cache, which is slow. Overlays and servers need fdatasync.
func (f *localFile) writeBack() error {
	err := ignoringEINTR(func() error {
		if f.proof.system.leases {
			return syncPages(f.fd)
		}
		return unix.Fdatasync(int(f.fd))
	})
	switch err {
	case unix.EIO, unix.ENOSPC, unix.EDQUOT:
		return fmt.Errorf("writing it back: %w", err) // the bytes in memory will be lost
	}
	return nil // the file system has no such call
}

// syncPages writes back the dirty pages of a file and waits for that.
func syncPages(fd uintptr) error {
	return unix.SyncFileRange(int(fd), 0, 0,
		unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

// settleTries is the most milliseconds that settle waits.
const settleTries = 2000

// settle returns the file's identity. It waits until the clock's tick of the last change is over,
// so any later change gets another time.
func (f *localFile) settle() (id identity, err error) {
	for range settleTries {
		if id, err = identify(f); err != nil || !ticking(id.ctime) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return id, err
}

// ticking reports whether a change now could get the same time of change. If times are whole
// seconds, a tick is a second.
func ticking(ctime int64) bool {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) != nil {
		return false
	}
	age := now.Nano() - ctime
	if ctime%int64(time.Second) == 0 {
		return age < int64(time.Second) && age > -int64(time.Second)
	}
	return age <= 0 && age > -int64(time.Second) // more than a second ahead: another clock
}

// identify returns the identity of an open file. It allocates only if it asks a server.
func identify(f *localFile) (identity, error) {
	if !f.proof.system.told {
		return identifyHere(f)
	}
	_ = syncPages(f.fd) // so that the server knows of all stores, and its answer shows them
	var st unix.Statx_t
	const flags = unix.AT_EMPTY_PATH | unix.AT_STATX_FORCE_SYNC
	switch err := ignoringEINTR(func() error {
		return unix.Statx(int(f.fd), "", flags, unix.STATX_BASIC_STATS, &st)
	}); err {
	case nil:
		return identity{
			size:  int64(st.Size),
			mtime: nanoseconds(st.Mtime), ctime: nanoseconds(st.Ctime), links: uint64(st.Nlink),
		}, nil
	case unix.ENOSYS, unix.EPERM: // old kernels and sandboxes
		return identifyHere(f)
	default:
		return identity{}, err
	}
}

func nanoseconds(t unix.StatxTimestamp) int64 {
	return t.Sec*int64(time.Second) + int64(t.Nsec)
}

// ignoringEINTR repeats a call that a signal has interrupted.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
