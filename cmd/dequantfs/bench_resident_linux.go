package main

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// residentPages counts the pages of a range of a file that are in the page cache, and all of its
// pages. The range begins on a page. Measurements use it to check that a file was cold.
func residentPages(f *os.File, off, n int64) (resident, pages int, err error) {
	if n == 0 {
		return 0, 0, nil
	}
	m, err := unix.Mmap(int(f.Fd()), off, int(n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, 0, os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(m)
	size := int64(os.Getpagesize())
	in := make([]byte, (n+size-1)/size)
	// x/sys/unix has no mincore.
	_, _, errno := syscall.Syscall(unix.SYS_MINCORE,
		uintptr(unsafe.Pointer(&m[0])), uintptr(n), uintptr(unsafe.Pointer(&in[0])))
	if errno != 0 {
		return 0, 0, os.NewSyscallError("mincore", errno)
	}
	for _, b := range in {
		resident += int(b & 1)
	}
	return resident, len(in), nil
}
