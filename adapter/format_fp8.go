package adapter

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// fp8Formats are one-byte floats with scales: value = code × scale. The rows differ in the name of
// the scale. findPartition decides which elements share a scale.
var fp8Formats = []*format{
	fp8Format(".weight", ".weight_scale_inv"), // DeepSeek-V3, Qwen3, MiniMax, Mistral
	fp8Format(".weight", ".weight_scale"),     // compressed-tensors, ModelOpt, FBGEMM, AutoFP8
	fp8Format(".weight", ".qscale_weight"),    // Mistral's own checkpoints
	fp8Format(".weight", ".scale_weight"),     // ComfyUI
	fp8Format("", "_weight_scale_inv"),        // grouped experts, without ".weight" in their key
	fp8Format("", "_weight_scale"),            // grouped experts of ModelOpt
	fp8Format("", "_scale_inv"),               // grouped experts of Mistral-Small-4
	loose(fp8Format(".weight", ".scale")),     // DeepSeek-V4
	loose(fp8Format("", "_scale")),            // Llama-4
}

func fp8Format(codes, scale string) *format {
	return &format{
		name: "FP8", codes: codes, parts: []string{scale},
		fits: func(m *module) bool { return fp8Coded(m.codes.DType) },
		open: func(o *opening) (decoder, error) { return openFP8(o, o.part(scale)) },
	}
}

func loose(f *format) *format {
	f.loose = true
	return f
}

// fp8Coded reports whether a dtype holds FP8 codes that can be decoded.
func fp8Coded(d safetensors.DType) bool {
	return d == safetensors.F8E4M3 || d == safetensors.F8E5M2
}

// isExponents reports whether scales are powers of two, stored as exponents in either dtype.
func isExponents(scale *Stored) bool {
	return scale.DType == safetensors.U8 || scale.DType == safetensors.F8E8M0
}

// fp8Weight is codes under one grid of scales, or under one grid for each matrix of a stack.
type fp8Weight struct {
	codes  *expr.Source
	scales *expr.Source // nil: the codes are the values
	where  *partition
}

// openFP8 decides which elements share a scale.
func openFP8(o *opening, scale *Stored) (decoder, error) {
	if err := checkScale(scale); err != nil {
		return nil, err
	}
	if isExponents(scale) && o.c.kernelOrder[scale.Shard] {
		return nil, kernelOrder.refused(o.codes, o.settings)
	}
	if o.family != nil && o.family.scales != nil {
		if d, err := o.family.scales(o, scale); d != nil || err != nil {
			return d, err
		}
	}
	w := o.codes
	return o.located(scale, o.settings.fusionOf(w.Key, w.Shape))
}

// located finds the partition of a scale and makes the decoder.
func (o *opening) located(scale *Stored, fused fusion) (decoder, error) {
	w := o.codes
	p, err := findPartition(w.Shape, scale.Shape, o.quantization.floats.schemeOf(w.Key), fused,
		o.family.takesLarger(w.Key))
	if err != nil {
		return nil, fmt.Errorf("%s: %s: for %s: %w", scale.Shard, scale.Key, w.Key, err)
	}
	if len(p.parts) > 0 {
		return newParted(w, scale, &p), nil
	}
	if p.block[0] == 1 {
		groups := blocksIn(frameOf(w.Shape).cols, p.block[1])
		if err := o.withoutList(w, &o.quantization.floats, groups); err != nil {
			return nil, err
		}
	}
	return newFP8Weight(w, scale, o.quantization.intern(p)), nil
}

// newFP8Weight combines codes and a grid. The scales get the shape of the grid.
func newFP8Weight(w, scale *Stored, where *partition) *fp8Weight {
	d := &fp8Weight{codes: &w.Source, scales: &scale.Source, where: where}
	f := frameOf(w.Shape)
	switch g := f.grid(*where); {
	case where.larger, !f.stack && len(scale.Shape) == 2 && scale.Shape[0] == g[0] &&
		scale.Shape[1] == g[1]:
	case where.shared:
		d.scales = reshapedSource(&scale.Source, nil)
	default:
		d.scales = reshapedSource(&scale.Source, f.needed(*where))
	}
	return d
}

// checkScale refuses scales of a dtype that no format uses.
func checkScale(s *Stored) error {
	switch s.DType {
	case safetensors.F32, safetensors.BF16, safetensors.F16, safetensors.F8E8M0:
		return nil
	case safetensors.U8:
		if len(s.Shape) != 1 || s.Shape[0] == 1 {
			return nil
		}
		return fmt.Errorf("%s: %s: exponents in a list %v are in the order of a kernel "+
			"(swizzled), which is not decoded: export the checkpoint with a grid of exponents",
			s.Shard, s.Key, s.Shape)
	}
	return fmt.Errorf("%s: %s: scale of dtype %s: "+
		"expected F32, BF16, F16, F8_E8M0 or U8 (exponents)", s.Shard, s.Key, s.DType)
}

// reshapedSource returns the same stored bytes with another shape.
func reshapedSource(s *expr.Source, shape []int64) *expr.Source {
	r := *s
	r.Shape = shape
	return &r
}

func (d *fp8Weight) shape() []int64 { return d.codes.Shape }

func (d *fp8Weight) describe() (string, safetensors.DType) {
	if d.scales == nil {
		return "without scales", safetensors.Invalid
	}
	return d.where.String(), d.scales.DType
}

// node decodes the weight. A tensor that is neither a matrix nor a stack is decoded as the matrix
// of its frame and then reshaped.
func (d *fp8Weight) node(out safetensors.DType) (expr.Node, error) {
	f := frameOf(d.codes.Shape)
	o := expr.DequantizeOptions{Out: out}
	if d.where != nil {
		o.Block = d.where.block
	}
	if f.regular() {
		return expr.Dequantize(d.codes, d.scales, o)
	}
	n, err := expr.Dequantize(reshapedSource(d.codes, []int64{f.rows, f.cols}), d.scales, o)
	if err != nil {
		return nil, err
	}
	return expr.Reshape(n, d.codes.Shape...)
}

// partedWeight is a matrix in which each run of rows has its own grid.
type partedWeight struct {
	codes *expr.Source
	runs  []run
	where string
}

// run is a run of rows under a grid whose first block begins with the run.
type run struct {
	rows   int64
	scales *expr.Source
	block  [2]int64
}

// newParted gives each part of a fused matrix its rows of the grid.
func newParted(w, scale *Stored, p *partition) *partedWeight {
	d := &partedWeight{codes: &w.Source, where: p.String()}
	cols := blocksIn(w.Shape[1], p.block[1])
	var at int64
	for _, rows := range p.parts {
		n := blocksIn(rows, p.block[0])
		d.runs = append(d.runs, run{rows, scaleRows(scale, at, n, cols), p.block})
		at += n
	}
	return d
}

// scaleRows returns n rows of a grid of scales with the given number of columns.
func scaleRows(scale *Stored, from, n, cols int64) *expr.Source {
	s := scale.Source
	s.Offset += from * cols * int64(s.DType.Bits()/8)
	s.Shape = []int64{n, cols}
	return &s
}

func (d *partedWeight) shape() []int64 { return d.codes.Shape }

func (d *partedWeight) describe() (string, safetensors.DType) {
	return d.where, d.runs[0].scales.DType
}

func (d *partedWeight) node(out safetensors.DType) (expr.Node, error) {
	nodes := make([]expr.Node, 0, len(d.runs))
	width := d.codes.Shape[1] * int64(d.codes.DType.Bits()/8)
	codes := *d.codes
	for _, p := range d.runs {
		part := codes
		part.Shape = []int64{p.rows, d.codes.Shape[1]}
		codes.Offset += p.rows * width
		n, err := expr.Dequantize(&part, p.scales, expr.DequantizeOptions{Block: p.block, Out: out})
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return expr.Concat(0, nodes...)
}
