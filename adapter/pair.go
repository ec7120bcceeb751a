package adapter

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// pairing is the part of a plan that all views of a checkpoint share: its weights with the tensors
// that each consumes, and their recipes by dtype. The first view computes it.
type pairing struct {
	once    sync.Once
	weights []weight
	drops   []dropped
	notes   []string
	bare    *Stored // the first FP8 weight without a scale, or nil
	lacks   string  // the keys that its scale may have
	err     error

	mu    sync.Mutex
	nodes map[safetensors.DType][]expr.Node
}

// dropped is a stored tensor that no view shows.
type dropped struct {
	at     int32 // position in Checkpoint.Tensors
	reason string
}

// pair returns the pairing and computes it on the first call.
func (c *Checkpoint) pair(s settings, f *family) (*pairing, error) {
	p := &c.pairing
	p.once.Do(func() {
		w := &pairer{c: c, s: s, family: f, table: knownFormats}
		if p.err = w.run(); p.err != nil {
			return
		}
		p.weights, p.drops, p.notes, p.bare = w.weights, w.drops, w.notes, w.bare
		if p.bare != nil {
			p.lacks = w.scaleOf(p.bare.Key)
		}
		c.small, c.lists = nil, nil // not needed any more
	})
	return p, p.err
}

// recipes returns the recipe of each weight in dtype d. The caller must not change the slice.
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

// pairer finds the stored tensors of each weight.
type pairer struct {
	table     *formatTable
	c         *Checkpoint
	s         settings
	family    *family
	q         *quantization
	quantized bool // a tensor of the checkpoint is quantized, or the configuration says so

	modules  []module
	single   []part           // the first part of each module, consecutively
	of       []int32          // by tensor: 1 + its module; 0 for a part of no module
	named    map[string]int32 // modules without codes, by name
	heads    []int32          // by tensor: 1 + the decoded weight in its place
	opened   []weight
	consumed []int32 // the parts of the weights, consecutively
	opening  opening
	orphan   map[string]*Stored // scales of modules that have no codes themselves, by module

	weights  []weight
	drops    []dropped
	notes    []string
	odd      oddities // by the last part of their keys
	against  oddities // by what the configuration says otherwise
	bare     *Stored
	unscaled int // number of FP8 tensors without a scale
}

// run runs the steps in order. Formats that are not decoded are refused before scales are checked.
func (p *pairer) run() error {
	for _, step := range []func() error{p.gather, p.configure, p.open, p.collect} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// gather groups the tensors of a module by their names and refuses formats that are not decoded.
func (p *pairer) gather() error {
	tensors := p.c.Tensors()
	p.of = make([]int32, len(tensors))
	p.heads = make([]int32, len(tensors))
	p.consumed = make([]int32, 0, len(tensors))
	p.named = map[string]int32{}
	p.orphan = map[string]*Stored{}
	p.odd, p.against = oddities{}, oddities{}
	for i, t := range tensors {
		t.at = int32(i)
	}
	for _, t := range tensors {
		if name, e := p.table.split(t.Key); e != nil {
			p.add(t, name, e)
		}
	}
	return p.recognise()
}

// recognise finds the format of each module, and refuses a format that is not decoded.
func (p *pairer) recognise() error {
	for i := range p.modules {
		m := &p.modules[i]
		if m.row = p.table.find(m); m.row != nil && m.row.open == nil {
			return m.row.refused(m.named(), p.s)
		}
	}
	for i, t := range p.c.Tensors() {
		if p.of[i] == 0 && !floating(t.DType) && strings.HasSuffix(t.Key, ".weight") {
			if r := p.table.find(&module{codes: t, ending: ".weight"}); r != nil && r.open == nil {
				return r.refused(t, p.s)
			}
		}
	}
	return nil
}

// add adds a tensor to its module.
func (p *pairer) add(t *Stored, name string, e *ending) {
	codes, end := p.codesOf(t.Key, name, e)
	var at *int32
	if codes != nil {
		at = &p.of[codes.at]
	} else {
		n := p.named[name]
		at = &n
	}
	if p.modules == nil { // most checkpoints are quantized almost throughout, or not at all
		p.modules = make([]module, 0, len(p.of)/2)
		p.single = make([]part, 0, len(p.of)/2)
	}
	if *at == 0 {
		p.modules = append(p.modules, module{name: name, codes: codes, ending: end})
		*at = int32(len(p.modules))
		if codes == nil {
			p.named[name] = *at
		}
	}
	m := &p.modules[*at-1]
	if n := len(p.single); m.parts == nil && n < cap(p.single) { // most modules have one part
		p.single = p.single[:n+1]
		m.parts = p.single[n : n : n+1]
	}
	m.parts = append(m.parts, part{t, e})
	m.has.add(e.number)
	p.of[t.at] = *at
}

// codesOf returns the tensor with the module's name. Its ending is ".weight", or "" if the part's
// ending has no dot or the name has no ending.
func (p *pairer) codesOf(key, module string, e *ending) (*Stored, string) {
	if e.text[0] != '.' {
		if _, part := p.table.split(module); part != nil {
			return nil, ""
		}
		codes := p.c.byKey[module]
		// w13_weight belongs to w13_weight_scale
		if codes == nil && strings.HasPrefix(e.text, "_weight") {
			codes = p.c.byKey[module+"_weight"]
		}
		return codes, ""
	}
	const weight = ".weight"
	if strings.HasPrefix(e.text, weight) {
		return p.c.byKey[key[:len(module)+len(weight)]], weight
	}
	codes := p.c.byKey[module+weight]
	if own := p.c.byKey[module]; codes == nil && own != nil { // experts.up_proj.absmax
		return own, ""
	}
	return codes, weight
}

// configure reads the configuration of the quantization.
func (p *pairer) configure() (err error) {
	if p.q, err = readQuantization(p.c, p.s); err != nil {
		return err
	}
	return refuseConfigured(p.c, p.q, p.s)
}

// open makes the decoders of the modules.
func (p *pairer) open() error {
	p.quantized = p.q.there || slices.ContainsFunc(p.c.Tensors(),
		func(t *Stored) bool { return fp8Coded(t.DType) })
	p.opened = make([]weight, 0, len(p.modules))
	for i := range p.modules {
		m := &p.modules[i]
		var err error
		switch {
		case m.row != nil:
			err = p.decode(m)
		case m.certain() != nil:
			err = p.incomplete(m)
		default:
			p.release(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// certain returns the first tensor of the module that can only be a part of a format, or nil.
func (m *module) certain() *Stored {
	for _, x := range m.parts {
		if x.ending.certain {
			return x.Stored
		}
	}
	return nil
}

// release turns the tensors of a module back into parameters.
func (p *pairer) release(m *module) {
	for _, x := range m.parts {
		p.of[x.at] = 0
	}
	if m.codes != nil {
		p.of[m.codes.at] = 0
	}
}

// decode makes the weight of a module.
func (p *pairer) decode(m *module) error {
	r := m.row
	if err := p.whole(m); err != nil {
		return err
	}
	if err := p.surplus(m); err != nil {
		return err
	}
	o := &p.opening
	*o = opening{module: m, c: p.c, settings: p.s, family: p.family, quantization: p.q,
		against: p.against, shared: o.shared[:0]}
	d, err := r.open(o)
	if err != nil {
		return err
	}
	w := weight{Stored: m.part(r.codes), format: r.format, decoder: d}
	w.hf = w.Key
	if !r.named() {
		w.hf = r.shown(m.name)
	}
	p.consume(w, m, o.shared)
	return nil
}

// whole refuses a module that lacks a tensor of its format, or has its weight twice.
func (p *pairer) whole(m *module) error {
	r := m.row
	if ending, ok := r.missing(m); ok {
		t := r.firstOf(m)
		return fmt.Errorf("%s: %s: %s without %s beside it: the checkpoint may be incomplete",
			t.Shard, t.Key, r.name, m.name+ending)
	}
	if t := m.part(r.codes); !r.named() && m.codes != nil {
		return fmt.Errorf("%s: %s: %s beside %s, which is the same weight: remove one of them",
			t.Shard, t.Key, r.name, m.codes.Key)
	}
	return nil
}

// surplus refuses parts of other formats beside those of the module's format, such as a second
// scale. Every tensor with the name of a scale counts.
func (p *pairer) surplus(m *module) error {
	r, kept := m.row, m.parts[:0]
	codes := m.part(r.codes)
	for _, x := range m.parts {
		var one endingSet
		one.add(x.ending.number)
		switch {
		case r.needs.holds(one) || r.allows.holds(one):
			kept = append(kept, x)
		case strings.Contains(x.ending.text, "scale") && len(r.parts) > 0:
			return fmt.Errorf("%s: %s: second scale of %s beside %s",
				x.Shard, x.Key, codes.Key, m.part(r.parts[0]).Key)
		case x.ending.certain:
			return fmt.Errorf("%s: %s: not a part of %s, but beside %s: restore the published "+
				"files", x.Shard, x.Key, r.name, codes.Key)
		default:
			p.of[x.at] = 0
		}
	}
	m.parts = kept
	return nil
}

// consume moves the parts of a module into a weight.
func (p *pairer) consume(w weight, m *module, shared []*Stored) {
	begin := len(p.consumed)
	p.consumed = append(p.consumed, w.at)
	for _, x := range m.parts {
		if x.Stored != w.Stored {
			p.consumed = append(p.consumed, x.at)
		}
	}
	for _, t := range shared {
		p.consumed = append(p.consumed, t.at)
	}
	w.parts = slices.Clip(p.consumed[begin:])
	p.opened = append(p.opened, w)
	p.heads[w.at] = int32(len(p.opened))
	p.quantized = true
}

// incomplete returns an error with the missing part of a module that has no format.
func (p *pairer) incomplete(m *module) error {
	scale := m.certain()
	switch _, part := p.table.split(m.name); {
	case part != nil && p.c.byKey[m.name] != nil:
		return fmt.Errorf("%s: %s: scale of %s, which is a scale itself",
			scale.Shard, scale.Key, m.name)
	case m.codes == nil && len(m.parts) == 1 && isWholeScale(scale.Shape):
		p.orphan[m.name] = scale // it may be the scale of many weights below the module
		return nil
	case m.codes == nil:
		return withoutWeight(scale)
	}
	return fmt.Errorf("%s: %s: weight with scale %s has dtype %s: expected F8_E4M3",
		m.codes.Shard, m.codes.Key, scale.Key, m.codes.DType)
}

func withoutWeight(scale *Stored) error {
	return fmt.Errorf("%s: %s: %w: the checkpoint may be incomplete",
		scale.Shard, scale.Key, ErrNoWeight)
}

// collect lists the weights in the order of the source and records the dropped tensors.
func (p *pairer) collect() error {
	tensors := p.c.Tensors()
	if err := p.shareScales(); err != nil {
		return err
	}
	p.weights = make([]weight, 0, len(tensors))
	own := make([]int32, len(tensors))
	for i, t := range tensors {
		own[i] = int32(i)
		switch {
		case p.heads[i] > 0:
			p.list(p.opened[p.heads[i]-1])
			continue
		case p.of[i] > 0:
			continue
		}
		if reason := p.leftover(t); reason != "" {
			p.drops = append(p.drops, dropped{int32(i), reason})
			continue
		}
		w := weight{Stored: t, hf: t.Key, parts: own[i : i+1 : i+1]}
		if err := p.plain(&w); err != nil {
			return err
		}
		p.list(w)
	}
	p.noteOddities()
	p.noteUnscaled()
	return nil
}

// noteUnscaled adds a note about FP8 weights without a scale. Only a view with Options.Unscaled can
// have it; other plans fail.
func (p *pairer) noteUnscaled() {
	if p.bare != nil {
		p.notes = append(p.notes, fmt.Sprintf("%s%s: FP8 without a scale, read as plain numbers: "+
			"if other weights have scales, one may be lost", p.bare.Key, andMore(p.unscaled-1)))
	}
}

func (p *pairer) list(w weight) {
	w.i = int32(len(p.weights))
	p.weights = append(p.weights, w)
}

// shareScales gives the scale of a whole module to each FP8 weight below it that has none.
func (p *pairer) shareScales() error {
	if len(p.orphan) == 0 {
		return nil
	}
	used := map[*Stored]bool{}
	for i, t := range p.c.Tensors() {
		if p.of[i] > 0 || !fp8Coded(t.DType) || !strings.HasSuffix(t.Key, ".weight") {
			continue
		}
		if scale := p.above(t.Key); scale != nil {
			if err := checkScale(scale); err != nil {
				return err
			}
			used[scale] = true
			w := weight{Stored: t, hf: t.Key, format: fp8Formats[0],
				decoder: newFP8Weight(t, scale, p.q.intern(sharedPartition))}
			p.consume(w, &module{}, []*Stored{scale})
		}
	}
	for _, t := range p.c.Tensors() {
		if i := p.of[t.at]; i > 0 && p.orphan[p.modules[i-1].name] == t && !used[t] {
			return withoutWeight(t)
		}
	}
	return nil
}

// above returns the nearest scale of a whole module above a key, or nil.
func (p *pairer) above(key string) *Stored {
	for i := strings.LastIndexByte(key, '.'); i > 0; i = strings.LastIndexByte(key[:i], '.') {
		if scale := p.orphan[key[:i]]; scale != nil {
			return scale
		}
	}
	return nil
}

// plain handles a tensor that no format consumed. It is shown unchanged, is FP8 without a scale, or
// is refused.
func (p *pairer) plain(w *weight) error {
	switch t := w.Stored; {
	case fp8Coded(t.DType):
		if p.bare == nil {
			p.bare = t
		}
		p.unscaled++
		w.format, w.decoder = fp8Formats[0], &fp8Weight{codes: &t.Source}
	case t.DType == safetensors.F8E8M0: // exponents are scales
		return withoutWeight(t)
	case !passable(t.DType):
		return fmt.Errorf("%s: %s: a packed or quantized tensor of dtype %s is not decoded: "+
			otherwise, t.Shard, t.Key, t.DType)
	default:
		p.remark(t)
	}
	return nil
}

// scaleOf names the scale that an FP8 weight should have, after those of the other weights.
func (p *pairer) scaleOf(key string) string {
	module, isWeight := strings.CutSuffix(key, ".weight")
	for i := range p.opened {
		f := p.opened[i].format
		if fp8Coded(p.opened[i].DType) && (f.codes == ".weight") == isWeight {
			return module + f.parts[0]
		}
	}
	return key + "_scale_inv or " + key + "_scale"
}

// passable reports whether tensors of a dtype can be shown unchanged.
func passable(d safetensors.DType) bool {
	switch d {
	case safetensors.F32, safetensors.BF16, safetensors.F16, safetensors.F64, safetensors.Bool,
		safetensors.I64, safetensors.I32, safetensors.I16, safetensors.I8, safetensors.U8,
		safetensors.U16, safetensors.U32, safetensors.U64, safetensors.C64:
		return true
	}
	return false
}

// remark counts a tensor of a quantized module that is neither weight nor bias.
func (p *pairer) remark(t *Stored) {
	i := strings.LastIndexByte(t.Key, '.')
	if i < 0 || !p.quantized {
		return
	}
	switch last := t.Key[i+1:]; {
	case last == "weight" || last == "bias":
	case p.isQuantized(t.Key[:i]):
		p.odd.add(last, t.Key)
	}
}

// oddities counts tensors by what is odd about them.
type oddities map[string]*oddity

type oddity struct {
	first string // key of the first one
	more  int
}

func (o oddities) add(what, key string) {
	x := o[what]
	if x == nil {
		x = &oddity{first: key}
		o[what] = x
	}
	x.more++
}

// maxOddities limits the oddities with a warning of their own.
const maxOddities = 20

// noteOddities adds a warning for each oddity, in order, and one for all beyond the limit.
func (p *pairer) noteOddities() {
	p.noteEach(p.odd, func(string) string {
		return "shown unchanged, though it belongs to a quantized module and is neither weight " +
			"nor bias"
	})
	p.noteEach(p.against, func(what string) string { return what })
}

func (p *pairer) noteEach(odd oddities, text func(what string) string) {
	names := slices.Sorted(maps.Keys(odd))
	for _, name := range names[:min(len(names), maxOddities)] {
		o := odd[name]
		p.notes = append(p.notes, o.first+andMore(o.more-1)+": "+text(name))
	}
	if n := len(names) - maxOddities; n > 0 {
		p.notes = append(p.notes, fmt.Sprintf("%d more names: %s", n, text(names[maxOddities])))
	}
}

// isQuantized reports whether a module has a weight that is decoded, or FP8 without a scale.
func (p *pairer) isQuantized(module string) bool {
	for _, name := range []string{module + ".weight", module, module + "_weight"} {
		if t, ok := p.c.byKey[name]; ok && (p.heads[t.at] > 0 || fp8Coded(t.DType)) {
			return true
		}
	}
	i := p.named[module]
	return i > 0 && p.modules[i-1].row != nil
}
