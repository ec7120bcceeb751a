package adapter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// mxfp4Formats are 4-bit floats in groups of 32 in a row: value = number × 2^(exponent - 127). A
// byte has two codes, the low nibble first. The rows differ in the names of the tensors. The rule
// is that of convert_moe_packed_tensors in transformers.
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
					"on the last axis", blocks.Shard, blocks.Key, blocks.Shape, groupBytes)
			}
			return openMXFP4(o, blocks, o.part("_scales"), shape, true)
		},
	},
	mxfp4Format(".weight_packed"), // compressed-tensors, Kimi-K3
	mxfp4Format(".weight"),        // Quark, MiMo-V2.6
}

// groupsOf32 is the partition of all MX formats: 32 elements of a row have one exponent.
var groupsOf32 = partition{block: [2]int64{1, 32}}

func mxfp4Format(codes string) *format {
	return &format{
		name: "MXFP4", codes: codes, parts: []string{".weight_scale"},
		fits: func(m *module) bool {
			return m.part(codes).DType == safetensors.U8 && isExponents(m.part(".weight_scale")) &&
				m.part(".weight_global_scale") == nil
		},
		open: func(o *opening) (decoder, error) {
			w := o.part(codes)
			if err := refuseIntegers(o, w); err != nil {
				return nil, err
			}
			return openMXFP4(o, w, o.part(".weight_scale"), pairs(w.Shape), false)
		},
	}
}

// refuseIntegers refuses codes that Quark's description calls integers, since packs of integers
// have the same shapes. What it says of single layers may call them something else.
func refuseIntegers(o *opening, w *Stored) error {
	q := o.settings.object(quantizationFields...)
	dtype := func(scheme any) string {
		d, _ := asObject(asObject(scheme)["weight"])["dtype"].(string)
		return d
	}
	all := dtype(q["global_quant_config"])
	if q.text("quant_method") != "quark" || !integral(all) {
		return nil
	}
	for _, field := range []string{"layer_quant_config", "layer_type_quant_config"} {
		for _, scheme := range asObject(q[field]) {
			if d := dtype(scheme); d != "" && !integral(d) {
				return nil
			}
		}
	}
	return fmt.Errorf("%s: %s: the shapes of 4-bit floats under exponents, but config.json has "+
		"weights of dtype %.100q: one of them is wrong", w.Shard, w.Key, all)
}

// integral reports whether Quark calls numbers of a type integers.
func integral(dtype string) bool {
	return strings.HasPrefix(dtype, "int") || strings.HasPrefix(dtype, "uint")
}

func isBytes(t *Stored) bool { return t != nil && t.DType == safetensors.U8 }

const groupBytes = 16 // of 32 codes

// unfolded returns the shape of codes whose groups have an axis of their own: [e, m, n/32, 16].
func unfolded(blocks []int64) (shape []int64, ok bool) {
	n := len(blocks)
	if n < 2 || blocks[n-1] != groupBytes {
		return nil, false
	}
	shape = slices.Clone(blocks[:n-1])
	shape[n-2] *= 2 * groupBytes
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

// openMXFP4 opens codes of a shape. The weight is their transpose if turned is set.
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
	d := mxfp4Weight(w, scale, shape, e2m1)
	d.turned = turned
	if err := d.checkGroups(w, scale); err != nil {
		return nil, err
	}
	return d, o.withoutList(w, &o.quantization.floats, d.groupsInRow())
}

// mxfp4Weight is codes of a shape, two in a byte, with an exponent for each group of 32. values are
// the numbers of the codes.
func mxfp4Weight(w, scale *Stored, shape []int64, values *[16]float32) *packedWeight {
	return &packedWeight{where: groupsOf32.String(), Packed: expr.Packed{
		Codes: &w.Source, Shape: shape, Pack: expr.Pack{Bits: 4}, Values: values,
		Scales: expr.Scales{Source: &scale.Source, Block: groupsOf32.block},
	}}
}
