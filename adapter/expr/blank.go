package expr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// blank is a tensor of zeros, which no source holds.
type blank struct{ header }

// Blank returns a node of zeros. It reads nothing.
func Blank(d safetensors.DType, shape ...int64) (Node, error) { return newBlank(d, shape) }

func newBlank(d safetensors.DType, shape []int64) (node, error) {
	h, err := newHeader(d, slices.Clone(shape))
	if err != nil {
		return nil, fmt.Errorf("zeros: %w", err)
	}
	n := &blank{h}
	n.self = n
	return n, nil
}

func (n *blank) rect(env Env, dst []byte, stride int, w window) error {
	if err := orAlone(env).Err(); err != nil {
		return err
	}
	for r := range w.rows() {
		clear(dst[r*stride:][:w.cols()*n.item])
	}
	return nil
}

func (n *blank) needs(window, demand) bool { return true }

func (n *blank) transpose() (node, error) { return newBlank(n.dtype, swapped(n.shape)) }

func (n *blank) slice(axis int, lo, hi int64) (node, error) {
	return newBlank(n.dtype, resized(n.shape, axis, hi-lo))
}

func (n *blank) index(int64) (node, error) { return newBlank(n.dtype, n.shape[1:]) }

// Decodes returns false, because the values are not stored.
func (n *blank) Decodes() bool { return false }

func (n *blank) String() string {
	shape := strings.Trim(strings.ReplaceAll(fmt.Sprint(n.shape), " ", ", "), "[]")
	return fmt.Sprintf("zeros(%s)", shape)
}
