package adapter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// planner works out one view. Its steps are those of NewPlan.
type planner struct {
	c      *Checkpoint
	o      Options
	s      settings
	family *family
	layout *layout
	view   *view
	dtype  safetensors.DType
	gated  bool
	count  int // experts by the configuration; -1: it does not say
	depth  int // layers of the language model; -1: it does not say

	acc     accounts
	weights []weight
	nodes   []expr.Node // of the weights
	places  []place     // of the weights
	expert  []int32     // of the weights: 1 + position in layers, 0 if no expert
	layers  []*expertLayer
	slots   int // for experts, in all layers
	byLayer map[layerID]int32

	back   *view // undoes the names of a native source; nil otherwise
	byName map[string]*weight

	sawMTP   bool
	computed bool // something was dequantized or merged
	buckets  map[string]*bucket
	names    map[string]string // of virtual tensors, to the key they come from
	notes    []string

	sawExcluded bool // Options.Exclude matched something
	sawIncluded bool // Options.Include matched something
}

// bucket is the tensors of one file group.
type bucket struct {
	group   string
	order   [2]int // sorts the groups
	tensors []Tensor
}

// NewPlan works out a view of a checkpoint: it pairs weights with their scales,
// finds the experts, and gives each virtual tensor its recipe. It reads no tensor
// data. Everything wrong with the source that headers show is an error here, naming
// file and key.
func NewPlan(c *Checkpoint, o Options) (*Plan, error) {
	p := &planner{c: c, o: o, buckets: map[string]*bucket{}, byLayer: map[layerID]int32{}}
	for _, step := range []func() error{p.configure, p.checkAbsent, p.pair, p.publish, p.collect, p.check, p.emit, p.settle} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	config, err := p.rewriteConfig()
	if err != nil {
		return nil, err
	}
	return &Plan{Options: p.o, Tensors: p.ordered(), Account: p.acc, Config: config, Notes: p.notes}, nil
}

// configure reads config.json and chooses family, layout and defaults.
func (p *planner) configure() (err error) {
	if p.c.Config != nil {
		if p.s, err = parseSettings(p.c.Config.Raw); err != nil {
			return err
		}
	}
	p.family = familyOf(p.s)
	if p.o.Layout == "" {
		p.o.Layout = p.family.layouts()[0]
	}
	if p.layout, p.view, err = choose(p.family, p.s, p.o.Layout); err != nil {
		return err
	}
	p.gated = p.s.gated()
	if p.depth, err = p.field("num_hidden_layers"); err != nil {
		return err
	}
	p.count = -1
	if p.family != nil && p.family.experts != nil {
		if p.count, err = p.field(p.family.experts.count...); err != nil {
			return err
		}
		if p.count > maxExperts {
			return fmt.Errorf("config.json: %s = %d: more than %d experts in a layer are not planned", p.countField(), p.count, maxExperts)
		}
	}
	return p.options()
}

// field reads a number of the configuration; -1 if it does not say.
func (p *planner) field(names ...string) (int, error) {
	n, found, err := p.s.whole(names...)
	if !found {
		return -1, err
	}
	return n, nil
}

// options checks the options and fills in what they leave open.
func (p *planner) options() error {
	switch p.o.DType {
	case safetensors.Invalid:
		p.o.DType = safetensors.BF16
	case safetensors.BF16, safetensors.F16, safetensors.F32:
	default:
		return fmt.Errorf("dtype %s: a view has BF16, F16 or F32", p.o.DType)
	}
	p.dtype = p.o.DType
	switch p.o.MTP {
	case "":
		p.o.MTP = "auto"
	case "auto", "keep", "drop":
	default:
		return fmt.Errorf("mtp %q: expected auto, keep or drop", p.o.MTP)
	}
	switch p.o.Scales {
	case "", "amax", "ones":
	default:
		return fmt.Errorf("scales %q: expected amax or ones", p.o.Scales)
	}
	if p.family == nil && p.o.EP != (EP{}) {
		return fmt.Errorf("config.json: model_type %q is not known, so neither are its experts: leave --ep out; known are %s",
			p.s.modelType(), knownTypes())
	}
	return p.o.EP.check()
}

// pair joins weights and scales.
func (p *planner) pair() error {
	q, err := p.c.pair(p.s, p.family)
	if err != nil {
		return err
	}
	if t := q.bare; t != nil && !p.o.Unscaled {
		return fmt.Errorf("%s: %s: FP8 weight without its scale: expected %s_scale_inv or %s_scale beside it; if the checkpoint has no scales at all, --unscaled reads FP8 codes as plain numbers",
			t.Shard, t.Key, t.Key, t.Key)
	}
	p.weights, p.notes = slices.Clone(q.weights), slices.Clone(q.notes)
	p.acc = newAccounts(p.c.Tensors())
	for _, d := range q.drops {
		p.acc.drop(int(d.at), d.reason)
	}
	p.nodes, err = p.c.recipes(p.dtype)
	return err
}

// node gives a weight as the source means it: dequantized, or as it is.
func (p *planner) node(w *weight) expr.Node { return p.nodes[w.i] }

// cast gives a weight in the view's dtype, whether it was quantized or not.
func (p *planner) cast(w *weight) (expr.Node, error) {
	n, err := expr.Cast(p.node(w), p.dtype)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
	}
	return n, nil
}

// collect finds where each weight lies, and the experts.
func (p *planner) collect() error {
	p.places = make([]place, len(p.weights))
	p.expert = make([]int32, len(p.weights))
	for i := range p.weights {
		w := &p.weights[i]
		p.places[i] = locate(w.hf)
		if err := p.collectExpert(i, w); err != nil {
			return err
		}
	}
	return nil
}

// maxExperts is how many experts of a layer are believed to be there, maxSlots of all
// layers together, by config.json or by the numbers in keys: memory follows them.
const (
	maxExperts = 1 << 16
	maxSlots   = 1 << 24 // three for an expert
)

// believe refuses an expert whose number cannot be right.
func (p *planner) believe(part expertPart, x *expertLayer, w *weight) error {
	p.slots += max(0, part.number+1-len(x.split[part.role]))
	switch {
	case p.count >= 0 && part.number >= p.count:
		return fmt.Errorf("%s: %s: expert %d, but config.json has %s = %d, counted from 0: restore the published config.json", w.Shard, w.Key, part.number, p.countField(), p.count)
	case part.number >= maxExperts || p.slots > maxSlots:
		return fmt.Errorf("%s: %s: the expert's number is beyond what is planned", w.Shard, w.Key)
	}
	return nil
}

// collectExpert puts the weight to its layer's experts if it is one.
func (p *planner) collectExpert(i int, w *weight) error {
	at := p.places[i]
	if at.layer < 0 || p.family == nil || p.family.experts == nil ||
		!language[at.prefix] && !slices.Contains(p.family.experts.prefixes, at.prefix) {
		return nil
	}
	if part, ok := p.family.experts.splitExpert(at.rest); ok {
		p.expert[i] = p.layer(at) + 1
		x := p.layers[p.expert[i]-1]
		if err := p.believe(part, x, w); err != nil {
			return err
		}
		return x.add(part, w)
	}
	l, g, ok := p.family.groupedExperts(at.rest)
	if !ok {
		return nil
	}
	if len(w.shape()) != 3 {
		return fmt.Errorf("%s: %s: grouped experts of shape %v: expected three axes", w.Shard, w.Key, w.shape())
	}
	p.expert[i] = p.layer(at) + 1
	x := p.layers[p.expert[i]-1]
	x.grouped = append(x.grouped, groupedWeight{w, l, g})
	return nil
}

// countField names the field that gives the number of experts.
func (p *planner) countField() string {
	for _, f := range p.family.experts.count {
		if _, ok := p.s.integer(f); ok {
			return f
		}
	}
	return p.family.experts.count[0]
}

// layer gives the position of a layer's experts, making room for them.
func (p *planner) layer(at place) int32 {
	id := layerID{at.prefix, at.layer}
	i, ok := p.byLayer[id]
	if !ok {
		i = int32(len(p.layers))
		p.byLayer[id] = i
		p.layers = append(p.layers, &expertLayer{layerID: id})
	}
	return i
}

// experts is the number of experts of a layer: by the configuration, else those there are.
func (p *planner) experts(x *expertLayer) int {
	if p.count >= 0 {
		return p.count
	}
	return x.experts()
}

// check refuses layers whose experts are there twice or not all there.
func (p *planner) check() error {
	var missing missingKeys
	for _, x := range p.layers {
		if p.dropsLayer(x.layerID) {
			continue
		}
		if err := x.check(); err != nil {
			return err
		}
		for _, g := range x.grouped {
			if n := p.experts(x); int(g.shape()[0]) != n {
				return fmt.Errorf("%s: %s: shape %v holds %d experts, expected %d", g.Shard, g.Key, g.shape(), g.shape()[0], n)
			}
		}
		if len(p.layout.groups) > 0 {
			lo, hi := p.o.EP.Range(p.experts(x))
			x.missing(p.family.experts, p.gated, lo, hi, &missing)
		}
	}
	return missing.err(p.o.EP)
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
		case len(p.layout.groups) == 0:
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

// dropped says why a weight is left out, if it is.
func (p *planner) dropped(w *weight, at place) string {
	for _, d := range p.view.drops {
		if d.matches(w.hf) {
			return d.reason
		}
	}
	if p.isMTP(w.hf, at) {
		p.sawMTP = true
		if p.dropsMTP() {
			return "multi-token-prediction layer"
		}
	}
	return ""
}

// pass shows a tensor that is no expert: dequantized if it was quantized, else as it is.
func (p *planner) pass(w *weight, at place) error {
	if done, err := p.passQuantized(w, at); done || err != nil {
		return err
	}
	if done, err := p.joinFused(w, at); done || err != nil {
		return err
	}
	n := p.node(w)
	if f, ok := p.fusedIn(w.hf); ok {
		return p.unfuse(f, w, at, n)
	}
	name := p.name(w.hf, at)
	n, err := p.special(name, n)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
	}
	return p.add(name, n, p.bucket(w, at), w)
}

// add makes a virtual tensor, or in a layout that quantizes two, in a file group, and
// accounts for what they are made of.
func (p *planner) add(name string, n expr.Node, b *bucket, ws ...*weight) error {
	fate := Used
	if len(ws) == 1 && ws[0].decoder == nil && isLoad(n, ws[0]) && !p.quantizes(name, n) {
		fate = Passed
	}
	if reason := p.leftOut(name); reason != "" {
		for _, w := range ws {
			if p.acc[w.parts[0]].Into == nil {
				p.acc.dropWeight(w, reason)
			}
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

// put appends the tensors that a recipe is shown as, made of the key from, and gives their names.
func (p *planner) put(name string, n expr.Node, b *bucket, from string) ([]string, error) {
	if p.quantizes(name, n) {
		return p.putQuantized(name, n, b, from)
	}
	return p.putAs(b, from, Tensor{Name: name, Node: n})
}

// putAs appends tensors as they are.
func (p *planner) putAs(b *bucket, from string, ts ...Tensor) ([]string, error) {
	into := make([]string, len(ts))
	for i, t := range ts {
		if old, ok := p.names[t.Name]; ok {
			return nil, fmt.Errorf("%s: its name in layout %s is %s, which %s has too: leave one of them out", from, p.layout.name, t.Name, old)
		}
		p.names[t.Name] = from
		t.Group = b.group
		b.tensors = append(b.tensors, t)
		into[i] = t.Name
	}
	return into, nil
}

// isLoad says whether a recipe shows a stored tensor unchanged.
func isLoad(n expr.Node, w *weight) bool {
	return n.DType() == w.DType && slices.Equal(n.Shape(), w.Shape)
}

// bucket is the file group of a tensor made of w.
func (p *planner) bucket(w *weight, at place) *bucket {
	if len(p.layout.groups) == 0 {
		return p.group(w.Shard, [2]int{})
	}
	switch {
	case at.layer >= 0 && language[at.prefix]:
		return p.group(fmt.Sprintf("layer-%05d", at.layer), [2]int{1, at.layer})
	case at.layer >= 0 && strings.HasPrefix(at.prefix, "mtp."):
		return p.group(fmt.Sprintf("mtp-layer-%05d", at.layer), [2]int{2, at.layer})
	}
	return p.group("rest-00000", [2]int{})
}

func (p *planner) group(name string, order [2]int) *bucket {
	b := p.buckets[name]
	if b == nil {
		b = &bucket{group: name, order: order}
		p.buckets[name] = b
	}
	return b
}

// ordered gives the tensors by file group: the source's shards in their order, or
// what is in no layer and then the layers.
func (p *planner) ordered() []Tensor {
	rank := map[string]int{}
	for i, s := range p.c.Shards() {
		rank[s] = i
	}
	all, n := make([]*bucket, 0, len(p.buckets)), 0
	for _, b := range p.buckets {
		if len(p.layout.groups) == 0 {
			b.order[1] = rank[b.group]
		}
		all, n = append(all, b), n+len(b.tensors)
	}
	slices.SortFunc(all, func(a, b *bucket) int { return slices.Compare(a.order[:], b.order[:]) })
	tensors := make([]Tensor, 0, n)
	for _, b := range all {
		tensors = append(tensors, b.tensors...)
	}
	return tensors
}

// settle checks that every source key has a fate.
func (p *planner) settle() error {
	for i := range p.acc {
		if a := &p.acc[i]; a.Fate != Dropped && a.Into == nil {
			return fmt.Errorf("%s: no rule says what becomes of this key", a.Key)
		}
	}
	if p.o.MTP == "drop" && !p.sawMTP {
		p.notes = append(p.notes, "mtp drop: the model has no multi-token-prediction layers, nothing was dropped")
	}
	if p.o.Exclude != nil && !p.sawExcluded {
		p.notes = append(p.notes, "exclude: the pattern matches the beginning of no name in "+p.where()+", nothing is left out: begin it with .* to match anywhere")
	}
	if p.o.Include != nil && !p.sawIncluded {
		p.notes = append(p.notes, "include: the pattern matches the beginning of no name in "+p.where()+", no tensor is shown: begin it with .* to match anywhere")
	}
	return nil
}

// where names the view, for messages.
func (p *planner) where() string {
	if p.o.EP.Size > 1 {
		return fmt.Sprintf("layout %s of rank %d", p.layout.name, p.o.EP.Rank)
	}
	return "layout " + p.layout.name
}

// leftOut says why the options leave a name out of the view; "" if they keep it.
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

// matchesStart says whether a pattern matches a name at its start.
func matchesStart(re *regexp.Regexp, name string) bool {
	at := re.FindStringIndex(name)
	return at != nil && at[0] == 0
}
