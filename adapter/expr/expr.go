// Package expr holds recipes: a small immutable expression per virtual tensor, which
// knows its dtype and shape and produces any byte range of its row-major bytes.
//
// Start with [Load] and [Dequantize], which make nodes of stored tensors ([Source]), and
// combine them: [Transpose], [Concat], [Stack], [Slice], [Index], [Reshape], [Cast] and
// [Quantize]. Shapes and dtypes are checked when a node is built, with errors that name
// the tensor; after that a read fails only for I/O or cancellation.
//
// # Reading
//
// [Node.ReadAt] fills exactly the bytes asked for, at any offset, also one inside an element:
// a range read equals the slice of the whole. It returns nil only if every byte was
// written, and when it returns nobody touches the buffer any more. Nodes may be read by any number
// of goroutines at once; a read allocates nothing once the buffers of the package are warm.
//
// # How it works
//
// A node is one matrix: its last axis is the columns, all others are the rows. Its working
// method writes a rectangle of that matrix to a strided buffer, so that joins, slices and
// transpositions write where the caller wants the bytes, without a copy between nodes.
//
// Slices and transpositions move to the leaves when a node is built. A leaf is a strided
// region of a stored tensor, perhaps transposed, and block dequantization commutes with both: a
// transposed leaf has its grid and blocks transposed too. It does not commute with joining,
// as the parts need not end at the end of a block, so each part keeps its own grid.
//
// # Units
//
// Leaves in stored order read what they need, half the bytes of the result, and decode it. A
// transposed leaf needs a whole source matrix for any row: that is a [Unit], the matrix transposed in
// its source precision, which [Env.Cache] keeps, so one entry serves all dtypes and layouts, and the
// parts that a merged tensor is taken apart into. Scale grids, stored or computed by [Quantize], are
// small units too. Without a cache, what is needed is read and transposed, or computed, at each read.
//
// [Node.Units] and [Node.Ranges] tell beforehand what a read needs, for those who fetch ahead.
//
// # Errors
//
// A source that gives fewer bytes than asked for, or an error beside them, fails the read with the file, the
// key and the offset; so does a context that is done. The buffer then holds anything.
package expr

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Node is one recipe. Nodes are immutable and safe for concurrent use.
type Node interface {
	DType() safetensors.DType
	Shape() []int64 // not to be changed
	Size() int64    // bytes

	// ReadAt fills p with the row-major little-endian bytes [off, off+len(p)).
	// It returns nil only if every byte of p was written; when it returns, no
	// goroutine touches p any more, also when it failed or was cancelled.
	ReadAt(env *Env, p []byte, off int64) error

	// Units calls yield for the units that reading [off, off+n) needs, in the
	// order of the bytes, until yield returns false. Row-contiguous recipes need none
	// but small scale grids, which are not reported here.
	Units(off, n int64, yield func(*Unit) bool) bool

	// Ranges calls yield for the ranges of source files that reading
	// [off, off+n) reads without a unit: what to fadvise ahead of a stream.
	Ranges(off, n int64, yield func(f File, off, n int64) bool) bool

	// Decodes reports whether reading the tensor dequantizes codes.
	Decodes() bool

	// String is the recipe in one readable line.
	String() string
}

// node is what the nodes of this package can do.
type node interface {
	Node
	head() *header

	// rect writes w to dst, whose rows begin stride bytes apart. w is not empty and lies
	// inside the node; dst ends anywhere behind the last element.
	rect(env *Env, dst []byte, stride int, w window) error

	// needs calls d for what reading w needs, until it returns false; needsRange for
	// a range of bytes, which is not empty and lies inside the node.
	needs(w window, d demand) bool
	needsRange(off, n int64, d demand) bool

	transpose() (node, error)                   // of a node with at least two axes
	slice(axis int, lo, hi int64) (node, error) // a true part of the axis
	index(i int64) (node, error)
}

// demand asks for units or for ranges of files; what is nil is not asked for.
type demand struct {
	unit func(*Unit) bool
	span func(f File, off, n int64) bool
}

// ours refuses nodes that are not of this package, and those whose elements are not whole bytes.
func ours(what string, n Node) (node, error) {
	m, ok := n.(node)
	if !ok {
		return nil, fmt.Errorf("%s: a %T is no recipe of this package", what, n)
	}
	if m.head().packed {
		return nil, fmt.Errorf("%s: %s: elements of %s are no whole bytes", what, n, n.DType())
	}
	return m, nil
}
