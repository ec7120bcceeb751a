package source

// DirectAlign divides the addresses and lengths of buffers and the offsets of ReadDirect.
const DirectAlign = 4096

// Direct is a File that can also be read past the page cache of the system.
type Direct interface {
	File

	// ReadDirect reads like ReadAt, but waits without a limit. The address and length of the buffer
	// and the offset are multiples of DirectAlign. The buffer may reach beyond the end of the file.
	// Then the error is io.EOF as usual.
	ReadDirect(p []byte, off int64) (int, error)

	// Cached reports whether most of [off, off+n) is in the page cache. It is false if the system
	// does not tell.
	Cached(off, n int64) bool
}
