package adapter

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// The kinds of scales that [LayoutHFFP8] writes, as [Options] and --scales name them.
const (
	ScalesAmax = "amax" // from the largest value of each block
	ScalesOnes = "ones" // 1, as the reference's to_hf
)

// BlockSize is the side of a block of DeepSeek-V3's scales, and of the scales that views write.
const BlockSize = 128

// quantizes reports whether the view shows a tensor as codes and scales.
func (p *planner) quantizes(name string, n expr.Node) bool {
	if !p.layout.quantizes || len(n.Shape()) != 2 || !floating(n.DType()) {
		return false
	}
	if p.o.Scales == ScalesOnes {
		return p.shouldQuantize(name)
	}
	return strings.HasSuffix(name, ".weight") && !containsAny(name, plainWeights) &&
		!p.family.isPlain(name)
}

// shouldQuantize is the reference's rule, with the keys that the family's own adapter adds.
func (p *planner) shouldQuantize(name string) bool {
	return ShouldQuantizeKey(name) && !p.family.isPlain(name)
}

// putQuantized appends the codes of a weight and its scales.
func (p *planner) putQuantized(
	name string, n expr.Node, b destination, from string,
) ([]string, error) {
	o := expr.QuantizeOptions{Block: [2]int64{BlockSize, BlockSize}}
	if p.o.Scales == ScalesOnes {
		o.Scales = expr.Ones
	}
	codes, scales, err := expr.Quantize(n, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return p.putAs(b, from, quantizedAs(name, codes, scales)...)
}

// quantizedAs names the two tensors of a quantized weight.
func quantizedAs(name string, codes, scales expr.Node) []Tensor {
	return []Tensor{{Name: name, Node: codes}, {Name: name + "_scale_inv", Node: scales}}
}

// passQuantized shows codes and scales as they are if they have the form that the view writes. done
// says that it did.
func (p *planner) passQuantized(w *weight, at place) (done bool, err error) {
	if !p.layout.quantizes {
		return false, nil
	}
	grid, ok := w.inBlocks()
	if !ok && p.shownShards() > 0 {
		grid, ok = w.inShards()
	}
	if !ok {
		return false, nil
	}
	if reason := p.leftOut(w.hf); reason != "" {
		p.acc.dropWeight(w, reason)
		return true, nil
	}
	codes, err := expr.Load(&w.Source)
	if err != nil {
		return false, err
	}
	scales, err := expr.Load(grid)
	if err != nil {
		return false, err
	}
	into, err := p.putAs(p.destination(w, at), w.Key, quantizedAs(w.hf, codes, scales)...)
	if err != nil {
		return false, fmt.Errorf("%s: %w", w.Shard, err)
	}
	p.acc.use(w, Passed, into)
	return true, nil
}

// inBlocks gives the scales of a weight that is quantized as DeepSeek-V3's are: E4M3 codes with a
// grid of floats, one for each block of 128 × 128.
func (w *weight) inBlocks() (grid *expr.Source, ok bool) {
	d, ok := w.decoder.(*fp8Weight)
	if !ok || d.scales == nil || w.DType != safetensors.F8E4M3 || len(w.Shape) != 2 ||
		!floating(d.scales.DType) {
		return nil, false
	}
	f, blocks := frameOf(w.Shape), partition{block: [2]int64{BlockSize, BlockSize}}
	return d.scales, slices.Equal(d.scales.Shape, f.needed(blocks)) && f.same(blocks, *d.where)
}

// quantizationConfig is the quantization_config of the view's config.json. It lists every other
// matrix of the model as not quantized.
func (p *planner) quantizationConfig() (json.RawMessage, error) {
	var plain []string
	for _, b := range p.buckets {
		for _, t := range b.tensors {
			module, ok := strings.CutSuffix(t.Name, ".weight")
			if ok && len(t.Node.Shape()) == 2 && floating(t.Node.DType()) &&
				!strings.HasSuffix(module, "embed_tokens") {
				plain = append(plain, module)
			}
		}
	}
	slices.Sort(plain)
	return json.Marshal(struct {
		Scheme string   `json:"activation_scheme"`
		Format string   `json:"fmt"`
		Method string   `json:"quant_method"`
		Block  [2]int64 `json:"weight_block_size"`
		Plain  []string `json:"modules_to_not_convert,omitempty"`
	}{"dynamic", "e4m3", "fp8", [2]int64{BlockSize, BlockSize}, plain})
}
