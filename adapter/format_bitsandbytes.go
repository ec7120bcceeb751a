package adapter

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// bitsandbytesFormats are codes of 4 bits with a table of their numbers and a description as JSON,
// and codes of 8 bits with a scale for each row. A parameter of experts has no ".weight" in its
// name.
var bitsandbytesFormats = []*format{
	fourBits("bitsandbytes NF4", ".weight", "nf4"),
	fourBits("bitsandbytes FP4", ".weight", "fp4"),
	fourBits("bitsandbytes NF4", "", "nf4"),
	fourBits("bitsandbytes FP4", "", "fp4"),
	{
		name: "bitsandbytes INT8", codes: ".weight", parts: []string{".SCB"},
		signs:    []string{".SCB"},
		optional: []string{".weight_format"}, read: []string{".weight_format"},
		open: openEightBits,
	},
	withoutState(".weight"),
	withoutState(""),
}

// withoutState is codes of 4 bits whose description is missing.
func withoutState(codes string) *format {
	return &format{
		name: "bitsandbytes in 4 bits without its quant_state", codes: codes,
		signs: []string{codes + ".absmax", codes + ".quant_map", codes + ".nested_absmax",
			codes + ".nested_quant_map"},
		instead: "restore the published files, because the description of the codes is missing",
	}
}

// fourBits is the format of codes of 4 bits of one type.
func fourBits(name, codes, kind string) *format {
	state := codes + ".quant_state.bitsandbytes__" + kind
	return &format{
		name: name, codes: codes,
		parts:    []string{codes + ".absmax", codes + ".quant_map", state},
		signs:    []string{state},
		optional: []string{codes + ".nested_absmax", codes + ".nested_quant_map"},
		read:     []string{codes + ".quant_map", state},
		open: func(o *opening) (decoder, error) {
			f := fourBitWeight{codes: o.codes, absmax: o.part(codes + ".absmax"),
				values: o.part(codes + ".quant_map"), text: o.part(state),
				nested:    o.part(codes + ".nested_absmax"),
				nestedMap: o.part(codes + ".nested_quant_map")}
			return f.open(o, kind)
		},
	}
}

// fourBitWeight is the tensors of a weight in 4 bits.
type fourBitWeight struct {
	codes, absmax, values, text, nested, nestedMap *Stored
}

// open makes the decoder. Blocks run on from one row to the next.
func (f *fourBitWeight) open(o *opening, kind string) (decoder, error) {
	s, err := f.state(o, kind)
	if err != nil {
		return nil, err
	}
	values, err := f.numbers(o)
	if err != nil {
		return nil, err
	}
	n := product(s.shape)
	if err := f.check(s, n); err != nil {
		return nil, err
	}
	d := &flatWeight{of: s.shape}
	d.where = fmt.Sprintf("blocks of %d", s.block)
	d.Shape = s.rows(n)
	// The stored dtype says nothing about the codes, and its last element may be partly unused.
	codes := reshapedSource(&f.codes.Source, []int64{(n + 1) / 2})
	codes.DType = safetensors.U8
	d.Codes, d.Values, d.Pack = codes, values, expr.Pack{Bits: 4, Order: fp8.HighFirst}
	d.Scales = expr.Scales{Source: &f.absmax.Source, Block: [2]int64{1, s.block}}
	if s.nested != nil {
		d.Scales.Nested = &expr.Nested{Map: &f.nestedMap.Source, Absmax: &f.nested.Source,
			Block: s.nested.block, Offset: s.nested.offset}
		d.where += ", with scales in blocks of their own"
	}
	return d, nil
}

// rows returns the shape of the codes: the weight's own if its rows are whole blocks, and otherwise
// a single row.
func (s *quantState) rows(n int64) []int64 {
	if r := len(s.shape); r == 2 || r == 3 {
		if cols := s.shape[r-1]; cols%s.block == 0 && cols%2 == 0 {
			return s.shape
		}
	}
	return []int64{1, n}
}

// state reads the description and compares it with the tensors.
func (f *fourBitWeight) state(o *opening, kind string) (*quantState, error) {
	raw, ok := o.read(f.text)
	if !ok || len(raw) > maxSmall {
		return nil, fmt.Errorf("%s: %s: %s %v: expected at most %d bytes of JSON", f.text.Shard,
			f.text.Key, f.text.DType, f.text.Shape, maxSmall)
	}
	s, err := parseQuantState(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", f.text.Shard, f.text.Key, err)
	}
	said := o.settings.object(quantizationFields...).text("bnb_4bit_quant_type")
	switch {
	case s.kind != kind:
		err = fmt.Errorf("quant_type is %.100q, but its name ends with %q", s.kind, kind)
	case said != "" && said != kind:
		err = fmt.Errorf("quant_type is %q, but config.json: bnb_4bit_quant_type is %.100q: one "+
			"of them is wrong", kind, said)
	case (s.nested != nil) != (f.nested != nil), (s.nested != nil) != (f.nestedMap != nil):
		err = fmt.Errorf("nested scales need nested_blocksize, nested_dtype and nested_offset, " +
			"and the tensors nested_absmax and nested_quant_map: some are missing")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", f.text.Shard, f.text.Key, err)
	}
	return s, nil
}

// numbers reads the numbers of the codes.
func (f *fourBitWeight) numbers(o *opening) (*[16]float32, error) {
	raw, ok := o.read(f.values)
	if !ok || f.values.DType != safetensors.F32 || !slices.Equal(f.values.Shape, []int64{16}) {
		return nil, fmt.Errorf("%s: %s: numbers of codes %s %v: expected F32 [16]",
			f.values.Shard, f.values.Key, f.values.DType, f.values.Shape)
	}
	return o.quantization.numbersIn([64]byte(raw)), nil
}

// numbersIn returns a table of numbers. Equal tables share one copy, because every weight has one.
func (q *quantization) numbersIn(raw [64]byte) *[16]float32 {
	if q.numbers[raw] == nil {
		if q.numbers == nil {
			q.numbers = map[[64]byte]*[16]float32{}
		}
		values := new([16]float32)
		for i := range values {
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		q.numbers[raw] = values
	}
	return q.numbers[raw]
}

// storages are the dtypes that codes of 4 bits are stored as.
var storages = []safetensors.DType{
	safetensors.U8, safetensors.I8, safetensors.BF16, safetensors.F16, safetensors.F32,
}

// check compares the sizes of the tensors with the description of n values.
func (f *fourBitWeight) check(s *quantState, n int64) error {
	w, need := f.codes, (n+1)/2
	item := int64(w.DType.Bits() / 8)
	switch {
	case !slices.Contains(storages, w.DType):
		return fmt.Errorf("%s: %s: codes of 4 bits stored as %s: expected U8, I8, BF16, F16 or F32",
			w.Shard, w.Key, w.DType)
	case len(w.Shape) == 0 || w.Shape[0] != product(w.Shape):
		return fmt.Errorf("%s: %s: codes of shape %v: expected a column [n 1], because the "+
			"library takes a row for the codes of a transposed weight", w.Shard, w.Key, w.Shape)
	case product(w.Shape)*item != (need+item-1)/item*item:
		return fmt.Errorf("%s: %s: %s %v, but %s describes shape %v, which needs %d bytes",
			w.Shard, w.Key, w.DType, w.Shape, f.text.Key, s.shape, need)
	}
	blocks := blocksIn(n, s.block)
	what := fmt.Sprintf("%s describes shape %v in blocks of %d, which", f.text.Key, s.shape,
		s.block)
	if err := wants(f.absmax, f.scaleType(), blocks, what); err != nil {
		return err
	}
	if s.nested == nil {
		return nil
	}
	if err := wants(f.nestedMap, safetensors.F32, 256, "scales in 8 bits"); err != nil {
		return err
	}
	return wants(f.nested, safetensors.F32, blocksIn(blocks, s.nested.block),
		fmt.Sprintf("%d scales in blocks of %d", blocks, s.nested.block))
}

// scaleType returns the dtype of absmax: codes if they have scales of their own.
func (f *fourBitWeight) scaleType() safetensors.DType {
	if f.nested != nil {
		return safetensors.U8
	}
	return safetensors.F32
}

// wants checks that a tensor is a list of n numbers, as a description needs.
func wants(t *Stored, d safetensors.DType, n int64, what string) error {
	if t.DType == d && product(t.Shape) == n {
		return nil
	}
	return fmt.Errorf("%s: %s: %s %v: %s needs %s [%d]", t.Shard, t.Key, t.DType, t.Shape, what, d,
		n)
}

// flatWeight is a weight whose codes have another shape than its values.
type flatWeight struct {
	packedWeight
	of []int64
}

func (d *flatWeight) shape() []int64 { return d.of }

func (d *flatWeight) node(out safetensors.DType) (expr.Node, error) {
	n, err := d.packedWeight.node(out)
	if err != nil {
		return nil, err
	}
	return expr.Reshape(n, d.of...)
}

// openEightBits decodes codes of 8 bits. A scale belongs to a row. It is the row's largest
// magnitude, which is 127 times the step between two codes.
func openEightBits(o *opening) (decoder, error) {
	w, scale := o.codes, o.part(".SCB")
	switch {
	case w.DType != safetensors.I8 || len(w.Shape) != 2:
		return nil, fmt.Errorf("%s: %s: %s %v beside %s: expected a matrix of I8", w.Shard, w.Key,
			w.DType, w.Shape, scale.Key)
	case scale.DType != safetensors.F32 || !slices.Equal(scale.Shape, w.Shape[:1]):
		return nil, fmt.Errorf("%s: %s: scales %s %v for %s %v: expected F32 [%d]", scale.Shard,
			scale.Key, scale.DType, scale.Shape, w.Key, w.Shape, w.Shape[0])
	}
	if err := checkOrder(o, o.part(".weight_format")); err != nil {
		return nil, err
	}
	d := &eightBitWeight{}
	d.where = rowPartition.String()
	d.Codes, d.Shape, d.Signed = &w.Source, w.Shape, true
	d.Pack = expr.Pack{Bits: 8}
	d.Scales = expr.Scales{Source: &scale.Source, Block: [2]int64{1, 0}}
	return d, nil
}

// checkOrder refuses codes in the order of a kernel.
func checkOrder(o *opening, t *Stored) error {
	if t == nil {
		return nil
	}
	raw, ok := o.read(t)
	if !ok || t.DType != safetensors.U8 || product(t.Shape) != 1 {
		return fmt.Errorf("%s: %s: %s %v: expected one number of U8", t.Shard, t.Key, t.DType,
			t.Shape)
	}
	if raw[0] != 0 {
		return fmt.Errorf("%s: %s is %d: bitsandbytes INT8 in the order of a kernel is not "+
			"decoded: save the model again with a newer bitsandbytes, which stores rows (0)",
			t.Shard, t.Key, raw[0])
	}
	return nil
}

// eightBitWeight is a weight whose scales are 127 times too large.
type eightBitWeight struct{ packedWeight }

// inverse127 is 1 / 127, rounded to float32.
const inverse127 float32 = 7.874015718698502e-3

// node multiplies by the scale and then by 1 / 127. Each product is rounded to float32, as in
// bitsandbytes' int8_vectorwise_dequant.
func (d *eightBitWeight) node(out safetensors.DType) (expr.Node, error) {
	n, err := d.packedWeight.node(safetensors.F32)
	if err != nil {
		return nil, err
	}
	return expr.Multiply(n, inverse127, out)
}
