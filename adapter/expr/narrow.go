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

	// odd rounds to odd: a value between two F32 becomes the one whose last bit is odd. A later
	// conversion to BF16 or F16 then gives the same as a single rounding of the F64 value.
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
	return inStrips(n.of, env, w, func(r0 int, src []byte, width, rows int) {
		for r := range rows {
			n.convert(dst[(r0+r)*stride:], src[r*width:][:width])
		}
	})
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

// oddBits returns the bits of v as F32. If v is between two F32, it takes the one whose last bit is
// odd.
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

// String leaves out the step between F64 and the final dtype, which the cast around it names.
func (n *narrow) String() string {
	if n.odd {
		return n.of.String()
	}
	return fmt.Sprintf("cast(%s, f32)", n.of)
}
