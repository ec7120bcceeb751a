// Package expr holds recipes. A recipe is a small immutable expression for a virtual tensor. It has
// a dtype and a shape, and it produces any range of the tensor's row-major bytes.
//
// Start with [Load], [Dequantize] and [DequantizePacked], which make nodes from stored tensors
// ([Source]), or with [Blank], which makes zeros. Combine nodes with [Transpose], [SwapRows],
// [Concat], [Stack], [Slice], [Index], [Reshape], [Cast], [Multiply], [Product] and [Quantize].
// These functions check shapes and dtypes, and their errors name the tensor. Later reads fail only
// for I/O, cancellation, or a list of groups that names a group without scales.
//
// # Reading
//
// [Node.ReadAt] fills exactly the requested bytes. The range may begin and end inside an element,
// and it equals the same slice of the whole tensor. ReadAt returns nil only if every byte was
// written. Nothing writes to the buffer after it returns. Any number of goroutines may read a node.
// A read allocates nothing once the package's buffers are warm.
//
// # How it works
//
// A node is one matrix: its last axis is the columns, and all other axes are the rows. Its central
// method writes a rectangle of that matrix to a strided buffer. So joins, slices and transpositions
// write directly to the caller's buffer, without a copy between nodes.
//
// Slices and transpositions move to the leaves when a node is built. A leaf is a strided region of
// a stored tensor, possibly transposed. Dequantization commutes with both: a transposed leaf
// transposes its grid and blocks too. Dequantization does not commute with joins, because a part
// may end inside a block. So each part keeps its own grid.
//
// # Units
//
// A leaf in stored order reads only the bytes that it needs and decodes them. A transposed leaf
// needs a whole source matrix for any row. This is a [Unit]: the transposed matrix in its source
// precision. Packed codes of 4 bits are packed along its rows. The unit is kept by [Env.Unit]. One
// unit serves all dtypes and layouts, and all parts of a merged tensor.
//
// Grids of scales are small units too, whether stored or computed by [Quantize]. Without a cache,
// each read repeats the work.
//
// [Node.Units] and [Node.Ranges] return the needs of a read in advance, for read-ahead.
//
// # Errors
//
// A read fails if a source returns fewer bytes than requested, or an error with them. The error
// names the file, the key and the offset. A read also fails if its context is done. The contents of
// the buffer are then undefined.
package expr

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Node is a recipe. Nodes are immutable and safe for concurrent use.
type Node interface {
	DType() safetensors.DType
	Shape() []int64 // the caller must not change it
	Size() int64    // bytes

	// ReadAt fills p with the row-major little-endian bytes [off, off+len(p)). It returns nil only
	// if every byte of p was written. After it returns, no goroutine writes to p, even if the read
	// failed or was cancelled.
	ReadAt(env Env, p []byte, off int64) error

	// Units calls yield for the units that a read of [off, off+n) needs, in the order of the bytes.
	// It stops when yield returns false, and then returns false. It does not report small scale
	// grids.
	Units(off, n int64, yield func(*Unit) bool) bool

	// Ranges calls yield for the ranges of source files that a read of [off, off+n) reads directly,
	// without a unit. It stops when yield returns false, and then returns false.
	Ranges(off, n int64, yield func(f File, off, n int64) bool) bool

	// Decodes reports whether reading the tensor dequantizes codes.
	Decodes() bool

	// String returns the recipe in one readable line.
	String() string
}

// node is the interface of this package's nodes.
type node interface {
	Node
	head() *header

	// rect writes w to dst, whose rows begin stride bytes apart. w is not empty and is inside the
	// node. dst may be longer than needed.
	rect(env Env, dst []byte, stride int, w window) error

	// needs calls d for the needs of a read of w, until d returns false. needsRange does the same
	// for a range of bytes that is not empty and is inside the node.
	needs(w window, d demand) bool
	needsRange(off, n int64, d demand) bool

	transpose() (node, error)                   // of a node with at least two axes
	slice(axis int, lo, hi int64) (node, error) // of less than the whole axis
	index(i int64) (node, error)
}

// demand receives units or ranges of files. A nil function receives nothing.
type demand struct {
	unit func(*Unit) bool
	span func(f File, off, n int64) bool
}

// ours refuses nodes of other packages, and nodes whose elements are not whole bytes.
func ours(what string, n Node) (node, error) {
	m, ok := n.(node)
	if !ok {
		return nil, fmt.Errorf("%s: a %T is not a node of this package", what, n)
	}
	if m.head().packed {
		return nil, fmt.Errorf("%s: %s: elements of %s are not whole bytes", what, n, n.DType())
	}
	return m, nil
}
