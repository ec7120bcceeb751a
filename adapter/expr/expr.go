// Package expr holds recipes: a small immutable expression per virtual tensor.
package expr

import (
	"context"
	"errors"
	"io"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// File is where source bytes come from. ReadAt must be safe for concurrent use.
// Implementations check that the file is still what it was (see adapter).
type File interface {
	io.ReaderAt
	Name() string // for messages
	Size() int64
}

// Source is a stored tensor: a byte range of a file.
type Source struct {
	Key    string // its name in the checkpoint
	File   File
	Offset int64 // of its first byte in File
	DType  safetensors.DType
	Shape  []int64
}

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

	// String is the recipe in one readable line.
	String() string
}

// Env is what evaluation may use. The zero value (and nil) is valid: no cache, no
// parallelism, never cancelled.
type Env struct {
	Context context.Context
	Cache   Cache
	// Go runs the functions, perhaps at the same time, and returns the first error once
	// all have ended. nil: one after the other in the calling goroutine.
	Go func(fns ...func() error) error
	// ReadAt is how source bytes are read. nil: f.ReadAt.
	ReadAt func(f File, p []byte, off int64) (int, error)
}

// Cache keeps units. Get returns a filled entry, which the caller must Release.
type Cache interface {
	Get(ctx context.Context, u *Unit) (Entry, error)
}

// Entry is one filled unit, pinned until Release.
type Entry interface {
	Bytes() []byte // not to be changed, valid until Release
	Release()
}

// UnitKey names a unit; equal keys mean equal bytes. Comparable.
type UnitKey struct {
	File   File
	Offset int64
	Kind   UnitKind
}

// UnitKind says what a unit holds.
type UnitKind uint8

// The kinds of units.
const (
	Transposed UnitKind = iota // a 2-D source tensor (or one slice of a 3-D one) transposed, in its source precision
	Grid                       // a scale grid as float32; small
)

// Unit is what the tensor cache holds.
type Unit struct{ key UnitKey }

// Key names the unit.
func (u *Unit) Key() UnitKey { return u.key }

// Size is the number of bytes of the filled unit.
func (u *Unit) Size() int64 { return 0 }

// Fill computes the unit into dst, which has Size bytes and may be dirty.
func (u *Unit) Fill(env *Env, dst []byte) error { return errors.ErrUnsupported }

// String says which tensor and what of it.
func (u *Unit) String() string { return "" }

// Load shows a stored tensor as it is.
func Load(src *Source) (Node, error) { return nil, errors.ErrUnsupported }

// DequantizeOptions say how codes and scales belong together.
type DequantizeOptions struct {
	Block [2]int64          // rows, columns of one scale; 0: the whole axis
	Out   safetensors.DType // BF16, F16 or F32
}

// Dequantize multiplies the codes w (2-D, or 3-D with a leading axis of matrices) by their scales.
func Dequantize(w, scale *Source, o DequantizeOptions) (Node, error) {
	return nil, errors.ErrUnsupported
}

// Cast converts between F32, BF16 and F16; to its own dtype it is n itself.
func Cast(n Node, d safetensors.DType) (Node, error) { return nil, errors.ErrUnsupported }

// Transpose swaps the last two axes.
func Transpose(n Node) (Node, error) { return nil, errors.ErrUnsupported }

// Concat joins nodes along an axis.
func Concat(axis int, nodes ...Node) (Node, error) { return nil, errors.ErrUnsupported }

// Stack joins nodes of one shape along a new first axis.
func Stack(nodes ...Node) (Node, error) { return nil, errors.ErrUnsupported }

// Slice keeps [lo, hi) of an axis.
func Slice(n Node, axis int, lo, hi int64) (Node, error) { return nil, errors.ErrUnsupported }

// Index keeps entry i of the first axis and drops that axis.
func Index(n Node, i int64) (Node, error) { return nil, errors.ErrUnsupported }

// Reshape gives the same bytes another shape.
func Reshape(n Node, shape ...int64) (Node, error) { return nil, errors.ErrUnsupported }
