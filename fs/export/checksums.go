package export

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
)

// checksums computes the SHA-256 of a file's header and of each tensor. It takes the bytes of the
// file in order.
type checksums struct {
	sum    hash.Hash
	record FileRecord
	at     int64
	next   int // index of the current tensor; -1: the bytes before the first tensor
}

func newChecksums(f FileRecord) *checksums {
	f.Tensors = slices.Clone(f.Tensors)
	return &checksums{sum: sha256.New(), next: -1, record: f}
}

// part returns where the current part of the file ends, and the field for its checksum.
func (c *checksums) part() (end int64, sum *string) {
	if c.next < 0 {
		return c.record.dataOffset(), &c.record.SHA256
	}
	t := &c.record.Tensors[c.next]
	return t.End, &t.SHA256
}

// write takes the next bytes.
func (c *checksums) write(p []byte) {
	for {
		end, sum := c.part()
		n := min(int64(len(p)), end-c.at)
		c.sum.Write(p[:n])
		p, c.at = p[n:], c.at+n
		if c.at < end {
			return
		}
		*sum = hex.EncodeToString(c.sum.Sum(nil))
		if c.next == len(c.record.Tensors)-1 {
			return
		}
		c.sum.Reset()
		c.next++
	}
}

// result returns the record, after all bytes of the file.
func (c *checksums) result() (FileRecord, error) {
	if c.at != c.record.Size {
		return FileRecord{}, fmt.Errorf("%s: checksums of %d of %d bytes",
			c.record.Name, c.at, c.record.Size)
	}
	c.write(nil) // for empty tensors at the end
	return c.record, nil
}
