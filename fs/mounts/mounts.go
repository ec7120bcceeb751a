// Package mounts reads the kernel's table of mounts and takes mounts down. It never touches the
// mounted file systems, since one that hangs would hang the program, too.
package mounts

// Type is how the kernel names the mounts of dequantfs.
const Type = "fuse." + subtype

const subtype = "dequantfs"

// Entry is one mount.
type Entry struct {
	Device     string // major:minor
	Mountpoint string
	Type       string // of the filesystem, such as "ext4"
	Source     string // the device, or what the filesystem has in its place
}
