package adapter

import (
	"fmt"
	"math"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// compressedFormats are the formats of compressed-tensors other than FP8 and MXFP4. The tensors
// decide between them, because groups of the configuration overlap in published files. The rules
// are those of the library's compressors.
var compressedFormats = []*format{
	{
		name: "NVFP4 (compressed-tensors)", codes: ".weight_packed",
		parts: []string{".weight_scale", ".weight_global_scale"},
		signs: []string{".weight_packed", ".weight_global_scale"},
		fits: func(m *module) bool {
			scale := m.part(".weight_scale")
			return m.part(".weight_global_scale") != nil ||
				scale != nil && scale.DType == safetensors.F8E4M3
		},
		open: openCompressedNVFP4,
	},
	{
		name: "packed integers (compressed-tensors)", codes: ".weight_packed",
		parts:    []string{".weight_scale", ".weight_shape"},
		optional: []string{".weight_zero_point", ".weight_g_idx"},
		signs:    []string{".weight_packed", ".weight_shape"},
		read:     []string{".weight_shape"},
		lists:    []string{".weight_g_idx"},
		open:     openPack,
	},
	{
		name: "INT8 (compressed-tensors)", codes: ".weight", parts: []string{".weight_scale"},
		optional: []string{".weight_zero_point"},
		fits:     typed(".weight", safetensors.I8),
		open:     openInt8,
	},
	{
		name:  "a format with zero points or ordered groups (compressed-tensors)",
		signs: []string{".weight_zero_point", ".weight_g_idx"},
		fits:  func(m *module) bool { return m.codes != nil },
	},
}

// openCompressedNVFP4 reads codes of 4 bits with two scales. Unlike in other formats, the scales
// are divided by the second one.
func openCompressedNVFP4(o *opening) (decoder, error) {
	w, scale, global := o.part(".weight_packed"), o.part(".weight_scale"),
		o.part(".weight_global_scale")
	if err := expect(w, safetensors.U8); err != nil {
		return nil, err
	}
	if err := expect(scale, safetensors.F8E4M3); err != nil {
		return nil, err
	}
	if err := expect(global, safetensors.F32, safetensors.BF16); err != nil {
		return nil, err
	}
	if err := checkSecond(w, global); err != nil {
		return nil, err
	}
	d := nvfp4Codes(w, false)
	d.Values = e2m1
	d.Scales.Source, d.Scales.Second, d.Scales.Divides = &scale.Source, &global.Source, true
	if err := d.checkGroups(w, scale); err != nil {
		return nil, err
	}
	return d, o.withoutList(w, &o.quantization.floats, d.groupsInRow())
}

// openPack reads whole numbers of 4 or 8 bits. Each is stored higher by half the range of numbers,
// as pack_to_int32 of compressed-tensors does. The words of a row are I32, and a stored shape says
// how many codes of the last word count.
func openPack(o *opening) (decoder, error) {
	w, scale := o.part(".weight_packed"), o.part(".weight_scale")
	if err := expect(w, safetensors.I32); err != nil {
		return nil, err
	}
	if err := expect(scale, safetensors.F32, safetensors.BF16, safetensors.F16); err != nil {
		return nil, err
	}
	shape, err := o.statedShape(w)
	if err != nil {
		return nil, err
	}
	s := o.quantization.integers.schemeOf(o.name)
	bits, err := o.bitsOf(w, shape)
	if err != nil {
		return nil, err
	}
	d := &packedWeight{Packed: expr.Packed{
		Codes: &w.Source, Shape: shape, Pack: expr.Pack{Bits: bits},
		Scales: expr.Scales{Source: &scale.Source}, Zeros: expr.Zeros{Constant: 1 << (bits - 1)},
	}}
	if err := o.group(d, w, scale); err != nil {
		return nil, err
	}
	o.compare(d, w, s)
	return d, o.zeroPoints(d, w)
}

// compare notes a configuration that describes a pack in another way. The tensors decide, because
// published models have configurations that are left over from other models.
func (o *opening) compare(d *packedWeight, w *Stored, s *scheme) {
	f, p := frameOf(d.Shape), partition{block: d.Scales.Block}
	sameBits := len(s.bits) == 0 || slices.Contains(s.bits, d.Pack.Bits)
	if sameBits && (!s.divides() || s.names(p) ||
		len(f.named([]partition{p}, f.candidates(s, fusion{}, false), s)) > 0) {
		return
	}
	o.against.add(fmt.Sprintf("%s, but the configuration says %s: the tensors decide", d.where, s),
		w.Key)
}

// statedShape returns the shape that the tensor ".weight_shape" holds.
func (o *opening) statedShape(w *Stored) ([]int64, error) {
	t := o.part(".weight_shape")
	if err := expect(t, safetensors.I64, safetensors.I32); err != nil {
		return nil, err
	}
	shape, ok := o.numbers(t)
	switch {
	case !ok || len(t.Shape) != 1 || len(shape) != 2:
		return nil, fmt.Errorf("%s: %s: %s %v holds %v: expected two numbers, the rows and "+
			"columns of %s", t.Shard, t.Key, t.DType, t.Shape, shape[:min(len(shape), 4)], w.Key)
	case len(w.Shape) != 2 || shape[0] != w.Shape[0] || shape[1] < 0 || shape[1] > math.MaxInt32:
		return nil, fmt.Errorf("%s: %s: holds the shape %v, but %s has the words %v: expected a "+
			"matrix with as many rows", t.Shard, t.Key, shape, w.Key, w.Shape)
	}
	return shape, nil
}

// decodedWidths are the bits of codes that are decoded. Between versions 0.13 and 0.20 of
// compressed-tensors the packing of other widths changed, so only these have one meaning.
var decodedWidths = []int{4, 8}

// fittingWidths returns the bits of codes with which so many columns fill so many words. Codes
// whose bits do not divide 32 straddle words or not, depending on the library's version.
func fittingWidths(words, cols int64) (fit []int) {
	for bits := int64(2); bits <= 8; bits++ {
		apart, dense := ceilDiv(cols, 32/bits), ceilDiv(cols*bits, 32)
		if words == apart || words == dense {
			fit = append(fit, int(bits))
		}
	}
	return fit
}

// bitsOf returns the bits of a code, which follow from the number of words in a row. If several
// widths need as many, as 7 and 8 bits do, the configuration decides.
func (o *opening) bitsOf(w *Stored, shape []int64) (int, error) {
	configured := o.quantization.integers.schemeOf(o.name).bits
	if len(configured) == 0 { // names in the configuration may be those of another library
		configured = o.quantization.integers.any.bits
	}
	fit := fittingWidths(w.Shape[1], shape[1])
	named := slices.DeleteFunc(slices.Clone(fit),
		func(bits int) bool { return !slices.Contains(configured, bits) })
	if len(fit) > 1 && len(named) > 0 {
		fit = named
	}
	stated := fmt.Sprintf("%s: %s: words %v of the shape %v in %s", w.Shard, w.Key, w.Shape, shape,
		o.part(".weight_shape").Key)
	switch {
	case len(fit) == 0:
		return 0, fmt.Errorf("%s fit no width of codes: expected %d words in a row for 4 bits, or "+
			"%d for 8: restore the published files", stated, ceilDiv(shape[1], 8),
			ceilDiv(shape[1], 4))
	case len(fit) > 1:
		return 0, fmt.Errorf("%s fit codes of %v bits: say in config.json which it is: add "+
			"num_bits to the weights of quantization_config.config_groups", stated, fit)
	case !slices.Contains(decodedWidths, fit[0]):
		return 0, fmt.Errorf("%s have codes of %d bits (compressed-tensors), which are not "+
			"decoded: "+otherwise, stated, fit[0])
	}
	return fit[0], nil
}

// group decides which codes share a scale. The groups of a row have equal sizes.
func (o *opening) group(d *packedWeight, w, scale *Stored) error {
	rows, cols := d.Shape[0], d.Shape[1]
	p, n := partition{}, int64(1) // groups in a row
	if !isWholeScale(scale.Shape) {
		if len(scale.Shape) == 2 {
			n = scale.Shape[1]
		}
		if len(scale.Shape) != 2 || scale.Shape[0] != rows || n < 1 || n > cols || cols%n != 0 {
			return fmt.Errorf("%s: %s: scales %v fit %s of the shape %v in no known way: expected "+
				"one scale per matrix [1], per row [%d 1], or for each of n groups in a row "+
				"[%d n], where n divides %d", scale.Shard, scale.Key, scale.Shape, w.Key, d.Shape,
				rows, rows, cols)
		}
		p.block = [2]int64{1, blockIn(cols, cols/n)}
	}
	d.Scales.Block, d.where = p.block, fmt.Sprintf("%d bits, %s", d.Pack.Bits, p)
	list := o.part(".weight_g_idx")
	if list == nil {
		return o.withoutList(w, &o.quantization.integers, n)
	}
	ordered, err := o.ordered(list, w, cols, n)
	if ordered {
		d.Groups = expr.Groups{Source: &list.Source, Axis: 1}
		d.where += ", in another order"
	}
	return err
}

// withoutList refuses groups in rows without a list if every rule of the configuration asks for
// one. Newer versions of the library lose it.
func (o *opening) withoutList(w *Stored, rules *ruleSet, groups int64) error {
	if s := rules.described(o.name); groups <= 1 || !s.ordered || s.unordered {
		return nil
	}
	return fmt.Errorf("%s: %s: config.json says actorder: group, but %s.weight_g_idx is missing: "+
		"restore the published files, or quantize the model again with actorder: weight", w.Shard,
		w.Key, o.name)
}

// ordered checks the list with the group of each column. It reports whether the groups are in
// another order than that of the columns. As in the library, -1 means that they are not.
func (o *opening) ordered(list, w *Stored, cols, n int64) (bool, error) {
	if err := expect(list, safetensors.I32); err != nil {
		return false, err
	}
	if !slices.Equal(list.Shape, []int64{cols}) {
		return false, fmt.Errorf("%s: %s: shape %v, expected a group for each column of %s: [%d]",
			list.Shard, list.Key, list.Shape, w.Key, cols)
	}
	l, err := o.list(list)
	if err != nil || l.least == -1 {
		return false, err
	}
	if err := l.check(list, n); err != nil {
		return false, err
	}
	if l.each != cols/n {
		return false, fmt.Errorf("%s: %s: groups of unequal sizes: expected %d columns in each of "+
			"%d", list.Shard, list.Key, cols/n, n)
	}
	return l.size != l.each, nil
}

// zeroPoints adds the zero points of a pack. They are packed down the rows.
func (o *opening) zeroPoints(d *packedWeight, w *Stored) error {
	t := o.part(".weight_zero_point")
	if t == nil {
		return o.withoutZeros(w)
	}
	if err := expect(t, safetensors.I32); err != nil {
		return err
	}
	g := frameOf(d.Shape).grid(partition{block: d.Scales.Block})
	bits := int64(d.Pack.Bits)
	need := []int64{ceilDiv(g[0]*bits, 32), g[1]}
	if !slices.Equal(t.Shape, need) {
		return fmt.Errorf("%s: %s: zero points %v for scales %v of %s: expected %v, packed down "+
			"the rows", t.Shard, t.Key, t.Shape, d.Scales.Source.Shape, w.Key, need)
	}
	d.Zeros = expr.Zeros{Source: &t.Source, Pack: expr.Pack{Bits: d.Pack.Bits, Down: true}}
	return nil
}

// withoutZeros refuses codes without zero points if every rule of the configuration asks for them.
func (o *opening) withoutZeros(w *Stored) error {
	s := o.quantization.integers.described(o.name)
	if !s.asymmetric || s.symmetric {
		return nil
	}
	return fmt.Errorf("%s: %s: config.json says symmetric: false, but %s.weight_zero_point is "+
		"missing: restore the published files", w.Shard, w.Key, o.name)
}

// openInt8 reads whole numbers of 8 bits, a byte each.
func openInt8(o *opening) (decoder, error) {
	w, scale := o.codes, o.part(".weight_scale")
	if err := expect(scale, safetensors.F32, safetensors.BF16, safetensors.F16); err != nil {
		return nil, err
	}
	s := o.quantization.integers.schemeOf(o.name)
	p, err := findPartition(w.Shape, scale.Shape, s, fusion{}, false)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: for %s: %w", scale.Shard, scale.Key, w.Key, err)
	}
	d := &packedWeight{
		Packed: expr.Packed{
			Codes: &w.Source, Shape: w.Shape, Pack: expr.Pack{Bits: 8}, Signed: true,
			Scales: expr.Scales{Source: &scale.Source, Block: p.block},
		},
		where: p.String(),
	}
	if err := o.withoutList(w, &o.quantization.integers, d.groupsInRow()); err != nil {
		return nil, err
	}
	t := o.part(".weight_zero_point")
	switch {
	case t == nil:
		return d, o.withoutZeros(w)
	case !slices.Equal(t.Shape, scale.Shape):
		return nil, fmt.Errorf("%s: %s: zero points %v beside scales %v: expected the same shape",
			t.Shard, t.Key, t.Shape, scale.Shape)
	default:
		if err := expect(t, safetensors.I8); err != nil {
			return nil, err
		}
		d.Zeros = expr.Zeros{Source: &t.Source, Pack: expr.Pack{Bits: 8}, Signed: true}
	}
	return d, nil
}
