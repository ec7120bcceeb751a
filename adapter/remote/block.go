package remote

import (
	"container/list"
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
	ended  bool      // a reader has read its last byte
	used   time.Time // when it was last used, or was full
	looked bool      // the disk cache was asked

	retry  retry
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

// unused reports whether a block is not used by a reader now.
func (b *block) unused() bool { return len(b.waiting) == 0 && b.pins == 0 }

// spent reports whether a block was read to the end.
func (b *block) spent() bool { return b.ended || b.read >= b.n }

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
