package expr

// DirectAlign is what the address and the length of buffers and the offsets of ReadDirect are multiples of.
const DirectAlign = 4096

// DirectFile is a File that can be read past the system's page cache.
type DirectFile interface {
	File

	// ReadDirect reads like ReadAt. The buffer's address and length and off are multiples of
	// DirectAlign; the buffer may reach beyond the end of the file, which is io.EOF as usual.
	ReadDirect(p []byte, off int64) (int, error)

	// Cached says whether most of [off, off+n) is in the page cache. Where the system does not tell, it is not.
	Cached(off, n int64) bool
}
