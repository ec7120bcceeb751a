package pagecache

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mincoreOf sets bit 0 of seen[i] if page i of a mapping is in memory.
func mincoreOf(mapping, seen []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapping[0])),
		uintptr(len(mapping)), uintptr(unsafe.Pointer(&seen[0])))
	if errno != 0 {
		return errno
	}
	return nil
}
