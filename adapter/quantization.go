package adapter

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// BlockSize is the side of a block where the configuration gives none: DeepSeek's.
const BlockSize = 128

// quantizationFields are the members of config.json that describe a quantization.
var quantizationFields = []string{"quantization_config", "compression_config"}

// quantization is what a configuration says about the scales of FP8 weights.
type quantization struct {
	block  [2]int64 // size of a block; 0: not configured
	perRow bool     // some weights have a scale for each row
}

// quantizationOf reads weight_block_size, and the strategies of compressed-tensors groups.
func quantizationOf(s settings) (q quantization, err error) {
	o := s.object(quantizationFields...)
	if q.block, err = blockOf("weight_block_size", o["weight_block_size"]); err != nil {
		return q, err
	}
	for _, g := range asObject(o["config_groups"]) {
		w := asObject(asObject(g)["weights"])
		switch w["strategy"] {
		case "block":
			if q.block, err = blockOf("block_structure", w["block_structure"]); err != nil {
				return q, err
			}
		case "channel":
			q.perRow = true
		}
	}
	q.perRow = q.perRow || o.text("quant_method") == "fbgemm_fp8"
	return q, nil
}

func asObject(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// blockOf reads [128, 128], or "128x128" as older files have it; null is no blocks.
func blockOf(name string, v any) (b [2]int64, err error) {
	switch v := v.(type) {
	case nil:
		return b, nil
	case []any:
		if len(v) != 2 {
			break
		}
		for i := range v {
			if f, ok := v[i].(float64); ok && f == math.Trunc(f) && f <= math.MaxInt32 {
				b[i] = int64(f)
			}
		}
	case string:
		if _, err := fmt.Sscanf(v, "%dx%d", &b[0], &b[1]); err != nil {
			b = [2]int64{}
		}
	}
	if b[0] < 1 || b[1] < 1 || max(b[0], b[1]) > math.MaxInt32 {
		return b, fmt.Errorf("config.json: %s is %s: expected two whole numbers from 1", name, shown(v))
	}
	return b, nil
}

// grid is how scales lie over a weight.
type grid struct {
	shape []int64 // two axes, or three if the weight has
	block [2]int64
}

// grid decides how a scale lies over a weight, from the shapes and, where these
// leave a choice, from the configuration.
//
//   - one number, or one per leading matrix: the whole matrix
//   - under configured blocks: the grid of those, which may be larger than needed
//     (it is indexed from its top left, as the reference does)
//   - otherwise one number per row: whole rows
//   - otherwise the grid of 128 × 128 blocks
func (q quantization) grid(w, s *Stored) (grid, error) {
	switch s.DType {
	case safetensors.F32, safetensors.BF16, safetensors.F16, safetensors.F8E8M0:
	case safetensors.U8:
		return grid{}, fmt.Errorf("scale of dtype U8: MXFP8 (exponents as integers) is not decoded")
	default:
		return grid{}, fmt.Errorf("scale of dtype %s: expected F32, BF16, F16 or F8_E8M0", s.DType)
	}
	if g, ok := q.usual(w.Shape, s.Shape); ok {
		return g, nil
	}
	n := len(w.Shape)
	if n != 2 && n != 3 {
		return grid{}, fmt.Errorf("FP8 weight of shape %v: expected a matrix or a stack of them", w.Shape)
	}
	lead, rows, cols := w.Shape[:n-2], w.Shape[n-2], w.Shape[n-1]
	have := trimmed(s.Shape, n)
	if n == 3 && len(s.Shape) == 2 && rows == cols && !q.perRow && s.Shape[1] != 1 {
		return grid{}, fmt.Errorf("scales %v of the stack of square matrices %s %v: rows or columns, it cannot be told", s.Shape, w.Key, w.Shape)
	}
	for _, g := range q.candidates(lead, rows, cols) {
		if g.fits(have, s.Shape) {
			g.shape = append(append([]int64(nil), lead...), g.axes(have)...)
			if g.larger && strings.HasSuffix(w.Key, ".qkv_proj.weight") && !slices.Equal(g.axes(have), []int64{g.r, g.c}) {
				return grid{}, fmt.Errorf("grid of scales %v for %s %v: one for each of the parts fused in it, which is not decoded", s.Shape, w.Key, w.Shape)
			}
			return g.grid, nil
		}
	}
	return grid{}, q.unfit(w, s)
}

// usual is the answer for nearly all weights: a matrix under a grid of just the
// configured blocks.
func (q quantization) usual(w, s []int64) (grid, bool) {
	if len(w) != 2 || len(s) != 2 || q.block[0] == 0 || s[0] != ceilDiv(w[0], q.block[0]) || s[1] != ceilDiv(w[1], q.block[1]) {
		return grid{}, false
	}
	return grid{s, q.block}, true
}

// candidate is a grid to try: its exact or least size and where it lies.
type candidate struct {
	grid
	lead   []int64
	r, c   int64
	larger bool // a larger grid will do
	scalar bool // the form without axes: [], [1], [E]
}

// candidates are the grids that a scale may be, the likeliest first.
func (q quantization) candidates(lead []int64, rows, cols int64) []candidate {
	whole := candidate{lead: lead, r: 1, c: 1, scalar: true}
	row := candidate{lead: lead, r: rows, c: 1}
	row.block = [2]int64{1, 0}
	if q.block != ([2]int64{}) {
		b := blocks(lead, rows, cols, q.block)
		exact := b
		exact.larger = false
		all := []candidate{exact, whole}
		if q.perRow {
			all = append(all, row)
		}
		return append(all, b)
	}
	one := candidate{lead: lead, r: 1, c: 1}
	return []candidate{whole, one, row, blocks(lead, rows, cols, [2]int64{BlockSize, BlockSize})}
}

func blocks(lead []int64, rows, cols int64, b [2]int64) candidate {
	return candidate{grid: grid{block: b}, lead: lead, r: ceilDiv(rows, b[0]), c: ceilDiv(cols, b[1]), larger: true}
}

// fits says whether a scale of shape have, padded to the weight's axes, and of shape raw as stored, is this grid.
func (k candidate) fits(have, raw []int64) bool {
	if k.scalar {
		return isScalar(raw, k.lead)
	}
	if len(have) != len(k.lead)+2 {
		return false
	}
	for i, n := range k.lead {
		if have[i] != n {
			return false
		}
	}
	r, c := have[len(k.lead)], have[len(k.lead)+1]
	return r == k.r && c == k.c || k.larger && r >= k.r && c >= k.c
}

// axes gives rows and columns of the grid as it is stored.
func (k candidate) axes(have []int64) []int64 {
	if k.scalar {
		return []int64{1, 1}
	}
	return have[len(k.lead):]
}

// isScalar says whether a scale is one number for each leading matrix, written without the matrix's axes.
func isScalar(raw, lead []int64) bool {
	if len(lead) == 0 {
		return len(raw) == 0 || len(raw) == 1 && raw[0] == 1
	}
	return len(raw) > 0 && raw[0] == lead[0] && product(raw) == lead[0]
}

// trimmed gives a scale's shape as many axes as the weight has: axes of one element
// in between go (exporters write [m, 1, n, 1]), a missing last axis comes ([m] is [m, 1]).
func trimmed(shape []int64, axes int) []int64 {
	s := append([]int64(nil), shape...)
	for i := len(s) - 1; i >= 0 && len(s) > axes; i-- {
		if s[i] == 1 {
			s = append(s[:i], s[i+1:]...)
		}
	}
	if len(s) == axes-1 {
		s = append(s, 1)
	}
	return s
}

// unfit says what was expected of a scale.
func (q quantization) unfit(w, s *Stored) error {
	b := q.block
	if b == ([2]int64{}) {
		b = [2]int64{BlockSize, BlockSize}
	}
	n := len(w.Shape)
	want := make([]string, 0, 3)
	for _, l := range w.Shape[:n-2] {
		want = append(want, fmt.Sprint(l))
	}
	want = append(want, fmt.Sprint(ceilDiv(w.Shape[n-2], b[0])), fmt.Sprint(ceilDiv(w.Shape[n-1], b[1])))
	return fmt.Errorf("grid of scales %v is too small or of the wrong shape for weight %s %v: blocks of %d by %d need at least [%s]",
		s.Shape, w.Key, w.Shape, b[0], b[1], strings.Join(want, " "))
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

func product(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}
