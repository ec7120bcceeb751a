package adapter

import (
	"fmt"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// nvfp4Formats are ModelOpt's NVFP4: E2M1 codes with a scale for each group of 16. The scales are
// multiplied by a second scale. ModelOpt's INT4 has the same keys, but other shapes.
var nvfp4Formats = []*format{
	int4AWQ(".weight", ".weight_scale"),
	int4AWQ("", "_weight_scale"),
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
	nvfp4Format(".weight", ".weight_scale", ".weight_scale_2"),
	nvfp4Format("", "_weight_scale", "_weight_scale_2"), // grouped experts
}

// undecodedAlgorithms are values of quant_algo whose weights are not the model's own. The model
// scales its activations to match, or adds low-rank corrections, and layers may have absorbed the
// factors.
var undecodedAlgorithms = []string{"NVFP4_AWQ", "NVFP4_SVD", "W4A16_AWQ", "W4A8_AWQ"}

// int4AWQ is INT4 of ModelOpt, W4A16_AWQ or W4A8_AWQ. A byte has the codes of two rows.
func int4AWQ(codes, scale string) *format {
	return &format{
		name: "INT4 (AWQ of ModelOpt)", codes: codes, parts: []string{scale},
		fits: func(m *module) bool {
			w, s := m.codes.Shape, m.part(scale).Shape
			rows := len(w) - 2
			return m.codes.DType == safetensors.U8 && rows >= 0 && len(s) == len(w) &&
				w[rows] > 0 && s[rows] == 2*w[rows]
		},
	}
}

func nvfp4Format(codes, scale, second string) *format {
	return &format{
		name: "NVFP4 (ModelOpt)", codes: codes, parts: []string{scale, second},
		signs: []string{scale, second},
		fits: func(m *module) bool {
			w := m.part(codes)
			if m.part(second) != nil {
				return w == nil || w.DType == safetensors.U8
			}
			return w != nil && w.DType == safetensors.U8 &&
				m.part(scale).DType == safetensors.F8E4M3
		},
		open: func(o *opening) (decoder, error) {
			return openNVFP4(o, o.part(scale), o.part(second))
		},
	}
}

// openNVFP4 opens a matrix, or a stack of grouped experts. The scales of a stack show in which
// direction its codes are packed.
func openNVFP4(o *opening, scale, second *Stored) (decoder, error) {
	w := o.codes
	if err := expect(scale, safetensors.F8E4M3); err != nil {
		return nil, err
	}
	if o.c.kernelOrder[scale.Shard] {
		return nil, kernelOrder.refused(w, o.settings)
	}
	d := nvfp4Codes(w, false)
	if o.ending == "" && !slices.Equal(d.grid(), scale.Shape) {
		if down := nvfp4Codes(w, true); slices.Equal(down.grid(), scale.Shape) {
			d = down
		}
	}
	if err := d.checkGroups(w, scale); err != nil {
		return nil, err
	}
	if o.ending == "" {
		if err := o.checkDirection(d); err != nil {
			return nil, err
		}
	}
	if err := checkSecond(w, second); err != nil {
		return nil, err
	}
	d.Values = e2m1PlusZero
	d.Scales.Source, d.Scales.Second = &scale.Source, &second.Source
	return d, nil
}

// nvfp4Codes reads each byte as two codes: of a column if down is set, or else of a row. The groups
// of 16 run in the same direction.
func nvfp4Codes(w *Stored, down bool) *packedWeight {
	axis, where := 1, "row"
	if down {
		axis, where = 0, "column"
	}
	d := &packedWeight{where: "groups of 16 in a " + where}
	d.Codes, d.Pack = &w.Source, expr.Pack{Bits: 4, Down: down}
	d.Shape = slices.Clone(w.Shape)
	if n := len(d.Shape) - 2 + axis; n >= 0 {
		d.Shape[n] *= 2
	}
	d.Scales.Block = [2]int64{1, 1}
	d.Scales.Block[axis] = 16
	return d
}

// inputsFirst are models without a family whose grouped experts are stacks of inputs × outputs.
var inputsFirst = []string{"llama4", "llama4_text"}

// checkDirection refuses a stack that is transposed against the model's parameter. Codes are packed
// along the inputs.
func (o *opening) checkDirection(d *packedWeight) error {
	first, known := o.inputsFirst()
	if !known || first == d.Pack.Down {
		return nil
	}
	axis := "the last axis"
	if d.Pack.Down {
		axis = "the axis before the last"
	}
	return fmt.Errorf("%s: %s: grouped experts of shape %v, whose inputs are on %s: the model's "+
		"own parameter has them on the other axis: export the model with ModelOpt, which keeps "+
		"the axes of the parameter", o.codes.Shard, o.codes.Key, d.Shape, axis)
}

// inputsFirst reports whether the model's grouped experts are stacks of inputs × outputs, if that
// is known.
func (o *opening) inputsFirst() (first, known bool) {
	if f := o.family; f != nil && f.experts != nil {
		if _, g, ok := f.groupedExperts(locate(o.codes.Key).rest); ok {
			return g.transposed, true
		}
	}
	known = slices.ContainsFunc(o.settings.modelTypes(),
		func(t string) bool { return slices.Contains(inputsFirst, t) })
	return known, known
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
