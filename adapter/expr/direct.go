package expr

// DirectAlign is the alignment in bytes of buffers, lengths and offsets of ReadDirect.
const DirectAlign = 4096

// DirectFile is a File that can be read without the system's page cache.
type DirectFile interface {
	File

	// ReadDirect reads like ReadAt. The buffer's address, its length and off are multiples of
	// DirectAlign. The buffer may reach beyond the end of the file, which is then
	// io.EOF as in ReadAt.
	ReadDirect(p []byte, off int64) (int, error)

	// Cached reports whether most of [off, off+n) is in the page cache. It returns false if the
	// system does not tell.
	Cached(off, n int64) bool
}
