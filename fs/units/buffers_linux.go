package units

import "golang.org/x/sys/unix"

const hugePage = 2 << 20

// mapMemory allocates memory from the system. Its large pages make transposing cheaper, and the
// garbage collector neither counts nor scans it.
func mapMemory(n int64) []byte {
	const access, kind = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	buf, err := unix.Mmap(-1, 0, int(n), access, kind)
	if err != nil {
		return make([]byte, n)
	}
	_ = unix.Madvise(buf, unix.MADV_HUGEPAGE) // only a hint
	return buf
}

// unmapMemory returns memory to the system. Memory that was not mapped is left to the garbage
// collector.
func unmapMemory(buf []byte) { _ = unix.Munmap(buf[:cap(buf)]) }
