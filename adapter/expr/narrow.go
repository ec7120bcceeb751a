package expr

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// narrow converts F64 to F32, for Cast.
type narrow struct {
	header
	of node

	// odd: values between two F32 become the one with an odd last bit. A later conversion to BF16
	// or F16 then rounds as if it saw the F64 value.
	odd bool
}

// narrowed returns a node of F32 that can be converted to d, for a node of F64.
func narrowed(of node, d safetensors.DType) (node, error) {
	h, err := newHeader(safetensors.F32, of.Shape())
	if err != nil {
		return nil, fmt.Errorf("cast: %s: %w", of, err)
	}
	n := &narrow{h, of, d != safetensors.F32}
	n.self = n
	return n, nil
}

func (n *narrow) rect(env Env, dst []byte, stride int, w window) error {
	width := 8 * w.cols()
	rows := min(w.rows(), max(1, chunk/width))
	b := getBuffer(rows * width)
	defer b.put()
	for {
		part := window{w.r0, min(w.r1, w.r0+rows), w.c0, w.c1}
		if err := n.of.rect(env, b.bytes, width, part); err != nil {
			return err
		}
		for r := range part.rows() {
			n.convert(dst[r*stride:], b.bytes[r*width:][:width])
		}
		if w.r0 = part.r1; w.rows() == 0 {
			return nil
		}
		dst = dst[rows*stride:]
	}
}

// convert converts a row.
func (n *narrow) convert(dst, src []byte) {
	for i := 0; i < len(src); i += 8 {
		v := math.Float64frombits(binary.LittleEndian.Uint64(src[i:]))
		f := math.Float32bits(float32(v))
		if n.odd {
			f = oddBits(v)
		}
		binary.LittleEndian.PutUint32(dst[i/2:], f)
	}
}

// oddBits returns the F32 bits of a value. Of the two F32 beside any other value it takes the one
// with an odd last bit.
func oddBits(v float64) uint32 {
	f := float32(v)
	bits := math.Float32bits(f)
	if float64(f) == v || v != v {
		return bits
	}
	if math.Abs(float64(f)) > math.Abs(v) {
		bits-- // toward zero
	}
	return bits | 1
}

func (n *narrow) needs(w window, d demand) bool { return n.of.needs(w, d) }

func (n *narrow) transpose() (node, error) { return n.over(n.of.transpose()) }

func (n *narrow) slice(axis int, lo, hi int64) (node, error) {
	return n.over(n.of.slice(axis, lo, hi))
}

func (n *narrow) index(i int64) (node, error) { return n.over(n.of.index(i)) }

func (n *narrow) over(of node, err error) (node, error) {
	if err != nil {
		return nil, err
	}
	h, err := newHeader(n.dtype, of.Shape())
	if err != nil {
		return nil, err
	}
	out := &narrow{h, of, n.odd}
	out.self = out
	return out, nil
}

// String leaves the step to the other dtype out.
func (n *narrow) String() string {
	if n.odd {
		return n.of.String()
	}
	return fmt.Sprintf("cast(%s, f32)", n.of)
}
