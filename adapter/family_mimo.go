package adapter

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

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
		return nil, fmt.Errorf("%s: its metadata is too large to be read, and tp_size there may "+
			"say where the scales of %s lie: take out what is not tp_size", indexName, w.Key)
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
