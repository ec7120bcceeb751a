package adapter

import (
	"fmt"
	"math"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// The numbers of the codes of E2M1. Code 8 is -0, but some libraries have +0 in their tables.
var (
	e2m1         = e2m1Numbers(math.Copysign(0, -1))
	e2m1PlusZero = e2m1Numbers(0)
)

func e2m1Numbers(zero float64) *[16]float32 {
	return &[16]float32{0, .5, 1, 1.5, 2, 3, 4, 6, float32(zero), -.5, -1, -1.5, -2, -3, -4, -6}
}

// packedWeight is a weight whose codes are packed into words, or are whole numbers.
type packedWeight struct {
	expr.Packed
	where  string // which elements share a scale
	turned bool   // the weight is the transpose of the codes, or of each matrix of a stack
}

func (d *packedWeight) shape() []int64 {
	if !d.turned {
		return d.Shape
	}
	s := slices.Clone(d.Shape)
	n := len(s)
	s[n-2], s[n-1] = s[n-1], s[n-2]
	return s
}

func (d *packedWeight) describe() (string, safetensors.DType) {
	return d.where, d.Scales.Source.DType
}

func (d *packedWeight) node(out safetensors.DType) (expr.Node, error) {
	p := d.Packed
	p.Out = out
	n, err := expr.DequantizePacked(&p)
	if err != nil || !d.turned {
		return n, err
	}
	return expr.Transpose(n)
}

// expect checks the dtype of a tensor.
func expect(t *Stored, dtypes ...safetensors.DType) error {
	if slices.Contains(dtypes, t.DType) {
		return nil
	}
	return fmt.Errorf("%s: %s: dtype %s, expected %s", t.Shard, t.Key, t.DType,
		joinNames(dtypes))
}

// grid returns the shape of the scales, with one for each block of each matrix.
func (d *packedWeight) grid() []int64 {
	return frameOf(d.Shape).needed(partition{block: d.Scales.Block})
}

// groupsInRow returns the number of scales for a row of codes, or 1 for blocks of several rows.
func (d *packedWeight) groupsInRow() int64 {
	if d.Scales.Block[0] != 1 {
		return 1
	}
	g := frameOf(d.Shape).grid(partition{block: d.Scales.Block})
	return g[1]
}

// checkGrid checks that the scales have the shape of the grid.
func (d *packedWeight) checkGrid(w, scale *Stored) error {
	if slices.Equal(scale.Shape, d.grid()) {
		return nil
	}
	return fmt.Errorf("%s: %s: scales %v for %s %v: its %v values with %s need %v",
		scale.Shard, scale.Key, scale.Shape, w.Key, w.Shape, d.Shape, d.where, d.grid())
}

// checkGroups checks that the codes are a matrix or a stack of whole groups, each with a scale.
func (d *packedWeight) checkGroups(w, scale *Stored) error {
	n, block := len(d.Shape), d.Scales.Block
	if n != 2 && n != 3 || slices.Min(d.Shape) < 0 || d.Shape[n-2]%block[0] != 0 ||
		d.Shape[n-1]%block[1] != 0 {
		return fmt.Errorf("%s: %s: %v holds the codes %v with %s: expected a matrix, or a stack, "+
			"of whole groups", w.Shard, w.Key, w.Shape, d.Shape, d.where)
	}
	return d.checkGrid(w, scale)
}
