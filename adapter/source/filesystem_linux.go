package source

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// filesystem describes which changes a file system shows.
type filesystem struct {
	name   string
	fixed  bool // it cannot be written to
	leases bool // a lease keeps out every process that could change the bytes
	memory bool // stores through a mapping do not change the times, and a hole changes them late
	swaps  bool // two files can exchange blocks, which does not change the times
	told   bool // a server knows sizes and times, and stores reach it late
}

// filesystems are the known file systems, by the number that statfs returns. Others are treated as
// if they had a server. On an overlay, two kinds of processes can write in spite of a lease: those
// that have already mapped the file, and those that write to a layer.
var filesystems = map[uint32]filesystem{
	unix.EXT4_SUPER_MAGIC:      {name: "ext4", leases: true, swaps: true}, // ext2 and ext3 too
	unix.XFS_SUPER_MAGIC:       {name: "xfs", leases: true, swaps: true},
	unix.BTRFS_SUPER_MAGIC:     {name: "btrfs", leases: true},
	unix.TMPFS_MAGIC:           {name: "tmpfs", leases: true, memory: true},
	unix.OVERLAYFS_SUPER_MAGIC: {name: "an overlay", swaps: true}, // in a layer
	unix.SQUASHFS_MAGIC:        {name: "squashfs", fixed: true},
	unix.EROFS_SUPER_MAGIC_V1:  {name: "erofs", fixed: true},
	unix.ISOFS_SUPER_MAGIC:     {name: "iso9660", fixed: true},
	unix.FUSE_SUPER_MAGIC:      {name: "fuse", told: true},
	unix.NFS_SUPER_MAGIC:       {name: "nfs", told: true},
}

// systemOf finds the file system of an open file.
func systemOf(fd uintptr) (filesystem, error) {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(int(fd), &st) }); err != nil {
		return filesystem{}, err
	}
	number := uint32(st.Type)
	s, known := filesystems[number]
	if !known {
		s = filesystem{name: fmt.Sprintf("a file system of type %#x", number), told: true}
	}
	if number == unix.OVERLAYFS_SUPER_MAGIC && !onDisk(fd) {
		s.name, s.memory = "an overlay that may keep its files in memory", true
	}
	return s, nil
}

// onDisk reports whether a file of an overlay is in a layer on a disk. Such a file is written back
// on request.
func onDisk(fd uintptr) bool {
	var st unix.Statx_t
	const only = unix.STATX_DIOALIGN | unix.STATX_SUBVOL // only file systems on disks give these
	err := unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, only, &st)
	return err == nil && st.Mask&only != 0 && !volatile(st.Dev_major, st.Dev_minor)
}

// volatile reports whether the overlay with this device number ignores fdatasync, or may do so.
func volatile(major, minor uint32) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return true
	}
	device := fmt.Sprintf("%d:%d", major, minor)
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[2] == device {
			return strings.Contains(fields[len(fields)-1], "volatile")
		}
	}
	return true // it is mounted in another namespace
}
