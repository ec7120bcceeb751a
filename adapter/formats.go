package adapter

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// formats lists the known formats, the most specific first. A new format is a file with its rows
// and a line here.
var formats = slices.Concat(
	undecodedFormats,
	nvfp4Formats,
	mxfp4Formats,
	compressedFormats,
	qweightFormats,
	bitsandbytesFormats,
	deepSeek4Formats,
	fp8Formats,
	undecodedTypes,
)

// format describes the stored tensors of a module that make one weight, and how to decode them.
type format struct {
	name string // for messages and summaries

	// codes is the ending of the tensor with the codes, after the module's name. It is ".weight",
	// ".weight_packed", or "" for a tensor with the module's own name. The weight is shown with the
	// ending ".weight" if codes begins with a dot, and otherwise without an ending.
	codes string

	// parts are the endings of the other required tensors. Tensors of the optional endings may be
	// missing.
	parts    []string
	optional []string

	// signs are endings of which one is enough to recognise the format. If another required tensor
	// is then missing, the error says so. Without signs, all required tensors tell the format
	// together.
	signs []string

	// read are endings of small tensors whose values decide how the weight is decoded, or are
	// checked. opening.read returns them.
	read []string

	// lists are endings of lists of groups. They are too long to be kept, so opening.list returns
	// only what they say.
	lists []string

	// loose means that models also have parameters with these endings. Tensors that do not fit are
	// such parameters. Optional endings are always loose, unless they are signs.
	loose bool

	// fits checks dtypes and shapes; nil: the endings suffice.
	fits func(m *module) bool

	// open makes the decoder; nil: the format is recognised and refused by name.
	open func(o *opening) (decoder, error)

	// instead is the remedy for a refused format; empty: the usual one.
	instead string
}

// decoder makes the values of a weight from its stored tensors. It does not change.
type decoder interface {
	// shape returns the shape of the values.
	shape() []int64
	// node returns the recipe of the values in a dtype.
	node(out safetensors.DType) (expr.Node, error)
	// describe returns which elements share a scale, and the dtype of the scales, for summaries.
	describe() (where string, scales safetensors.DType)
}

// opening has the inputs of format.open.
type opening struct {
	*module
	c            *Checkpoint
	settings     settings
	family       *family
	quantization *quantization
	against      oddities // receives what the configuration says against the tensors
	// shared are tensors of other modules that the weight also consumes. open adds to them.
	shared []*Stored
}

// read returns the bytes of a tensor whose ending is in format.read. ok is false for a tensor that
// is too long to be kept.
func (o *opening) read(t *Stored) (data []byte, ok bool) {
	data, ok = o.c.small[t]
	return data, ok
}

// numbers returns the whole numbers in a tensor of dtype I32 or I64, as read does.
func (o *opening) numbers(t *Stored) (all []int64, ok bool) {
	data, ok := o.read(t)
	if !ok {
		return nil, false
	}
	size := t.DType.Bits() / 8
	all = make([]int64, len(data)/size)
	for i := range all {
		if size == 8 {
			all[i] = int64(binary.LittleEndian.Uint64(data[8*i:]))
		} else {
			all[i] = int64(int32(binary.LittleEndian.Uint32(data[4*i:])))
		}
	}
	return all, true
}

// list returns what a list of groups says, if its ending is in format.lists.
func (o *opening) list(t *Stored) (groupList, error) {
	if l, ok := o.c.lists[t]; ok {
		return l, nil
	}
	return groupList{}, fmt.Errorf("%s: %s: %s %v: expected at most %d bytes", t.Shard, t.Key,
		t.DType, t.Shape, maxList)
}

// module is the tensors that make one weight, by their names.
type module struct {
	name   string
	codes  *Stored // the tensor with the module's name and the ending ".weight" or ""; may be nil
	ending string
	parts  []part // all others, in the order of the source
	has    endingSet
	row    *row // its format; nil if it has none
}

// part is a tensor of a module other than the codes.
type part struct {
	*Stored
	ending *ending
}

// part returns the tensor of the module with an ending, or nil.
func (m *module) part(ending string) *Stored {
	if m.codes != nil && ending == m.ending {
		return m.codes
	}
	for _, x := range m.parts {
		if x.ending.text == ending {
			return x.Stored
		}
	}
	return nil
}

// named returns the tensor to name in messages: the codes, or else the first part.
func (m *module) named() *Stored {
	if m.codes != nil {
		return m.codes
	}
	return m.parts[0].Stored
}

// endingSet is a set of endings, by their numbers.
type endingSet [2]uint64

func (s *endingSet) add(i uint8) { s[i/64] |= 1 << (i % 64) }

func (s endingSet) holds(all endingSet) bool {
	return s[0]&all[0] == all[0] && s[1]&all[1] == all[1]
}

func (s endingSet) meets(any endingSet) bool { return s[0]&any[0]|s[1]&any[1] != 0 }

// ending is an ending of a part's key.
type ending struct {
	text    string
	number  uint8
	certain bool // only parts of formats have this ending
}

// row is a format with its endings as sets.
type row struct {
	*format
	needs, allows, signs endingSet
}

// formatTable holds the rows for look-up. Endings that begin with a dot are found by the text after
// their last dot. The others are tried in turn, the longest first.
type formatTable struct {
	rows    []row
	endings []*ending
	dotted  map[string][]*ending
	joined  []*ending
	read    map[string]bool // the last parts of keys whose bytes are read
	lists   map[string]bool // the last parts of keys of lists of groups
}

var knownFormats = newFormatTable(formats)

// newFormatTable prepares rows for look-up.
func newFormatTable(formats []*format) *formatTable {
	t := &formatTable{dotted: map[string][]*ending{}, read: map[string]bool{},
		lists: map[string]bool{}}
	for _, f := range formats {
		t.rows = append(t.rows, row{f, t.register(f.needed(), !f.loose),
			t.register(f.optional, false), t.register(f.signs, !f.loose)})
		for _, e := range f.read {
			t.read[e[strings.LastIndexByte(e, '.')+1:]] = true
		}
		for _, e := range f.lists {
			t.lists[e[strings.LastIndexByte(e, '.')+1:]] = true
		}
	}
	for _, e := range t.endings {
		if e.text[0] == '.' {
			last := e.text[strings.LastIndexByte(e.text, '.')+1:]
			t.dotted[last] = append(t.dotted[last], e)
		} else {
			t.joined = append(t.joined, e)
		}
	}
	longest := func(a, b *ending) int { return cmp.Compare(len(b.text), len(a.text)) }
	slices.SortStableFunc(t.joined, longest)
	for _, d := range t.dotted {
		slices.SortStableFunc(d, longest)
	}
	return t
}

// named reports whether the codes are named like the module.
func (f *format) named() bool { return f.codes == ".weight" || f.codes == "" }

// needed returns the endings of all required parts. It leaves out codes that are named like the
// module.
func (f *format) needed() []string {
	if f.named() {
		return f.parts
	}
	return append([]string{f.codes}, f.parts...)
}

// shown returns the name of a module's weight in the model.
func (f *format) shown(module string) string {
	if strings.HasPrefix(f.codes, ".") {
		return module + ".weight"
	}
	return module
}

// register adds endings to the table and returns them as a set. They are certain if only parts of
// formats have them.
func (t *formatTable) register(texts []string, certain bool) (s endingSet) {
	for _, text := range texts {
		i := slices.IndexFunc(t.endings, func(e *ending) bool { return e.text == text })
		if i < 0 {
			i = len(t.endings)
			t.endings = append(t.endings, &ending{text: text, number: uint8(i)})
		}
		t.endings[i].certain = t.endings[i].certain || certain
		s.add(uint8(i))
	}
	return s
}

// split returns the module and the ending of a key that may be a part. Otherwise the ending is nil.
func (t *formatTable) split(key string) (module string, e *ending) {
	last := key[strings.LastIndexByte(key, '.')+1:]
	if last == "weight" || last == "bias" {
		return "", nil
	}
	for _, e := range t.dotted[last] {
		if module, ok := strings.CutSuffix(key, e.text); ok {
			return module, e
		}
	}
	for _, e := range t.joined {
		if len(last) > len(e.text) && strings.HasSuffix(last, e.text) {
			return key[:len(key)-len(e.text)], e
		}
	}
	return "", nil
}

// is reports whether a module has the format.
func (r *row) is(m *module) bool {
	found := m.has.meets(r.signs)
	if len(r.format.signs) == 0 {
		found = m.has.holds(r.needs) && (!r.named() || m.part(r.codes) != nil)
	}
	return found && (r.fits == nil || r.fits(m))
}

// missing returns the ending of a required tensor that a module does not have.
func (r *row) missing(m *module) (ending string, ok bool) {
	if len(r.format.signs) == 0 || m.part(r.codes) == nil {
		return r.codes, len(r.format.signs) > 0
	}
	i := slices.IndexFunc(r.parts, func(e string) bool { return m.part(e) == nil })
	if i < 0 {
		return "", false
	}
	return r.parts[i], true
}

// firstOf returns the codes of a module, or else the tensor by which it was recognised.
func (f *format) firstOf(m *module) *Stored {
	for _, e := range slices.Concat([]string{f.codes}, f.signs) {
		if t := m.part(e); t != nil {
			return t
		}
	}
	return m.named()
}

// find returns the format of a module, or nil.
func (t *formatTable) find(m *module) *row {
	for i := range t.rows {
		if t.rows[i].is(m) {
			return &t.rows[i]
		}
	}
	return nil
}

// otherwise is the remedy for a format that is not decoded.
const otherwise = "use this model in FP8 or BF16, or a loader that decodes the format itself"

// refused returns the error for a format that is not decoded: the tensor, the format and the
// remedy.
func (f *format) refused(t *Stored, s settings) error {
	instead := cmp.Or(f.instead, otherwise)
	method := s.object(quantizationFields...).text("quant_method")
	if method != "" {
		method = fmt.Sprintf(" (quant_method %.100q)", method)
	}
	return fmt.Errorf("%s: %s: %s%s is not decoded: %s", t.Shard, t.Key, f.name, method, instead)
}
