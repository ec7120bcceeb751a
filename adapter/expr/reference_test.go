package expr

import (
	"math"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// tensor is the reference of the evaluator. It computes every element alone, from the rules of the
// formats, and shares no code with the evaluator.
type tensor struct {
	dtype safetensors.DType
	shape []int64
	bits  []uint64 // of each element, row-major
}

func (t tensor) bytes() []byte {
	var b []byte
	for _, u := range t.bits {
		for i := 0; i < t.dtype.Bits(); i += 8 {
			b = append(b, byte(u>>i))
		}
	}
	return b
}

// each makes a tensor of another shape. Its element at position p is t's element at from(p).
func (t tensor) each(shape []int64, from func(p []int64) []int64) tensor {
	out := tensor{dtype: t.dtype, shape: shape}
	positions(shape, func(p []int64) { out.bits = append(out.bits, t.at(from(p))) })
	return out
}

func (t tensor) at(p []int64) uint64 {
	i := int64(0)
	for axis, x := range p {
		i = i*t.shape[axis] + x
	}
	return t.bits[i]
}

// positions calls do for each position of a shape, row-major. do may change p.
func positions(shape []int64, do func(p []int64)) {
	if slices.Contains(shape, 0) {
		return
	}
	p, q := make([]int64, len(shape)), make([]int64, len(shape))
	for {
		copy(q, p)
		do(q)
		axis := len(shape) - 1
		for ; axis >= 0; axis-- {
			if p[axis]++; p[axis] < shape[axis] {
				break
			}
			p[axis] = 0
		}
		if axis < 0 {
			return
		}
	}
}

func (t tensor) transpose() tensor {
	n := len(t.shape)
	shape := slices.Clone(t.shape)
	shape[n-1], shape[n-2] = shape[n-2], shape[n-1]
	return t.each(shape, func(p []int64) []int64 {
		p[n-1], p[n-2] = p[n-2], p[n-1]
		return p
	})
}

func (t tensor) slice(axis int, lo, hi int64) tensor {
	shape := slices.Clone(t.shape)
	shape[axis] = hi - lo
	return t.each(shape, func(p []int64) []int64 {
		p[axis] += lo
		return p
	})
}

func (t tensor) index(i int64) tensor {
	stride := int64(len(t.bits)) / t.shape[0]
	return tensor{t.dtype, t.shape[1:], t.bits[i*stride : (i+1)*stride]}
}

func (t tensor) reshape(shape ...int64) tensor { return tensor{t.dtype, shape, t.bits} }

func concatTensors(axis int, ts ...tensor) tensor {
	shape := slices.Clone(ts[0].shape)
	shape[axis] = 0
	for _, t := range ts {
		shape[axis] += t.shape[axis]
	}
	out := tensor{dtype: ts[0].dtype, shape: shape}
	positions(shape, func(p []int64) {
		for _, t := range ts {
			if p[axis] < t.shape[axis] {
				out.bits = append(out.bits, t.at(p))
				return
			}
			p[axis] -= t.shape[axis]
		}
	})
	return out
}

func stackTensors(ts ...tensor) tensor {
	out := tensor{dtype: ts[0].dtype, shape: append([]int64{int64(len(ts))}, ts[0].shape...)}
	for _, t := range ts {
		out.bits = append(out.bits, t.bits...)
	}
	return out
}

func (t tensor) cast(d safetensors.DType) tensor {
	out := tensor{dtype: d, shape: t.shape}
	for _, u := range t.bits {
		v := decodeBits(u, t.dtype)
		switch {
		case math.IsNaN(v) && t.dtype == safetensors.BF16 && d == safetensors.F32:
			out.bits = append(out.bits, u<<16) // widening keeps the payload
		case math.IsNaN(v):
			out.bits = append(out.bits, quietNaN(d, u>>(t.dtype.Bits()-1)))
		default:
			out.bits = append(out.bits, encodeBits(v, d))
		}
	}
	return out
}

// multiply multiplies F32 values. The product of two float32s is exact in a float64.
func (t tensor) multiply(by float32, d safetensors.DType) tensor {
	out := tensor{dtype: f32, shape: t.shape}
	for _, u := range t.bits {
		v := decodeBits(u, f32) * float64(by)
		if math.IsNaN(v) {
			out.bits = append(out.bits, quietNaN(f32, 0))
		} else {
			out.bits = append(out.bits, encodeBits(v, f32))
		}
	}
	return out.cast(d)
}

// swapRows takes the first axis as [outer, inner, rest] and shows it as [outer, rest, inner].
func (t tensor) swapRows(outer, inner int64) tensor {
	rest := t.shape[0] / outer / inner
	return t.each(t.shape, func(p []int64) []int64 {
		o, r, i := p[0]/inner/rest, p[0]/inner%rest, p[0]%inner
		p[0] = (o*inner+i)*rest + r
		return p
	})
}

// product multiplies the entries of the first axis by the values of a vector. The product of two
// float32s is exact in a float64.
func (t tensor) product(by tensor) tensor {
	out := tensor{dtype: f32, shape: t.shape}
	positions(t.shape, func(p []int64) {
		v := decodeBits(t.at(p), t.dtype) * decodeBits(by.bits[p[0]], by.dtype)
		if math.IsNaN(v) {
			out.bits = append(out.bits, quietNaN(f32, 0))
		} else {
			out.bits = append(out.bits, encodeBits(v, f32))
		}
	})
	if t.dtype == by.dtype {
		return out.cast(t.dtype)
	}
	return out
}

// dequantizeTensor takes the grid as a matrix for each matrix of w: grid[e][i][j].
func dequantizeTensor(w tensor, grid func(e, i, j int64) float64, block [2]int64,
	d safetensors.DType) tensor {
	out := tensor{dtype: d, shape: w.shape}
	n := len(w.shape)
	positions(w.shape, func(p []int64) {
		var e int64
		if n == 3 {
			e = p[0]
		}
		i, j := p[n-2], p[n-1]
		for k, x := range []*int64{&i, &j} {
			if block[k] == 0 {
				*x = 0
			} else {
				*x /= block[k]
			}
		}
		u := w.at(p)
		product := float32(decodeBits(u, w.dtype) * grid(e, i, j)) // 4 + 24 bits: exact in float64
		if product != product {
			out.bits = append(out.bits, quietNaN(d, u>>7))
			return
		}
		out.bits = append(out.bits, encodeBits(float64(product), d))
	})
	return out
}

// floatFields are the bits of exponent and mantissa of a format. E4M3FN has NaN but no infinity.
var floatFields = map[safetensors.DType][2]int{
	safetensors.F8E4M3: {4, 3},
	safetensors.F8E5M2: {5, 2},
	safetensors.BF16:   {8, 7},
	safetensors.F16:    {5, 10},
	safetensors.F32:    {8, 23},
	safetensors.F64:    {11, 52},
}

func decodeBits(u uint64, d safetensors.DType) float64 {
	if d == safetensors.F8E8M0 || d == safetensors.U8 { // bytes are exponents
		if u == 255 {
			return math.NaN()
		}
		return math.Ldexp(1, int(u)-127)
	}
	f := floatFields[d]
	exponent, mantissa := f[0], f[1]
	bias := 1<<(exponent-1) - 1
	e := int(u>>mantissa) & (1<<exponent - 1)
	m := int(u & (1<<mantissa - 1))
	sign := 1.0
	if u>>(exponent+mantissa)&1 == 1 {
		sign = -1
	}
	last := 1<<exponent - 1
	switch {
	case d == safetensors.F8E4M3 && e == last && m == 7:
		return math.NaN()
	case d != safetensors.F8E4M3 && e == last && m != 0:
		return math.NaN()
	case d != safetensors.F8E4M3 && e == last:
		return sign * math.Inf(1)
	case e == 0:
		return math.Copysign(math.Ldexp(float64(m), 1-bias-mantissa), sign)
	}
	return sign * math.Ldexp(float64(m+1<<mantissa), e-bias-mantissa)
}

// encodeBits rounds to the nearest multiple of the last place, ties to even.
func encodeBits(v float64, d safetensors.DType) uint64 {
	exponent, mantissa := floatFields[d][0], floatFields[d][1]
	bias := 1<<(exponent-1) - 1
	var sign uint64
	if math.Signbit(v) {
		sign = 1 << (exponent + mantissa)
	}
	v = math.Abs(v)
	inf := sign | uint64(1<<exponent-1)<<mantissa
	if math.IsInf(v, 0) {
		return inf
	}
	_, e := math.Frexp(v) // v = [0.5, 1) × 2^e
	e = max(e-1, 1-bias)
	n := math.RoundToEven(math.Ldexp(v, mantissa-e)) // in units of the last place
	if n >= float64(int(2)<<mantissa) {
		n, e = n/2, e+1
	}
	if e > bias {
		return inf
	}
	if n < float64(int(1)<<mantissa) { // subnormal
		return sign | uint64(n)
	}
	return sign | uint64(e+bias)<<mantissa | uint64(n)&(1<<mantissa-1)
}

func quietNaN(d safetensors.DType, sign uint64) uint64 {
	exponent, mantissa := floatFields[d][0], floatFields[d][1]
	return sign<<(exponent+mantissa) | uint64(1<<exponent-1)<<mantissa | 1<<(mantissa-1)
}

// quantizeTensor computes codes and grid, element by element. If ones is set, the scales are 1.
func quantizeTensor(t tensor, block [2]int64, ones bool) (codes, grid tensor) {
	rows, cols := t.shape[0], t.shape[1]
	grid = tensor{dtype: safetensors.F32, shape: []int64{(rows + block[0] - 1) / block[0],
		(cols + block[1] - 1) / block[1]}}
	positions(grid.shape, func(p []int64) {
		scale := float32(1)
		if !ones {
			scale = blockScale(t, p[0]*block[0], p[1]*block[1], block)
		}
		grid.bits = append(grid.bits, uint64(math.Float32bits(scale)))
	})
	codes = tensor{dtype: safetensors.F8E4M3, shape: t.shape}
	positions(t.shape, func(p []int64) {
		scale := decodeBits(grid.at([]int64{p[0] / block[0], p[1] / block[1]}), safetensors.F32)
		u := t.at(p)
		sign := u >> (t.dtype.Bits() - 1) << 7
		codes.bits = append(codes.bits,
			sign|nearestCode(float32(math.Abs(decodeBits(u, t.dtype))/scale)))
	})
	return codes, grid
}

func blockScale(t tensor, row, col int64, block [2]int64) float32 {
	var amax float64
	for i := row; i < min(row+block[0], t.shape[0]); i++ {
		for j := col; j < min(col+block[1], t.shape[1]); j++ {
			if v := math.Abs(decodeBits(t.at([]int64{i, j}), t.dtype)); v > amax &&
				!math.IsInf(v, 0) {
				amax = v
			}
		}
	}
	return max(float32(amax)/448, 0x1p-126)
}

var codeValues = func() (v [0x7f]float64) {
	for u := range v {
		v[u] = decodeBits(uint64(u), safetensors.F8E4M3)
	}
	return v
}()

// nearestCode tries all codes. Of two equally near codes it returns the even one.
func nearestCode(v float32) uint64 {
	if v != v {
		return 0x7f
	}
	best, distance := uint64(0), math.Inf(1)
	for u := range uint64(0x7f) {
		d := math.Abs(min(float64(v), 1e9) - codeValues[u])
		if d < distance || d == distance && u%2 == 0 {
			best, distance = u, d
		}
	}
	return best
}
