package adapter

import (
	"fmt"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// mxfp4Formats are 4-bit floats in groups of 32 in a row: value = number × 2^(exponent - 127). A
// byte has two codes, the low nibble first. The rows differ in the names of the tensors.
var mxfp4Formats = []*format{
	{
		// the experts of gpt-oss, whose parameters are the transpose of what is stored
		name: "MXFP4 (gpt-oss)", codes: "_blocks", parts: []string{"_scales"},
		signs: []string{"_blocks", "_scales"}, loose: true,
		fits: func(m *module) bool {
			return isBytes(m.part("_blocks")) || isBytes(m.part("_scales"))
		},
		open: func(o *opening) (decoder, error) {
			blocks := o.part("_blocks")
			shape, ok := unfolded(blocks.Shape)
			if !ok {
				return nil, fmt.Errorf("%s: %s: blocks %v: expected whole groups, of %d bytes "+
					"on the last axis", blocks.Shard, blocks.Key, blocks.Shape, mxGroup/2)
			}
			return openMXFP4(o, blocks, o.part("_scales"), shape, true)
		},
	},
	mxfp4Format(".weight_packed"), // compressed-tensors, Kimi-K3
	mxfp4Format(".weight"),        // Quark, MiMo-V2.6
}

const mxGroup = 32 // codes under one exponent

func mxfp4Format(codes string) *format {
	return &format{
		name: "MXFP4", codes: codes, parts: []string{".weight_scale"},
		fits: func(m *module) bool {
			return m.part(codes).DType == safetensors.U8 && isExponents(m.part(".weight_scale")) &&
				m.part(".weight_global_scale") == nil
		},
		open: func(o *opening) (decoder, error) {
			w := o.part(codes)
			return openMXFP4(o, w, o.part(".weight_scale"), pairs(w.Shape), false)
		},
	}
}

func isBytes(t *Stored) bool { return t != nil && t.DType == safetensors.U8 }

// unfolded returns the shape of codes whose groups have an axis of their own: [e, m, n/32, 16].
func unfolded(blocks []int64) (shape []int64, ok bool) {
	n := len(blocks)
	if n < 2 || blocks[n-1] != mxGroup/2 {
		return nil, false
	}
	shape = slices.Clone(blocks[:n-1])
	shape[n-2] *= mxGroup
	return shape, true
}

// pairs returns the shape of codes of which two are in a byte.
func pairs(bytes []int64) []int64 {
	shape := slices.Clone(bytes)
	if n := len(shape); n > 0 {
		shape[n-1] *= 2
	}
	return shape
}

func openMXFP4(o *opening, w, scale *Stored, shape []int64, turned bool) (decoder, error) {
	if err := expect(w, safetensors.U8); err != nil {
		return nil, err
	}
	if err := expect(scale, safetensors.U8, safetensors.F8E8M0); err != nil {
		return nil, err
	}
	if o.c.kernelOrder[scale.Shard] {
		return nil, kernelOrder.refused(w, o.settings)
	}
	d := &packedWeight{
		Packed: expr.Packed{
			Codes: &w.Source, Shape: shape, Pack: expr.Pack{Bits: 4}, Values: e2m1,
			Scales: expr.Scales{Source: &scale.Source, Block: [2]int64{1, mxGroup}},
		},
		where: partition{block: [2]int64{1, mxGroup}}.String(), turned: turned,
	}
	return d, d.checkGroups(w, scale)
}
