// Package mounts reads the kernel's table of mounts and takes mounts down. It never touches what is
// mounted: a mount that hangs must not hang the program that looks at it.
package mounts

// Type is how the kernel names the mounts of dequantfs.
const Type = "fuse.dequantfs"

// Entry is one mount.
type Entry struct {
	Device     string // major:minor
	Mountpoint string
	Type       string // of the filesystem, such as "ext4"
	Source     string // the device, or what the filesystem has in its place
}
