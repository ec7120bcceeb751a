//go:build !purego

package fp8

import "sync"

// tileScratch is what the transposition of tiles needs.
type tileScratch struct {
	lanes, from, to [tile * tile]byte
}

var tileScratches = sync.Pool{New: func() any { return new(tileScratch) }}

// edge transposes less than a tile, by way of a whole one.
func (s *tileScratch) edge(t *tiler, dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	for r := range rows {
		copy(s.from[r*tile:][:cols*size], src[r*srcStride:])
	}
	t.plain(&s.to[0], tile, 0, &s.from[0], tile, 0, 1, &s.lanes[0])
	for c := range cols {
		copy(dst[c*dstStride:][:rows*size], s.to[c*tile:])
	}
}
