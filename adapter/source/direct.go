package source

// DirectAlign is what the addresses and lengths of buffers and the offsets of ReadDirect are
// multiples of.
const DirectAlign = 4096

// Direct is a File that can also be read past the page cache of the system.
type Direct interface {
	File

	// ReadDirect reads like ReadAt, and waits for as long as it takes. The address and length of
	// the buffer and the offset are multiples of DirectAlign. The buffer may reach beyond the end
	// of the file, which is io.EOF as usual.
	ReadDirect(p []byte, off int64) (int, error)

	// Cached says whether most of [off, off+n) is in the page cache. If the system does not tell,
	// it is not.
	Cached(off, n int64) bool
}
