package adapter

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// mimoV25 is MiMo-V2.5-Pro. The native layout has all rows of query, then those of key, then those
// of value.
var mimoV25 = family{
	name:          "mimo_v25",
	types:         []string{"mimo_v2"},
	architectures: []string{"MiMoV25ForCausalLM"},
	scales:        mimoV2Scales,
	plain:         mimoV2Plain,
	inShards:      true,
	experts:       mlpExperts("n_routed_experts"),
	views:         []view{{layout: LayoutNative, steps: []step{mimoQKV{}}}},
}

// mimoV26 is MiMo-V2.5 and V2.6. The native layout has query, key and value apart.
var mimoV26 = family{
	name:          "mimo_v2_6",
	types:         []string{"mimo_v2"},
	architectures: []string{"MiMoV2ForCausalLM"},
	scales:        mimoV2Scales,
	plain:         mimoV2Plain,
	experts:       mlpExperts("n_routed_experts"),
	views:         []view{{layout: LayoutNative, steps: []step{mimoQKV{apart: true}}}},
}

// mimoV2 is for a config.json that does not tell which of the two models it is.
var mimoV2 = family{
	name:    "mimo_v2",
	types:   []string{"mimo_v2"},
	scales:  mimoV2Scales,
	plain:   mimoV2Plain,
	experts: mlpExperts("n_routed_experts"),
}

// mimoV2Plain are parts of keys of weights that are published in BF16.
var mimoV2Plain = []string{"self_attn.o_proj.weight"}

// mimoQKV gives the rows of fused matrices of query, key and value another order. Published
// matrices have the rows of one shard of a tensor-parallel model after those of another.
type mimoQKV struct {
	apart bool // into three matrices
}

// The ends of the keys of the fused matrix and of its parts.
const mimoFused = ".self_attn.qkv_proj.weight"

var mimoParts = []string{
	".self_attn.q_proj.weight", ".self_attn.k_proj.weight", ".self_attn.v_proj.weight",
}

func (m mimoQKV) do(p *planner) error {
	return p.replace(func(w *weight) ([]weight, error) {
		head, ok := strings.CutSuffix(w.hf, mimoFused)
		if !ok || !m.apart && !w.isDecoded() && p.c.tensorParallel == 0 {
			return nil, nil // the reference saves V2.5 in BF16 with its rows in order
		}
		shards, err := m.shards(p, w)
		if err != nil {
			return nil, err
		}
		parts, err := m.parts(p, w, head, shards)
		if err != nil || m.apart {
			return parts, err
		}
		n, err := expr.Concat(0, parts[0].value, parts[1].value, parts[2].value)
		return []weight{p.made(w.hf, n, w)}, err
	})
}

// parts takes query, key and value out of a fused matrix.
func (m mimoQKV) parts(p *planner, w *weight, head string, shards int64) ([]weight, error) {
	rows, err := m.rows(p.s, w.hf, shards)
	if err != nil {
		return nil, err
	}
	s := w.shape()
	if len(s) != 2 || s[0] != shards*total(rows) {
		return nil, fmt.Errorf("shape %v: expected %d rows of query, key and value in each of %d "+
			"shards, by config.json", s, total(rows), shards)
	}
	parts, lo := make([]weight, len(rows)), int64(0)
	for i, size := range rows {
		runs := make([]expr.Node, shards)
		for j := range runs {
			from := int64(j)*total(rows) + lo
			if runs[j], err = expr.Slice(p.node(w), 0, from, from+size); err != nil {
				return nil, err
			}
		}
		n, err := join(0, runs)
		if err != nil {
			return nil, err
		}
		parts[i], lo = p.made(head+mimoParts[i], n, w), lo+size
	}
	return parts, nil
}

// shards returns the number of shards of a fused matrix. For V2.5 it is the number of key-value
// heads, for V2.6 tp_size of the index. Without that the matrix is not divided.
func (m mimoQKV) shards(p *planner, w *weight) (int64, error) {
	if p.c.tensorParallel == unreadable {
		return 0, unreadableIndex(w.Key)
	}
	n, from := int64(max(p.c.tensorParallel, 1)), "tp_size of "+indexName+", or 1 without it"
	if !m.apart {
		var err error
		from = "num_key_value_heads of config.json"
		if n, err = mimoField(p.s, "num_key_value_heads"); err != nil {
			return 0, err
		}
	}
	if !scaledInShards(w, n) {
		return 0, fmt.Errorf("its scales are not those of %d shards with grids of their own, the "+
			"number by %s: restore the published files", n, from)
	}
	return n, nil
}

// scaledInShards reports whether the scales of a matrix may be those of n shards with their own
// grids.
func scaledInShards(w *weight, n int64) bool {
	if len(w.shape()) == 0 {
		return true // refused later
	}
	size := w.shape()[0] / n
	switch d := w.decoder.(type) {
	case *partedWeight:
		other := func(r run) bool { return r.rows != size }
		ragged := func(r run) bool {
			return r.block[0] == 0 || r.rows%r.block[0] != 0 || size%r.block[0] != 0
		}
		return !slices.ContainsFunc(d.runs, other) || !slices.ContainsFunc(d.runs, ragged)
	case *fp8Weight:
		return n == 1 || d.where == nil || d.where.block[0] == 0 || size%d.where.block[0] == 0
	}
	return true
}

// rows returns the rows of query, key and value in one shard of a layer.
func (m mimoQKV) rows(s settings, key string, shards int64) ([]int64, error) {
	prefix, err := mimoHeads(s, key)
	if err != nil {
		return nil, err
	}
	var n [4]int64
	for i, field := range []string{
		"num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim",
	} {
		if n[i], err = mimoField(s, prefix+field); err != nil {
			return nil, err
		}
	}
	heads, kv := n[0]/shards, max(n[1]/shards, 1)
	if m.apart && (n[0]%shards != 0 || n[1]%shards != 0) {
		return nil, fmt.Errorf("%d heads with %d of key and value do not divide into %d shards",
			n[0], n[1], shards)
	}
	return []int64{heads * n[2], kv * n[2], kv * n[3]}, nil
}

// mimoHeads returns what begins the names of the fields that describe a layer's heads. Layers with
// a sliding window have their own.
func mimoHeads(s settings, key string) (prefix string, err error) {
	const field = "hybrid_layer_pattern"
	v, _ := s.lookup(field)
	pattern, _ := v.([]any)
	at := locate(key)
	if at.layer < 0 || at.layer >= len(pattern) {
		return "", fmt.Errorf("config.json: %s is %s: it does not tell which heads the layer has",
			field, shown(v))
	}
	switch kind, ok := pattern[at.layer].(float64); {
	case !ok:
		return "", fmt.Errorf("config.json: %s is %s: expected numbers", field, shown(v))
	case kind != 0:
		return "swa_", nil
	}
	return "", nil
}

// mimoField reads a number of the configuration that must be there.
func mimoField(s settings, name string) (int64, error) {
	n, found, err := s.whole(name)
	if err == nil && (!found || n < 1 || n > maxRuns) {
		err = fmt.Errorf("config.json: %s is missing or not a number of heads or rows", name)
	}
	return int64(n), err
}

// undo puts query, key and value into one matrix again. V2.5 has them in one already, and the
// reference saves it with its rows in order.
func (m mimoQKV) undo(p *planner) error {
	if !m.apart || p.s.text("attention_projection_layout") == "split" {
		return nil
	}
	return fused{from: mimoFused, to: mimoParts}.undo(p)
}

// maxRuns limits the runs of rows with their own grids in a matrix, since memory is allocated for
// each.
const maxRuns = 1 << 16

// mimoV2Scales finds the scales of MiMo-V2's fused matrices of query, key and value. The rows are
// in shards, each with its own grid, as in the reference's _dequantize_interleaved_qkv. The number
// of shards is tp_size of the index or, without it, the number of key-value heads.
func mimoV2Scales(o *opening, scale *Stored) (decoder, error) {
	w := o.codes
	if !strings.HasSuffix(w.Key, ".qkv_proj.weight") || len(w.Shape) != 2 || len(scale.Shape) != 2 {
		return nil, nil
	}
	shards, ok := o.c.tensorParallel, true
	if shards == unreadable {
		return nil, unreadableIndex(w.Key)
	}
	if shards == 0 {
		shards, ok = o.settings.integer("num_key_value_heads")
	}
	if !ok || shards < 1 || shards > maxRuns || w.Shape[0]%int64(shards) != 0 {
		return o.located(scale, fusion{})
	}
	p := partition{
		block: [2]int64{BlockSize, BlockSize},
		parts: slices.Repeat([]int64{w.Shape[0] / int64(shards)}, shards),
	}
	if !slices.Equal(frameOf(w.Shape).needed(p), scale.Shape) {
		return o.located(scale, fusion{})
	}
	return newParted(w, scale, &p), nil
}

// mimoV2FlashScales finds the scales of MiMo-V2-Flash's keys and values. If the grid of k_proj is
// taller than uniform blocks need, key and value of a head were quantized as one run of rows. The
// first rows of a head's values then belong to the last row of its keys' scales.
func mimoV2FlashScales(o *opening, scale *Stored) (decoder, error) {
	w := o.codes
	head, isKey := strings.CutSuffix(w.Key, ".k_proj.weight")
	values, isValue := strings.CutSuffix(w.Key, ".v_proj.weight")
	if isValue {
		head = values
	}
	if !isKey && !isValue {
		return nil, nil
	}
	h, ok := o.keyHeads(head)
	switch {
	case !ok && isValue:
		return nil, o.needsKeys(head, scale)
	case !ok:
		return nil, nil
	case isKey:
		runs := slices.Repeat([]int64{h.rows}, h.count)
		return newParted(w, scale, &partition{block: h.block, parts: runs}), nil
	}
	return o.valueRuns(scale, h)
}

// keyHeads is a grid of a layer's keys that covers each head separately.
type keyHeads struct {
	count  int
	rows   int64 // of the keys of one head
	blocks int64 // rows of scales for one head
	block  [2]int64
	scale  *Stored
}

// keyHeads finds the grid of the keys below a name. ok reports whether it covers each head
// separately.
func (o *opening) keyHeads(name string) (h keyHeads, ok bool) {
	w, okWeight := o.c.Tensor(name + ".k_proj.weight")
	s, okScale := o.c.Tensor(name + ".k_proj.weight_scale_inv")
	heads, okHeads := o.settings.integer("num_key_value_heads")
	dim, okDim := o.settings.integer("head_dim")
	if !okWeight || !okScale || !okHeads || !okDim || len(w.Shape) != 2 || len(s.Shape) != 2 ||
		dim < 1 || heads > maxRuns {
		return h, false
	}
	const b = BlockSize
	h = keyHeads{
		count: heads, rows: int64(dim), blocks: ceilDiv(int64(dim), b),
		block: [2]int64{b, b}, scale: s,
	}
	rows := int64(heads) * h.blocks
	return h, w.Shape[0] == int64(heads)*h.rows && s.Shape[0] == rows &&
		rows > ceilDiv(w.Shape[0], b) && s.Shape[1] == ceilDiv(w.Shape[1], b)
}

// needsKeys refuses values whose grid may continue the grid of the keys, if the keys with their
// scales are missing under the usual names.
func (o *opening) needsKeys(name string, scale *Stored) error {
	keys := name + ".k_proj.weight"
	_, okWeight := o.c.Tensor(keys)
	_, okScale := o.c.Tensor(keys + "_scale_inv")
	heads, okHeads := o.settings.integer("num_key_value_heads")
	dim, okDim := o.settings.integer("head_dim")
	if okWeight && okScale || !okHeads || !okDim || heads < 1 || dim < 1 ||
		len(o.codes.Shape) != 2 || len(scale.Shape) != 2 {
		return nil
	}
	const b = BlockSize
	rows := o.codes.Shape[0] / int64(heads)
	own := ceilDiv(int64(dim)+rows, b) - ceilDiv(int64(dim), b)
	if int64(dim)%b == 0 || scale.Shape[0] != int64(heads)*own {
		return nil
	}
	return fmt.Errorf("%s: %s: the values of a head may begin under the scales of its keys, and "+
		"%s is not there with its %s_scale_inv: show them together",
		o.codes.Shard, o.codes.Key, keys, keys)
}

// valueRuns cuts the values of each head where a row of scales ends.
func (o *opening) valueRuns(scale *Stored, h keyHeads) (decoder, error) {
	w, b := o.codes, h.block[0]
	rows := w.Shape[0] / int64(h.count)
	own := ceilDiv(h.rows+rows, b) - h.blocks
	cols := ceilDiv(w.Shape[1], b)
	expected := []int64{int64(h.count) * own, cols}
	if w.Shape[0]%int64(h.count) != 0 || !slices.Equal(scale.Shape, expected) {
		return nil, fmt.Errorf("%s: %s: grid of scales %v for %s %v: the grid of the keys beside "+
			"it covers each head separately, so %v was expected",
			scale.Shard, scale.Key, scale.Shape, w.Key, w.Shape, expected)
	}
	o.shared = append(o.shared, h.scale)
	d := &partedWeight{
		codes: &w.Source,
		where: fmt.Sprintf("blocks of %d × %d that begin with the keys of each head", b, b),
	}
	first := min(rows, h.blocks*b-h.rows) // under the last scales of the keys
	for i := range int64(h.count) {
		if first > 0 {
			last := scaleRows(h.scale, (i+1)*h.blocks-1, 1, cols)
			d.runs = append(d.runs, run{first, last, h.block})
		}
		if rows > first {
			d.runs = append(d.runs, run{rows - first, scaleRows(scale, i*own, own, cols), h.block})
		}
	}
	return d, nil
}

// unreadable is the tp_size of an index whose metadata is not read.
const unreadable = -1

// unreadableIndex is the error for a fused matrix whose shards such an index may give.
func unreadableIndex(key string) error {
	return fmt.Errorf("%s: its metadata is too large to be read, and tp_size there may say where "+
		"the scales of %s lie: take out what is not tp_size", indexName, key)
}

// inShards gives the scales of a weight in shards, if those of each shard follow those of the one
// before. Readers of published checkpoints know such grids and no other.
func (w *weight) inShards() (grid *expr.Source, ok bool) {
	d, ok := w.decoder.(*partedWeight)
	if !ok || len(d.runs) == 0 || w.DType != safetensors.F8E4M3 ||
		!floating(d.runs[0].scales.DType) {
		return nil, false
	}
	all := *d.runs[0].scales
	rows, next := int64(0), all.Offset
	for _, r := range d.runs {
		s := r.scales
		if r.block != [2]int64{BlockSize, BlockSize} || s.File != all.File || s.Offset != next {
			return nil, false
		}
		rows, next = rows+s.Shape[0], next+product(s.Shape)*int64(s.DType.Bits()/8)
	}
	all.Shape = []int64{rows, all.Shape[1]}
	return &all, true
}

// shownShards is tp_size of a view that shows fused matrices as they are published; otherwise 0.
func (p *planner) shownShards() int {
	switch {
	case !p.layout.published || p.back != nil:
		return 0
	case p.c.tensorParallel != 0 || p.family == nil || !p.family.inShards:
		return max(p.c.tensorParallel, 0)
	}
	fused := func(w weight) bool { return w.isDecoded() && strings.HasSuffix(w.hf, mimoFused) }
	heads, _ := p.s.integer("num_key_value_heads")
	if heads < 1 || !slices.ContainsFunc(p.weights, fused) {
		return 0
	}
	return heads
}

// tensorParallelOf reads tp_size of an index. It returns 0 if there is none.
func tensorParallelOf(index *safetensors.Index) int {
	switch {
	case index == nil:
		return 0
	case index.Large:
		return unreadable
	}
	number, _ := index.Metadata["tp_size"].(json.Number)
	n, err := strconv.Atoi(number.String())
	if err != nil || n < 1 || n > math.MaxInt32 {
		return 0
	}
	return n
}
