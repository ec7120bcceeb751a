package synth

import (
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Value is element (row, col) of a stored matrix as float32: the code times the
// scale of its block where the tensor is quantized, rounded once. A vector is one row.
func (c *Checkpoint) Value(t *Tensor, row, col int64) float32 {
	return c.value(t, c.scale(t), row, col)
}

func (c *Checkpoint) value(t, scale *Tensor, row, col int64) float32 {
	v := decode(t, row*t.Shape[len(t.Shape)-1]+col)
	if scale == nil {
		return v
	}
	return float32(v * decode(scale, row/c.block[0]*scale.Shape[1]+col/c.block[1]))
}

// scale finds the scale grid of a weight, nil if it has none.
func (c *Checkpoint) scale(t *Tensor) *Tensor {
	if t.DType != "F8_E4M3" {
		return nil
	}
	for _, suffix := range []string{"_scale_inv", "_scale"} {
		if s := c.Find(t.Name + suffix); s != nil {
			return s
		}
	}
	return nil
}

// decode gives element i of a tensor's data, exactly.
func decode(t *Tensor, i int64) float32 {
	switch t.DType {
	case "F32":
		return math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	case "BF16":
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*i:])) << 16)
	case "F8_E8M0":
		return E8M0(t.Data[i])
	case "F8_E4M3":
		return E4M3(t.Data[i])
	}
	panic("synth: no oracle for " + t.DType)
}

// E4M3 decodes an FP8 code by the definition of the format.
func E4M3(code byte) float32 {
	sign, exp, man := 1.0, int(code>>3&15), float64(code&7)
	if code&0x80 != 0 {
		sign = -1
	}
	switch {
	case code&0x7f == 0x7f:
		return float32(math.NaN())
	case exp == 0:
		return float32(math.Copysign(man/8*math.Exp2(-6), sign))
	}
	return float32(sign * (1 + man/8) * math.Exp2(float64(exp-7)))
}

// E8M0 decodes a power-of-two scale.
func E8M0(code byte) float32 {
	if code == 0xff {
		return float32(math.NaN())
	}
	return float32(math.Exp2(float64(code) - 127))
}

// Round gives the little-endian bytes of f rounded, to nearest and ties to even, to
// "BF16", "F16" or "F32". NaN becomes the quiet NaN 0x7FFF, 0x7E00 or 0x7FC00000;
// compare NaN by being NaN.
func Round(dtype string, f float32) []byte { return AppendRound(nil, dtype, f) }

// AppendRound appends what [Round] gives.
func AppendRound(b []byte, dtype string, f float32) []byte {
	if dtype == "F32" {
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return binary.LittleEndian.AppendUint16(b, round16(dtype, f))
}

// round16 searches the neighbours of f among the values of a 16-bit format: no
// bit tricks, so that it can be trusted by reading it.
func round16(dtype string, f float32) uint16 {
	mantissa, bias, nan := 7, 127, uint16(0x7fff)
	if dtype == "F16" {
		mantissa, bias, nan = 10, 15, 0x7e00
	}
	if f != f {
		return nan
	}
	sign := uint16(0)
	if math.Signbit(float64(f)) {
		sign = 0x8000
	}
	x := math.Abs(float64(f))
	infinity := uint16(2*bias+1) << mantissa
	if math.IsInf(x, 0) {
		return sign | infinity
	}
	// zero and all subnormals share the lowest binade
	exp := max(math.Ilogb(x), 1-bias)
	n := math.RoundToEven(math.Ldexp(x, mantissa-exp)) // in units of the last place
	bits := uint64(n) + uint64(exp+bias-1)<<mantissa
	return sign | uint16(min(bits, uint64(infinity)))
}

var expertKey = regexp.MustCompile(`^(.*layers\.\d+\.mlp\.experts\.)(\d+)\.(gate_proj|up_proj|down_proj)\.weight$`)

// HF is the dequantized view under the source's own keys: quantized tensors in
// dtype, the others as they are, scales gone. Sorted by name.
func (c *Checkpoint) HF(dtype string) []Tensor {
	return c.view(dtype, false, 0, 1)
}

// Native is what the reference adapter's from_hf gives for rank of size
// expert-parallel ranks (0 of 1: everything). Sorted by name.
func (c *Checkpoint) Native(dtype string, rank, size int) []Tensor {
	return c.view(dtype, true, rank, size)
}

func (c *Checkpoint) view(dtype string, merge bool, rank, size int) []Tensor {
	var out []Tensor
	experts := map[string]map[int]map[string]*Tensor{} // prefix, number, projection
	for i := range c.Tensors {
		t := &c.Tensors[i]
		m := expertKey.FindStringSubmatch(t.Name)
		switch {
		case strings.HasSuffix(t.Name, "_scale_inv"), strings.HasSuffix(t.Name, "_scale"):
		case merge && m != nil:
			e, _ := strconv.Atoi(m[2])
			if experts[m[1]] == nil {
				experts[m[1]] = map[int]map[string]*Tensor{}
			}
			if experts[m[1]][e] == nil {
				experts[m[1]][e] = map[string]*Tensor{}
			}
			experts[m[1]][e][m[3]] = t
		case c.scale(t) != nil:
			out = append(out, c.dequantized(t, dtype))
		default:
			out = append(out, *t)
		}
	}
	for prefix, layer := range experts {
		lo, hi := share(len(layer), rank, size)
		if lo < hi {
			out = append(out, c.merged(prefix, layer, lo, hi, dtype)...)
		}
	}
	slices.SortFunc(out, func(a, b Tensor) int { return compare(a.Name, b.Name) })
	return out
}

// share is the range of experts of one rank: the first n%size ranks have one more.
func share(n, rank, size int) (lo, hi int) {
	for r := range rank + 1 {
		lo = hi
		hi += n / size
		if r < n%size {
			hi++
		}
	}
	return lo, hi
}

func (c *Checkpoint) dequantized(t *Tensor, dtype string) Tensor {
	out := Tensor{Name: t.Name, DType: dtype, Shape: t.Shape}
	scale := c.scale(t)
	for i := range t.Shape[0] {
		for j := range t.Shape[1] {
			out.Data = append(out.Data, Round(dtype, c.value(t, scale, i, j))...)
		}
	}
	return out
}

// merged stacks experts lo…hi-1 of one layer: gate and up transposed side by side, down transposed.
func (c *Checkpoint) merged(prefix string, layer map[int]map[string]*Tensor, lo, hi int,
	dtype string) []Tensor {
	gate := layer[lo]["gate_proj"]
	inner, hidden := gate.Shape[0], gate.Shape[1]
	n := int64(hi - lo)
	both := Tensor{Name: prefix + "gate_and_up_projs", DType: dtype,
		Shape: []int64{n, hidden, 2 * inner}}
	down := Tensor{Name: prefix + "down_projs", DType: dtype, Shape: []int64{n, inner, hidden}}
	for e := lo; e < hi; e++ {
		gate, up := c.dequantized(layer[e]["gate_proj"], dtype),
			c.dequantized(layer[e]["up_proj"], dtype)
		for d := range hidden {
			both.Data = append(both.Data, column(gate, d)...)
			both.Data = append(both.Data, column(up, d)...)
		}
		projection := c.dequantized(layer[e]["down_proj"], dtype)
		for i := range inner {
			down.Data = append(down.Data, column(projection, i)...)
		}
	}
	return []Tensor{both, down}
}

// column gives the bytes of one column of a matrix.
func column(t Tensor, col int64) (out []byte) {
	w := int64(Width(t.DType))
	for row := range t.Shape[0] {
		at := (row*t.Shape[1] + col) * w
		out = append(out, t.Data[at:at+w]...)
	}
	return out
}

// String is for messages of tests.
func (t Tensor) String() string {
	return fmt.Sprintf("%s %s%v", t.Name, t.DType, t.Shape)
}
