package expr

import (
	"fmt"

	"github.com/dequantfs/dequantfs/fp8"
)

// ScaleMode selects how scales are chosen.
type ScaleMode uint8

// The ways to choose scales.
const (
	// Amax divides the largest finite magnitude of a block by 448, the largest code. A scale is at
	// least 2^-126.
	Amax ScaleMode = iota
	// Ones sets every scale to 1. The codes are the rounded values, limited to ±448.
	Ones
)

// QuantizeOptions configure Quantize. The zero value is that of DeepSeek-V3's checkpoints.
type QuantizeOptions struct {
	Block  [2]int64 // rows and columns under one scale; {0, 0} means 128 × 128
	Scales ScaleMode
}

const maxBlock = 1024

// Quantize returns two nodes for a matrix of BF16, F16 or F32: its FP8 codes (F8_E4M3, the same
// shape), and the grid of their scales (F32). A code times its scale approximates the value. Any
// range of either node can be read.
//
// The grid is a [Computed] unit of both nodes, because it depends on all of n. Without a cache each
// read computes the blocks that it needs.
//
// Values that saturate are counted in [Env.Counters]. These are infinities, and with [Ones] also
// values beyond ±448.
//
// Other dtypes or ranks, and blocks larger than 1024, are errors.
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

// quantize computes the codes of a quantizer.
type quantize struct {
	header
	by *quantizer
}

var one = []float32{1}

func (n *quantize) rect(env *Env, dst []byte, stride int, w window) error {
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
func (n *quantize) encode(env *Env, dst []byte, stride int, w window, m *fp8.Plain) error {
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
		env.saturated(fp8.Quantize(dst, stride, m))
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
