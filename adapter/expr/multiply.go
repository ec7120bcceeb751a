package expr

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// multiply multiplies F32 values by a constant.
type multiply struct {
	header
	of  node
	by  float32
	out fp8.Format
}

// Multiply returns a node that multiplies the F32 values of n by a constant. Each product is
// rounded to float32, and then to dtype d: BF16, F16 or F32. Other dtypes are an error.
func Multiply(n Node, by float32, d safetensors.DType) (Node, error) {
	of, err := ours("multiply", n)
	if err != nil {
		return nil, err
	}
	return newMultiply(of, by, d)
}

func newMultiply(of node, by float32, d safetensors.DType) (node, error) {
	out, ok := plain(d)
	if !ok || of.DType() != safetensors.F32 {
		return nil, fmt.Errorf("multiply: %s from %s to %s: expected F32 to F32, BF16 or F16",
			of, of.DType(), d)
	}
	h, err := newHeader(d, of.Shape())
	if err != nil {
		return nil, fmt.Errorf("multiply: %s: %w", of, err)
	}
	n := &multiply{h, of, by, out}
	n.self = n
	return n, nil
}

func (n *multiply) rect(env Env, dst []byte, stride int, w window) error {
	return inStrips(n.of, env, w, func(r int, src []byte, width, rows int) {
		dst := dst[r*stride:]
		scaleFloats(src, n.by)
		for r := range rows {
			fp8.Convert(dst[r*stride:], n.out, src[r*width:], fp8.F32, w.cols())
		}
		overflowed(env, n.out, dst, stride, rows, w.cols())
	})
}

// scaleFloats multiplies little-endian float32s in place. Every NaN becomes the positive quiet NaN.
func scaleFloats(b []byte, by float32) {
	for ; len(b) >= 8; b = b[8:] {
		two := binary.LittleEndian.Uint64(b)
		low, high := scaled(uint32(two), by), scaled(uint32(two>>32), by)
		binary.LittleEndian.PutUint64(b, uint64(low)|uint64(high)<<32)
	}
	if len(b) > 0 {
		binary.LittleEndian.PutUint32(b, scaled(binary.LittleEndian.Uint32(b), by))
	}
}

// scaled multiplies one float32.
func scaled(bits uint32, by float32) uint32 {
	const quietNaN = 0x7fc00000
	v := math.Float32frombits(bits) * by
	if v != v {
		return quietNaN
	}
	return math.Float32bits(v)
}

func (n *multiply) needs(w window, d demand) bool { return n.of.needs(w, d) }

func (n *multiply) transpose() (node, error) { return n.over(n.of.transpose()) }

func (n *multiply) slice(axis int, lo, hi int64) (node, error) {
	return n.over(n.of.slice(axis, lo, hi))
}

func (n *multiply) index(i int64) (node, error) { return n.over(n.of.index(i)) }

func (n *multiply) over(of node, err error) (node, error) {
	if err != nil {
		return nil, err
	}
	return newMultiply(of, n.by, n.dtype)
}

func (n *multiply) String() string {
	return fmt.Sprintf("multiply(%s, %g, %s)", n.of, n.by, strings.ToLower(n.dtype.String()))
}
