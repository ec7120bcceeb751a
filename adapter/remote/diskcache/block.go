package diskcache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"
)

const (
	pieceSize  = 32 << 10 // has one CRC
	footerSize = 4 << 10
	headSize   = 8 + 2*8 + 3*4 // of a footer: magic, offset, length, lengths of the key's parts
	crcSize    = 4
	mostBytes  = 1 << 30 // of a block
	alignment  = 4 << 10 // of what a file takes on a disk
)

// magic begins a footer. Its end is the version of the format.
const magic = "dqfsblk\x01"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is a file that is not the block of its name.
var errDamaged = errors.New("damaged")

// block is n bytes of an object from offset off on.
type block struct {
	key    Key
	off, n int64
}

// valid reports whether a block can be kept.
func (b block) valid() bool {
	long := len(b.key.Origin)+len(b.key.Object)+len(b.key.Version) > footerSize-headSize-crcSize
	return b.key.Version != "" && b.off >= 0 && b.n > 0 && b.n <= mostBytes && !long
}

// path is the name of the file of a block.
func (b block) path() string { return path.Join(b.key.dir(), blockName(b.off, b.n)) }

// dir is the directory of the blocks of an object.
func (k Key) dir() string {
	h := sha256.New()
	for _, s := range []string{k.Origin, k.Object, k.Version} {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s))))
		io.WriteString(h, s)
	}
	name := hex.EncodeToString(h.Sum(nil))
	return path.Join(blocksDir, name[:2], name)
}

// blockName is the name of a block in the directory of its object.
func blockName(off, n int64) string { return fmt.Sprintf("%d-%d", off, n) }

// parseName reads the name of a block.
func parseName(name string) (off, n int64, ok bool) {
	first, second, _ := strings.Cut(name, "-")
	off, err := strconv.ParseInt(first, 10, 64)
	n, err2 := strconv.ParseInt(second, 10, 64)
	ok = err == nil && err2 == nil && name == blockName(off, n) && off >= 0 && n > 0 &&
		n <= mostBytes
	return off, n, ok
}

// pieces is the number of CRCs of n bytes.
func pieces(n int64) int64 { return (n + pieceSize - 1) / pieceSize }

// trailerSize is the bytes of the CRCs and the footer.
func trailerSize(n int64) int64 { return pieces(n)*crcSize + footerSize }

// fileSize is the length of the file of a block.
func fileSize(n int64) int64 { return n + trailerSize(n) }

// onDisk is what the file of a block takes on a disk.
func onDisk(n int64) int64 { return (fileSize(n) + alignment - 1) / alignment * alignment }

// footer writes the footer without its CRC into zeroed bytes.
func (b block) footer(into []byte) {
	parts := []string{b.key.Origin, b.key.Object, b.key.Version}
	copy(into, magic)
	binary.LittleEndian.PutUint64(into[8:], uint64(b.off))
	binary.LittleEndian.PutUint64(into[16:], uint64(b.n))
	at := headSize
	for i, s := range parts {
		binary.LittleEndian.PutUint32(into[24+4*i:], uint32(len(s)))
		at += copy(into[at:], s)
	}
}

// parseFooter reads the key of a footer.
func parseFooter(f []byte) (b block, ok bool) {
	b.off = int64(binary.LittleEndian.Uint64(f[8:]))
	b.n = int64(binary.LittleEndian.Uint64(f[16:]))
	rest := f[headSize : footerSize-crcSize]
	for i, part := range []*string{&b.key.Origin, &b.key.Object, &b.key.Version} {
		n := binary.LittleEndian.Uint32(f[24+4*i:])
		if uint64(n) > uint64(len(rest)) {
			return block{}, false
		}
		*part, rest = string(rest[:n]), rest[n:]
	}
	return b, b.valid()
}

// trailer makes what follows the bytes of a block.
func (b block) trailer(data []byte) []byte {
	t := make([]byte, trailerSize(b.n))
	at := 0
	for p := range chunks(data, pieceSize) {
		binary.LittleEndian.PutUint32(t[at:], crc32.Checksum(p, castagnoli))
		at += crcSize
	}
	b.footer(t[at:])
	end := len(t) - crcSize
	binary.LittleEndian.PutUint32(t[end:], crc32.Checksum(t[:end], castagnoli))
	return t
}

// chunks cuts bytes.
func chunks(p []byte, size int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			n := min(size, len(p))
			if !yield(p[:n]) {
				return
			}
			p = p[n:]
		}
	}
}

// readTrailer reads and checks what follows the bytes of a block. Of the block, only the length has
// to be known.
func readTrailer(r io.ReaderAt, n int64, t []byte) error {
	if _, err := r.ReadAt(t, n); err != nil {
		return fmt.Errorf("%w: its footer: %w", errDamaged, err)
	}
	end := len(t) - crcSize
	if binary.LittleEndian.Uint32(t[end:]) != crc32.Checksum(t[:end], castagnoli) {
		return fmt.Errorf("%w: the CRC of its footer", errDamaged)
	}
	if !bytes.HasPrefix(t[len(t)-footerSize:], []byte(magic)) {
		return fmt.Errorf("%w: it has no footer", errDamaged)
	}
	return nil
}

// scratch has buffers for one piece and a footer.
var scratch = sync.Pool{New: func() any { return new([pieceSize + footerSize]byte) }}

// read fills p with bytes of the block in a file, from offset at on, and checks them.
func (b block) read(r io.ReaderAt, p []byte, at int64) error {
	buffer := scratch.Get().(*[pieceSize + footerSize]byte)
	defer scratch.Put(buffer)
	table, err := b.table(r, buffer[pieceSize:])
	if err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := b.readSome(r, p, at, table, buffer[:pieceSize])
		if err != nil {
			return err
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// table reads the CRCs of a block, and checks that the file is this block.
func (b block) table(r io.ReaderAt, want []byte) ([]byte, error) {
	t := make([]byte, trailerSize(b.n))
	if err := readTrailer(r, b.n, t); err != nil {
		return nil, err
	}
	table, footer := t[:len(t)-footerSize], t[len(t)-footerSize:]
	clear(want)
	b.footer(want)
	if end := footerSize - crcSize; !bytes.Equal(footer[:end], want[:end]) {
		return nil, fmt.Errorf("%w: it is another block", errDamaged)
	}
	return table, nil
}

// readAtOnce is what one call of the kernel reads. It stays in the cache of the processor until its
// CRCs are computed.
const readAtOnce = 8 * pieceSize

// readSome reads the first bytes of p: whole pieces into it, and part of a piece by way of a
// buffer.
func (b block) readSome(r io.ReaderAt, p []byte, at int64, table, buffer []byte) (int, error) {
	begin := at / pieceSize * pieceSize
	end := min(begin+pieceSize, b.n)
	if at == begin && int64(len(p)) >= end-begin {
		n := min(int64(len(p)), readAtOnce)
		if at+n < b.n {
			n = n / pieceSize * pieceSize
		}
		return int(n), checked(r, p[:n], at, table)
	}
	buffer = buffer[:end-begin]
	if err := checked(r, buffer, begin, table); err != nil {
		return 0, err
	}
	return copy(p, buffer[at-begin:]), nil
}

// checked reads pieces and compares their CRCs.
func checked(r io.ReaderAt, p []byte, at int64, table []byte) error {
	if n, err := r.ReadAt(p, at); n < len(p) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	i := at / pieceSize * crcSize
	for piece := range chunks(p, pieceSize) {
		if binary.LittleEndian.Uint32(table[i:]) != crc32.Checksum(piece, castagnoli) {
			return fmt.Errorf("%w: the CRC of bytes from %d on", errDamaged, i/crcSize*pieceSize)
		}
		i += crcSize
	}
	return nil
}
