package expr

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"
)

const (
	smallest = 12 // power of two of the smallest buffer in a pool: 4 KiB
	largest  = 24 // power of two of the largest: 16 MiB
)

// buffer is memory borrowed from a pool. Its contents are undefined.
type buffer struct {
	bytes []byte
	class int
}

var buffers [largest + 1]sync.Pool

// getBuffer returns a buffer of n bytes. The caller returns it with put.
func getBuffer(n int) *buffer {
	class := max(smallest, bits.Len(uint(max(n, 1)-1)))
	if class > largest {
		return &buffer{bytes: make([]byte, n), class: class}
	}
	b, _ := buffers[class].Get().(*buffer)
	if b == nil {
		b = &buffer{bytes: make([]byte, 1<<class), class: class}
	}
	b.bytes = b.bytes[:n]
	return b
}

func (b *buffer) put() {
	if b != nil && b.class <= largest {
		buffers[b.class].Put(b)
	}
}

// floats is a borrowed slice of float32s.
type floats struct{ values []float32 }

var floatPool = sync.Pool{New: func() any { return new(floats) }}

func getFloats(n int) *floats {
	f := floatPool.Get().(*floats)
	if cap(f.values) < n {
		f.values = make([]float32, n)
	}
	f.values = f.values[:n]
	return f
}

// of returns the values, or nil if there are none.
func (f *floats) of() []float32 {
	if f == nil {
		return nil
	}
	return f.values
}

func (f *floats) put() {
	if f != nil {
		floatPool.Put(f)
	}
}

// putFloats writes little-endian float32s.
func putFloats(dst []byte, values []float32) {
	for i, v := range values {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}
