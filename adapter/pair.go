package adapter

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// weight is a tensor of the source with the scale that belongs to it, if it has one.
type weight struct {
	*Stored
	hf          string // its published name; Key but for native sources
	i           int    // position in the list of weights
	at, scaleAt int    // positions in Checkpoint.Tensors; scaleAt -1: shown as it is

	grid  *expr.Source // the scale, its shape made that of the grid
	block [2]int64     // rows and columns of one scale; 0: the whole axis
}

// node makes the recipe of the tensor: dequantized to d, or as it is.
func (w *weight) node(d safetensors.DType) (n expr.Node, err error) {
	if w.scaleAt < 0 {
		n, err = expr.Load(&w.Source)
	} else {
		n, err = expr.Dequantize(&w.Source, w.grid, expr.DequantizeOptions{Block: w.block, Out: d})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
	}
	return n, nil
}

// pairing is what all views of a checkpoint share: its weights with their scales, and
// for each dtype their recipes. It is worked out when the first view needs it.
type pairing struct {
	once    sync.Once
	weights []weight
	acc     accounts
	err     error

	mu    sync.Mutex
	nodes map[safetensors.DType][]expr.Node
}

// pair gives a copy of the weights and of the account so far.
func (c *Checkpoint) pair(s settings) ([]weight, accounts, error) {
	p := &c.pairing
	p.once.Do(func() {
		p.acc = newAccounts(c.Tensors())
		p.weights, p.err = pair(c, s, p.acc)
	})
	return slices.Clone(p.weights), slices.Clone(p.acc), p.err
}

// recipes gives the recipe of each weight in dtype d. The slice is shared.
func (c *Checkpoint) recipes(d safetensors.DType) ([]expr.Node, error) {
	p := &c.pairing
	p.mu.Lock()
	defer p.mu.Unlock()
	if nodes, ok := p.nodes[d]; ok {
		return nodes, nil
	}
	nodes := make([]expr.Node, len(p.weights))
	var err error
	for i := range p.weights {
		if nodes[i], err = p.weights[i].node(d); err != nil {
			return nil, err
		}
	}
	if p.nodes == nil {
		p.nodes = map[safetensors.DType][]expr.Node{}
	}
	p.nodes[d] = nodes
	return nodes, nil
}

// scaleSuffixes are the endings of scales and those of the weights they belong to.
// A certain one is a scale whatever else there is; the others are names that models
// use for parameters too, and are scales only beside an FP8 weight.
var scaleSuffixes = []struct {
	scale, weight string
	certain       bool
}{
	{".weight_scale_inv", ".weight", true},
	{".weight_scale", ".weight", true},
	{".qscale_weight", ".weight", true},
	{"_scale_inv", "", true}, // of grouped tensors: gate_up_proj_scale_inv
	{".scale", ".weight", false},
	{"_scale", "", false},
}

// activationSuffixes are scales of activations and of the key-value cache, which
// have no part in the weights.
var activationSuffixes = []string{
	".input_scale", ".activation_scale", "_activation_scale", "_input_scale", ".qscale_act",
	".k_scale", ".v_scale", ".q_scale", ".prob_output_scale", ".output_scale",
}

// scaled finds the weight that a key is the scale of.
func scaled(c *Checkpoint, key string) (w *Stored, certain bool) {
	if key == "" || key[len(key)-1] != 'v' && key[len(key)-1] != 'e' && !strings.HasSuffix(key, "qscale_weight") {
		return nil, false
	}
	for _, s := range scaleSuffixes {
		base, ok := strings.CutSuffix(key, s.scale)
		if !ok {
			continue
		}
		w, ok = c.Tensor(base + s.weight)
		switch {
		case s.certain:
			return w, true
		case ok && fp8Coded(w.DType):
			return w, false
		}
	}
	return nil, false
}

// pair joins weights and scales, over all shards, and refuses what it cannot decode.
// The weights come in the order of the source.
func pair(c *Checkpoint, s settings, acc accounts) ([]weight, error) {
	tensors := c.Tensors()
	if m := s.object(quantizationFields...).text("quant_method"); slices.Contains(foreignMethods, m) {
		return nil, fmt.Errorf("config.json: quant_method %q is not decoded: only FP8 weights with scales are", m)
	}
	scales, err := findScales(c, s, acc)
	if err != nil {
		return nil, err
	}
	q, err := quantizationOf(s)
	if err != nil {
		return nil, err
	}
	weights := make([]weight, 0, len(tensors)-len(scales))
	isScale := make([]bool, len(tensors))
	for _, i := range scales {
		isScale[i] = true
	}
	for i, t := range tensors {
		if isScale[i] || acc[i].Fate == Dropped {
			continue
		}
		w := weight{Stored: t, i: len(weights), at: i, scaleAt: -1}
		if at, ok := scales[t]; ok {
			w.scaleAt = at
			err = w.measure(tensors[at], q)
		} else {
			err = plain(t, s)
		}
		if err != nil {
			return nil, err
		}
		weights = append(weights, w)
	}
	return weights, nil
}

// findScales maps each quantized weight to the position of its scale and drops the scales of activations.
func findScales(c *Checkpoint, s settings, acc accounts) (map[*Stored]int, error) {
	tensors, quantized := c.Tensors(), len(s.object(quantizationFields...)) > 0
	scales := make(map[*Stored]int, len(tensors)/2)
	for i, t := range tensors {
		w, certain := scaled(c, t.Key)
		if w == nil {
			if ofActivations(t.Key) && (quantized || isQuantized(c, t.Key)) {
				acc.drop(i, "scale of activations, has no part in the weights")
			} else if certain {
				return nil, fmt.Errorf("%s: %s: scale without its weight: the checkpoint may be incomplete", t.Shard, t.Key)
			}
			continue
		}
		if again, _ := scaled(c, w.Key); again != nil && !fp8Coded(w.DType) {
			return nil, fmt.Errorf("%s: %s: scale of %s, which is a scale itself", t.Shard, t.Key, w.Key)
		}
		if old, ok := scales[w]; ok {
			return nil, fmt.Errorf("%s: %s: second scale of %s beside %s", t.Shard, t.Key, w.Key, tensors[old].Key)
		}
		scales[w] = i
	}
	return scales, nil
}

// ofActivations says whether a key ends as a scale of activations does.
func ofActivations(key string) bool {
	if key[len(key)-1] != 'e' && key[len(key)-1] != 't' {
		return false
	}
	for _, s := range activationSuffixes {
		if strings.HasSuffix(key, s) {
			return true
		}
	}
	return false
}

// isQuantized says whether the module of an activation's scale has FP8 weights, so
// that the scale is no parameter of the model.
func isQuantized(c *Checkpoint, key string) bool {
	module := key[:strings.LastIndexAny(key, "._")]
	for _, name := range []string{module + ".weight", module} {
		if w, ok := c.Tensor(name); ok && fp8Coded(w.DType) {
			return true
		}
	}
	return false
}

// fp8Coded says whether elements are FP8 codes that we decode.
func fp8Coded(d safetensors.DType) bool {
	return d == safetensors.F8E4M3 || d == safetensors.F8E5M2
}

// measure works out which element belongs to which scale.
func (w *weight) measure(scale *Stored, q quantization) error {
	if !fp8Coded(w.DType) {
		if f, ok := foreignFormat(w.Stored, scale); ok {
			return fmt.Errorf("%s: %s: %s is not decoded: only FP8 weights are", w.Shard, w.Key, f)
		}
		return fmt.Errorf("%s: %s: weight with scale %s has dtype %s: expected F8_E4M3", w.Shard, w.Key, scale.Key, w.DType)
	}
	g, err := q.grid(w.Stored, scale)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", scale.Shard, scale.Key, err)
	}
	w.grid, w.block = &scale.Source, g.block
	if !slices.Equal(g.shape, scale.Shape) {
		src := scale.Source
		src.Shape = g.shape
		w.grid = &src
	}
	return nil
}

// plain refuses tensors without a scale that only a decoder could show.
func plain(t *Stored, s settings) error {
	switch {
	case fp8Coded(t.DType):
		return fmt.Errorf("%s: %s: FP8 weight without its scale: expected %s_scale_inv or %s_scale beside it", t.Shard, t.Key, t.Key, t.Key)
	case !passable(t):
		name, ok := foreignFormat(t, nil)
		if !ok {
			name = fmt.Sprintf("a packed or quantized tensor of dtype %s", t.DType)
		}
		if m := s.object(quantizationFields...).text("quant_method"); m != "" {
			name += fmt.Sprintf(" (quant_method %q)", m)
		}
		return fmt.Errorf("%s: %s: %s is not decoded: only FP8 weights with scales are", t.Shard, t.Key, name)
	}
	return nil
}

// passable says whether a tensor means what its dtype says, so that it can be shown as it is.
func passable(t *Stored) bool {
	switch t.DType {
	case safetensors.F32, safetensors.BF16, safetensors.F16, safetensors.F64:
		if strings.HasSuffix(t.Key, ".weight") || strings.HasSuffix(t.Key, ".bias") {
			return true
		}
		_, foreign := foreignFormat(t, nil)
		return !foreign
	case safetensors.Bool, safetensors.I64, safetensors.I32, safetensors.I16, safetensors.I8,
		safetensors.U8, safetensors.U16, safetensors.U32, safetensors.U64, safetensors.C64:
		_, foreign := foreignFormat(t, nil)
		return !foreign && !strings.HasSuffix(t.Key, ".weight")
	}
	return false
}
