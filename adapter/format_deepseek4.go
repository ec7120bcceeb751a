package adapter

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// deepSeek4Formats are those of DeepSeek-V4 and V4.1 that differ from FP8 in blocks.
var deepSeek4Formats = []*format{
	{
		name: "FP4 (DeepSeek-V4)", codes: ".weight", parts: []string{".scale"}, loose: true,
		fits: func(m *module) bool {
			return m.codes.DType == safetensors.I8 && isExponents(m.part(".scale"))
		},
		open: openDeepSeekFP4,
	},
	loose(&format{
		name: "FP8", codes: ".weight", parts: []string{".scale"},
		fits: func(m *module) bool {
			return fp8Coded(m.codes.DType) && strings.HasSuffix(m.name, "engram.embed")
		},
		open: openEngram,
	}),
}

// openDeepSeekFP4 opens the experts. They are MXFP4, except that bytes are I8 and code 8 is +0, as
// in the table of the model's own convert.py.
func openDeepSeekFP4(o *opening) (decoder, error) {
	w, scale := o.codes, o.part(".scale")
	d := mxfp4Weight(w, scale, pairs(w.Shape), e2m1PlusZero)
	return d, d.checkGroups(w, scale)
}

// openEngram opens the table of Engram. Its rows are looked up alone, so they are scaled alone, in
// groups of 32. The configured blocks are those of the matrices.
func openEngram(o *opening) (decoder, error) {
	w, scale := o.codes, o.part(".scale")
	if err := checkScale(scale); err != nil {
		return nil, err
	}
	rows := &scheme{blocks: [][2]int64{groupsOf32.block}}
	p, err := findPartition(w.Shape, scale.Shape, rows, fusion{}, false)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: for %s, whose rows are scaled alone: %w",
			scale.Shard, scale.Key, w.Key, err)
	}
	return newFP8Weight(w, scale, o.quantization.intern(p)), nil
}
