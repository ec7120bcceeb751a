package expr

import (
	"fmt"

	"github.com/dequantfs/dequantfs/fp8"
)

// ScaleMode says how scales are chosen.
type ScaleMode uint8

// The ways to choose scales.
const (
	// Amax is the largest magnitude of a block that is finite, by 448, the largest code,
	// but at least 2^-126.
	Amax ScaleMode = iota
	// Ones are scales of 1: codes are the values themselves, rounded, and saturated at ±448.
	Ones
)

// QuantizeOptions say how values become codes and scales. The zero value is that of DeepSeek-V3's checkpoints.
type QuantizeOptions struct {
	Block  [2]int64 // rows, columns of one scale; {0, 0}: 128 × 128
	Scales ScaleMode
}

const maxBlock = 1024

// Quantize makes FP8 codes (F8_E4M3) of a matrix of plain values, and the grid of their scales
// (F32): a code times its scale is the value, nearly. Any part of either may be read by itself. The grid is a
// unit, [Computed] from all of n and shared by both nodes: without a cache the blocks that a read needs are computed
// each time. Values that saturate are counted by [Env.Lost]: infinities, and with [Ones] what is beyond ±448.
func Quantize(n Node, o QuantizeOptions) (codes, scales Node, err error) {
	of, err := ours("quantize", n)
	if err != nil {
		return nil, nil, err
	}
	q, err := newQuantizer(of, o)
	if err != nil {
		return nil, nil, fmt.Errorf("quantize: %s: %w", n, err)
	}
	c, s := &quantize{q.codes, q}, &amax{q.scales, q}
	c.self, s.self = c, s
	return c, s, nil
}

// quantize is the codes.
type quantize struct {
	header
	by *quantizer
}

var one = []float32{1}

func (n *quantize) rect(env Env, dst []byte, stride int, w window) error {
	q := n.by
	m := fp8.Plain{Format: q.format, Scales: one}
	if !q.ones {
		g := q.blocks(w)
		s := getFloats(g.rows() * g.cols())
		defer s.put()
		if err := q.gather(env, s.values, g); err != nil {
			return err
		}
		m.Block, m.Scales, m.ScaleStride = q.block, s.values, g.cols()
		m.Row, m.Col = w.r0%q.block[0], w.c0%q.block[1]
	}
	m.Cols, m.Stride = w.cols(), w.cols()*q.of.head().item
	return n.encode(env, dst, stride, w, &m)
}

// encode reads the values of w and quantizes them, some rows at a time.
func (n *quantize) encode(env Env, dst []byte, stride int, w window, m *fp8.Plain) error {
	rows := min(w.rows(), max(1, chunk/m.Stride))
	b := getBuffer(rows * m.Stride)
	defer b.put()
	m.Data = b.bytes
	for {
		part := window{w.r0, min(w.r1, w.r0+rows), w.c0, w.c1}
		if err := n.by.of.rect(env, b.bytes, m.Stride, part); err != nil {
			return err
		}
		m.Rows = part.rows()
		if n := fp8.Quantize(dst, stride, m); n > 0 {
			env.Lost(n, 0)
		}
		if w.r0 = part.r1; w.rows() == 0 {
			return nil
		}
		m.Row += m.Rows
		dst = dst[m.Rows*stride:]
	}
}

func (n *quantize) needs(w window, d demand) bool { return n.by.needs(d) && n.by.of.needs(w, d) }

func (n *quantize) transpose() (node, error) { return newTranspose(n) }

func (n *quantize) slice(axis int, lo, hi int64) (node, error) { return newSlice(n, axis, lo, hi) }

func (n *quantize) index(i int64) (node, error) { return indexed(n, i) }

func (n *quantize) String() string { return n.by.name("quantize") }
