package fs

import "math/bits"

// pageSize is the size of a page of the kernel's cache.
const pageSize = 4096

// markEvery is the distance of marks in a file.
const markEvery = 16 << 20

// isMark reports whether a page of the file is a mark, which no forerun stores: one in markEvery
// bytes, and the last one.
func (f *file) isMark(page int64) bool {
	const every = markEvery / pageSize
	return page%every == every/2 || page == (f.Size()-1)/pageSize
}

// mark returns the first mark of [from, to), or to if there is none.
func (f *file) mark(from, to int64) int64 {
	for from < to && !f.isMark(from) {
		from++
	}
	return from
}

// given is the set of pages of a file that the kernel was given, or asks for now.
type given []uint64

// set adds the pages [from, to).
func (g given) set(from, to int64) {
	for from < to {
		word, mask, next := bitsOf(from, to)
		g[word] |= mask
		from = next
	}
}

// next returns the first page of [from, to) that is in the set, or is not if in is false. It
// returns to if there is none.
func (g given) next(from, to int64, in bool) int64 {
	for from < to {
		word, mask, next := bitsOf(from, to)
		found := g[word] & mask
		if !in {
			found = ^g[word] & mask
		}
		if found != 0 {
			return word<<6 + int64(bits.TrailingZeros64(found))
		}
		from = next
	}
	return to
}

// bitsOf returns the word of a page, the bits of [from, to) in it, and where the next word begins.
func bitsOf(from, to int64) (word int64, mask uint64, next int64) {
	word = from >> 6
	next = min((word+1)<<6, to)
	mask = ^uint64(0) << (from & 63)
	if end := next & 63; end != 0 {
		mask &= 1<<end - 1
	}
	return word, mask, next
}

// pages returns the pages that a part of a file has bytes in.
func pages(off, n int64) (from, to int64) {
	return off / pageSize, (off + n + pageSize - 1) / pageSize
}
