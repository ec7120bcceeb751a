package remote

import (
	"container/list"
	"math/bits"
	"time"
)

// block is a part of a file that is fetched, kept and freed as a whole. The fetcher's lock guards
// all fields but the first four. The bytes in buf before have never change, so a copy of them
// needs no lock, but a pin.
type block struct {
	table  *table
	index  int // in the table, or exactIndex
	off, n int64

	state   state
	buf     []byte
	have    int64   // bytes at the beginning of buf that have arrived
	waiting []*part // of readers that are not done with the block
	pins    int     // copies of bytes that are under way
	unkept  bool    // it waits to be written to the disk cache
	dropped bool    // it has left the table

	early  bool      // fetched ahead, and not read to its end yet
	keep   bool      // fetched to the end even if no reader waits
	read   int64     // bytes that were copied to readers
	seen   pieces    // of the block that were read
	used   time.Time // when it was last used, or was full
	looked bool      // the disk cache was asked
	onDisk bool      // the disk cache had it

	retry  retry
	wrong  int // how often its bytes did not have the hash
	flight *flight
	timer  *time.Timer // that ends the state delayed

	in      *list.List // the list that it is in: a queue, or one for eviction
	element *list.Element
}

// state is how far a block is.
type state int

const (
	idle    state = iota // nothing was begun
	queued               // waits for a request, or for a look into the disk cache
	looking              // is being read from the disk cache
	flying               // is being received
	delayed              // is asked for again after a pause
	full                 // all bytes are there
)

// wanted reports whether a block is fetched to the end.
func (b *block) wanted() bool { return len(b.waiting) > 0 || b.early || b.keep }

// hashed reports whether a block is a whole file, and its publisher tells the hash of that. No byte
// of it is shown before all were compared with the hash.
func (b *block) hashed() bool {
	o := b.table.object
	return o.sha256 != "" && b.off == 0 && b.n == o.size
}

// unused reports whether a block is not used by a reader now.
func (b *block) unused() bool { return len(b.waiting) == 0 && b.pins == 0 }

// spent reports whether all of a block was read. Several readers may read it out of order.
func (b *block) spent() bool { return b.seen.all(b.n) }

// pieces has a bit for each of up to 128 equal pieces of a block. A piece was read if its last byte
// was, since most reads go forward.
type pieces [2]uint64

// size is how long the pieces of a block of n bytes are, but for the last.
func (pieces) size(n int64) int64 { return max((n+127)/128, 1) }

// mark notes a read of [from, to) of a block of n bytes.
func (p *pieces) mark(from, to, n int64) {
	size := p.size(n)
	for i := from / size; i*size < n && min((i+1)*size, n) <= to; i++ {
		p[i/64] |= 1 << (i % 64)
	}
}

// all reports whether all pieces of a block of n bytes were read.
func (p *pieces) all(n int64) bool {
	count := (n + p.size(n) - 1) / p.size(n)
	return int64(bits.OnesCount64(p[0])+bits.OnesCount64(p[1])) == count
}

// move puts a block into a list, at its front or back. A nil list is none.
func (b *block) move(to *list.List, front bool) {
	if b.in != nil {
		b.in.Remove(b.element)
	}
	b.in, b.element = to, nil
	switch {
	case to == nil:
	case front:
		b.element = to.PushFront(b)
	default:
		b.element = to.PushBack(b)
	}
}

// at returns the block of an element of a list, and nil for none.
func at(e *list.Element) *block {
	if e == nil {
		return nil
	}
	return e.Value.(*block)
}
