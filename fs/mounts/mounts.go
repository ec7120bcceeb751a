// Package mounts reads the kernel's table of mounts and takes mounts down. It never touches the
// mounted file systems, since one that hangs would hang the program, too.
package mounts

import "errors"

// Reasons why a mount cannot be taken down by this user.
var (
	ErrNoTable = errors.New("/etc/mtab does not show the mounts of the kernel")
	ErrNoName  = errors.New("this user has no name in /etc/passwd")
	ErrForeign = errors.New("another user has mounted it")
)

// StaysError says that something was mounted for a moment, but could not be unmounted again.
type StaysError struct {
	Mountpoint string
	Err        error
}

// Error names the mountpoint and the reason.
func (e *StaysError) Error() string {
	return e.Mountpoint + " was mounted, but cannot be unmounted again: " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *StaysError) Unwrap() error { return e.Err }

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
