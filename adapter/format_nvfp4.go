package adapter

import (
	"fmt"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// nvfp4Formats are ModelOpt's: E2M1 codes with a scale for each group of 16. The scales are
// multiplied by a second scale.
var nvfp4Formats = []*format{
	nvfp4Format(".weight", ".weight_scale", ".weight_scale_2"),
	nvfp4Format("", "_weight_scale", "_weight_scale_2"), // grouped experts
	nvfp4Without(".weight", ".weight_scale", ".weight_scale_2"),
	nvfp4Without("", "_weight_scale", "_weight_scale_2"),
	nvfp4Without(".weight", ".weight_scale_2", ".weight_scale"),
	nvfp4Without("", "_weight_scale_2", "_weight_scale"),
	{
		name: "a pack with scales in the order of a kernel (swizzled)", codes: ".weight",
		parts: []string{".weight_scale"},
		fits: func(m *module) bool {
			scale := m.part(".weight_scale")
			return m.codes.DType == safetensors.U8 && scale.DType == safetensors.U8 &&
				len(scale.Shape) == 1
		},
		instead: "export the model in Hugging Face's layout, where the scales are a matrix",
	},
}

func nvfp4Format(codes, scale, second string) *format {
	return &format{
		name: "NVFP4 (ModelOpt)", codes: codes, parts: []string{scale, second},
		fits: func(m *module) bool {
			return m.codes.DType == safetensors.U8 && m.part(scale).DType == safetensors.F8E4M3
		},
		open: func(o *opening) (decoder, error) {
			return openNVFP4(o, o.part(scale), o.part(second))
		},
	}
}

// nvfp4Without is a weight with only one of its scales.
func nvfp4Without(codes, missing, there string) *format {
	return &format{
		name: "NVFP4 (ModelOpt) without " + missing[1:], codes: codes, parts: []string{there},
		fits: func(m *module) bool {
			d := m.part(there).DType
			return m.codes.DType == safetensors.U8 && m.part(missing) == nil &&
				(d == safetensors.F8E4M3 || d == safetensors.F32)
		},
		instead: "restore the shard that has its " + missing[1:],
	}
}

// openNVFP4 opens a matrix, or a stack of grouped experts. The scales of a stack show in which
// direction its codes are packed.
func openNVFP4(o *opening, scale, second *Stored) (decoder, error) {
	w := o.codes
	if len(w.Shape) != 2 && len(w.Shape) != 3 {
		return nil, fmt.Errorf("%s: %s: codes of shape %v: expected a matrix or a stack of them",
			w.Shard, w.Key, w.Shape)
	}
	d, down := pairs(w, false), pairs(w, true)
	if o.ending == "" && slices.Equal(down.grid(), scale.Shape) {
		d = down
	}
	if err := d.checkGrid(w, scale); err != nil {
		return nil, err
	}
	if err := o.checkDirection(d); err != nil {
		return nil, err
	}
	if err := checkSecond(w, second); err != nil {
		return nil, err
	}
	d.Values = e2m1PlusZero
	d.Scales.Source, d.Scales.Second = &scale.Source, &second.Source
	return d, nil
}

// pairs reads each byte as two codes: of a column if down is set, or else of a row. The groups of
// 16 run in the same direction.
func pairs(w *Stored, down bool) *packedWeight {
	axis, where := 1, "row"
	if down {
		axis, where = 0, "column"
	}
	d := &packedWeight{where: "groups of 16 in a " + where}
	d.Codes, d.Pack = &w.Source, expr.Pack{Bits: 4, Down: down}
	d.Shape = slices.Clone(w.Shape)
	d.Shape[len(d.Shape)-2+axis] *= 2
	d.Scales.Block = [2]int64{1, 1}
	d.Scales.Block[axis] = 16
	return d
}

// inputsFirst are the models whose grouped experts are stacks of inputs × outputs. ModelOpt packs
// the inputs.
var inputsFirst = []string{"gpt_oss", "llama4", "llama4_text"}

// checkDirection refuses a stack that is transposed against the model's parameter.
func (o *opening) checkDirection(d *packedWeight) error {
	i := slices.IndexFunc(o.settings.modelTypes(),
		func(t string) bool { return slices.Contains(inputsFirst, t) })
	if i < 0 || o.ending != "" || d.Pack.Down {
		return nil
	}
	return fmt.Errorf("%s: %s: grouped experts in NVFP4, packed along their last axis: it is not "+
		"known how a model of type %s with inputs on the axis before is stored so: export it with "+
		"ModelOpt, which packs that axis", o.codes.Shard, o.codes.Key,
		o.settings.modelTypes()[i])
}

// checkSecond checks that there is one second scale, or one for each matrix.
func checkSecond(w, second *Stored) error {
	switch {
	case !floating(second.DType):
		return fmt.Errorf("%s: %s: second scale of dtype %s: expected F32",
			second.Shard, second.Key, second.DType)
	case isWholeScale(second.Shape),
		len(w.Shape) == 3 && frameOf(w.Shape).forms(second.Shape).each:
		return nil
	}
	return fmt.Errorf("%s: %s: second scale of shape %v for %s %v: expected one number%s",
		second.Shard, second.Key, second.Shape, w.Key, w.Shape, orEach(w.Shape))
}

func orEach(shape []int64) string {
	if len(shape) != 3 {
		return ""
	}
	return fmt.Sprintf(", or one for each of %d matrices", shape[0])
}
