package adapter

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// planner makes one plan. NewPlan lists its steps.
type planner struct {
	c      *Checkpoint
	o      Options
	s      settings
	family *family
	layout *Layout
	view   *view
	dtype  safetensors.DType
	gated  bool
	count  int // experts by the configuration; -1: it does not say
	depth  int // layers of the language model; -1: it does not say

	predictions int // prediction layers by the configuration

	acc     accounts
	weights []weight
	nodes   []expr.Node // of the weights
	places  []place     // of the weights
	expert  []int32     // of the weights: 1 + position in layers; 0: it is not an expert
	layers  []*expertLayer
	slots   int // in all layers, one for each projection of each expert
	grouped int // the same in grouped tensors
	byLayer map[layerID]int32

	back    *view      // in whose layout the source is; nil: it is a published checkpoint
	unnamed [][]rename // undo its names, each list in turn
	byName  map[string]*weight

	rootName  string // see root
	rootKnown bool

	sawMTP, keptMTP bool // of the source's prediction layers

	computed bool // something was dequantized or merged
	buckets  map[string]*bucket
	names    map[string]string // of virtual tensors, to the key they come from
	notes    []string

	sawExcluded bool // Options.Exclude matched something
	sawIncluded bool // Options.Include matched something
}

// NewPlan plans a view of a checkpoint. It pairs weights with their scales, finds the experts, and
// gives each virtual tensor its recipe. It reads no tensor data. Whatever the headers show to be
// wrong with the source is an error here, which names file and key.
func NewPlan(c *Checkpoint, o Options) (*Plan, error) {
	p := &planner{c: c, o: o, buckets: map[string]*bucket{}, byLayer: map[layerID]int32{}}
	for _, step := range []func() error{
		p.configure, p.checkAbsent, p.pair, p.publish, p.take, p.collect, p.check, p.emit, p.settle,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	config, err := p.rewriteConfig()
	if err != nil {
		return nil, err
	}
	params, err := p.rewriteParams()
	if err != nil {
		return nil, err
	}
	return &Plan{
		Options: p.o, Tensors: p.ordered(), Account: p.acc, Config: config, Params: params,
		Notes: p.notes, TensorParallel: p.shownShards(),
	}, nil
}

// pair joins weights and scales.
func (p *planner) pair() error {
	q, err := p.c.pair(p.s, p.family)
	if err != nil {
		return err
	}
	if t := q.bare; t != nil && !p.o.Unscaled {
		return fmt.Errorf("%s: %s: FP8 weight without its scale: expected %s beside it; if the "+
			"checkpoint has no scales at all, --unscaled reads FP8 codes as plain numbers",
			t.Shard, t.Key, q.lacks)
	}
	p.weights, p.notes = slices.Clone(q.weights), slices.Clone(q.notes)
	p.acc = newAccounts(p.c.Tensors())
	for _, d := range q.drops {
		p.acc.drop(int(d.at), d.reason)
	}
	p.nodes, err = p.c.recipes(p.decoded())
	return err
}

// decoded returns the dtype of decoded weights in recipes. A view that quantizes decodes to F32, so
// that no value is rounded twice.
func (p *planner) decoded() safetensors.DType {
	if p.layout.quantizes {
		return safetensors.F32
	}
	return p.dtype
}

// node is the recipe of a weight in the source: dequantized if it was quantized, else as it is.
func (p *planner) node(w *weight) expr.Node {
	if w.value != nil {
		return w.value
	}
	return p.nodes[w.i]
}

// cast is the recipe of a weight in the view's dtype, quantized or not.
func (p *planner) cast(w *weight) (expr.Node, error) {
	n, err := expr.Cast(p.node(w), p.dtype)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
	}
	return n, nil
}

// emit makes the virtual tensors, in the order of the source.
func (p *planner) emit() error {
	p.names = make(map[string]string, len(p.weights))
	merged := make([]bool, len(p.layers))
	for i := range p.weights {
		w, at := &p.weights[i], p.places[i]
		if reason := p.dropped(w, at); reason != "" {
			p.acc.dropWeight(w, reason)
			continue
		}
		var err error
		x := p.expert[i] - 1
		switch {
		case x < 0:
			err = p.pass(w, at)
		case p.layout.apart() || !p.sharesExperts(p.layers[x].prefix):
			err = p.single(w, at, p.layers[x])
		case !merged[x]:
			merged[x] = true
			err = p.merge(p.layers[x])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropped says why a weight is left out; empty if it is shown.
func (p *planner) dropped(w *weight, at place) string {
	for _, d := range p.view.drops {
		if d.matches(w.hf) {
			return d.reason
		}
	}
	switch {
	case !p.isMTP(w.hf, at):
	case p.dropsMTP(w.hf, at):
		p.sawMTP = true
		return "multi-token-prediction layer"
	default:
		p.sawMTP, p.keptMTP = true, true
	}
	return ""
}

// pass shows a tensor that is not an expert: dequantized if it was quantized, else as it is.
func (p *planner) pass(w *weight, at place) error {
	if done, err := p.passQuantized(w, at); done || err != nil {
		return err
	}
	n, err := p.ofRank(at, p.node(w))
	if err != nil {
		return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
	}
	if n == nil {
		p.acc.dropWeight(w, "experts of other expert-parallel ranks")
		return nil
	}
	name := p.name(w.hf, at)
	if err := p.refuseUnsplit(w, name); err != nil {
		return err
	}
	if n, err = p.special(w.hf, name, n); err != nil {
		return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
	}
	if err := p.add(name, n, p.destination(w, at), w); err != nil {
		return err
	}
	return p.addBlanks(w, at)
}

// add makes a virtual tensor in a file group, or two in a layout that quantizes. It accounts for
// the weights that they are made of.
func (p *planner) add(name string, n expr.Node, b destination, ws ...*weight) error {
	n, err := p.rounded(name, n, ws...)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", ws[0].Shard, ws[0].Key, err)
	}
	fate := Used
	if len(ws) == 1 && !ws[0].isDecoded() && isLoad(n, ws[0]) && !p.quantizes(name, n) {
		fate = Passed
	}
	if reason := p.leftOut(name); reason != "" {
		for _, w := range ws {
			p.acc.dropWeight(w, reason)
		}
		return nil
	}
	into, err := p.put(name, n, b, ws[0].Key)
	if err != nil {
		return fmt.Errorf("%s: %w", ws[0].Shard, err)
	}
	p.computed = p.computed || fate == Used
	for _, w := range ws {
		p.acc.use(w, fate, into)
	}
	return nil
}

// rounded gives a tensor the dtype in which it is shown. Tensors that the view quantizes keep
// theirs.
func (p *planner) rounded(name string, n expr.Node, ws ...*weight) (expr.Node, error) {
	switch {
	case p.quantizes(name, n):
		return n, nil
	case p.o.Cast == CastAll && (floating(n.DType()) || n.DType() == safetensors.F64),
		p.layout.quantizes && slices.ContainsFunc(ws, (*weight).isDecoded):
		return expr.Cast(n, p.dtype)
	}
	return n, nil
}

// put appends the tensors that show a recipe, and returns their names. from is the key that they
// are made of.
func (p *planner) put(name string, n expr.Node, b destination, from string) ([]string, error) {
	if p.quantizes(name, n) {
		return p.putQuantized(name, n, b, from)
	}
	return p.putAs(b, from, Tensor{Name: name, Node: n})
}

// putAs appends tensors as they are.
func (p *planner) putAs(b destination, from string, ts ...Tensor) ([]string, error) {
	into := make([]string, len(ts))
	for i, t := range ts {
		if old, ok := p.names[t.Name]; ok {
			return nil, fmt.Errorf("%s: its name in layout %s is %s, which %s has too: leave one "+
				"of them out", from, p.layout.Name, t.Name, old)
		}
		p.names[t.Name] = from
		t.Group, t.OfRank = b.group, b.ofRank
		b.tensors = append(b.tensors, t)
		into[i] = t.Name
	}
	return into, nil
}

// isLoad reports whether a recipe shows a stored tensor unchanged.
func isLoad(n expr.Node, w *weight) bool {
	return w.value == nil && n.DType() == w.DType && slices.Equal(n.Shape(), w.Shape)
}

// settle checks that every source key has a fate.
func (p *planner) settle() error {
	for i := range p.acc {
		if a := &p.acc[i]; a.Fate != Dropped && a.Into == nil {
			return fmt.Errorf("%s: %s: no rule says what becomes of this key in layout %s: "+
				"remove it if the checkpoint holds the same values under other keys",
				p.c.Tensors()[i].Shard, a.Key, p.layout.Name)
		}
	}
	if p.o.MTP == MTPDrop && !p.sawMTP {
		p.note("mtp drop: the model has no multi-token-prediction layers, nothing was dropped")
	}
	if p.o.Exclude != nil && !p.sawExcluded {
		p.note("exclude: the pattern matches the beginning of no name in " + p.where() +
			", nothing is left out: begin it with .* to match anywhere")
	}
	p.noteEmpty()
	p.noteRank()
	return nil
}

// noteEmpty keeps a line about patterns that leave no name in the view.
func (p *planner) noteEmpty() {
	switch {
	case p.sawIncluded:
	case p.o.Include == nil && p.sawExcluded:
		p.note("exclude: the pattern matches every name in " + p.where() + ", no tensor is shown")
	case p.sawExcluded:
		p.note("include and exclude: together they leave no name in " + p.where() +
			", no tensor is shown")
	case p.o.Include != nil:
		p.note("include: the pattern matches the beginning of no name in " + p.where() +
			", no tensor is shown: begin it with .* to match anywhere")
	}
}

// note keeps a line that the user should read.
func (p *planner) note(line string) { p.notes = append(p.notes, line) }

// where names the view, for messages.
func (p *planner) where() string {
	if p.o.EP.Size > 1 {
		return fmt.Sprintf("layout %s of rank %d", p.layout.Name, p.o.EP.Rank)
	}
	return "layout " + p.layout.Name
}

// leftOut returns why the options leave a name out of the view, or "" if they keep it.
func (p *planner) leftOut(name string) (reason string) {
	if p.o.Exclude != nil && matchesStart(p.o.Exclude, name) {
		p.sawExcluded = true
		return "excluded"
	}
	if p.o.Include != nil && !matchesStart(p.o.Include, name) {
		return "not included"
	}
	p.sawIncluded = true
	return ""
}

// matchesStart reports whether a pattern matches a name at its start.
func matchesStart(re *regexp.Regexp, name string) bool {
	at := re.FindStringIndex(name)
	return at != nil && at[0] == 0
}
