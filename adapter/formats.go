package adapter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// formats are the formats known, the most specific first. A new format is a file with its rows and
// a line here.
var formats = slices.Concat(
	undecodedFormats,
	fp8Formats,
	undecodedTypes,
)

// format is a row of knowledge: which stored tensors of a module make one weight, and how.
type format struct {
	name string // for messages and summaries

	// codes is the ending of the tensor that holds the codes, behind the module's name: ".weight",
	// ".weight_packed", or "" for a tensor that has the module's own name. The weight is shown
	// under the module's name with ".weight", or without if the codes have none.
	codes string

	// parts are the endings of the other tensors of the weight, which must be there. With anyPart,
	// one of them is enough, and there may be no codes. Optional ones may be there besides.
	parts    []string
	anyPart  bool
	optional []string

	// loose: models have parameters with these endings too. Tensors that do not fit are such.
	loose bool

	// fits looks at dtypes and shapes; nil: the endings suffice.
	fits func(m *module) bool

	// open makes the decoder. nil: the format is recognised and refused by its name.
	open func(o *opening) (decoder, error)

	// instead says what to do about a format that is refused; empty: what holds for most.
	instead string
}

// decoder makes the values of a weight out of its stored tensors. It does not change.
type decoder interface {
	// shape is that of the values.
	shape() []int64
	// node gives the recipe of the values in a dtype.
	node(out safetensors.DType) (expr.Node, error)
	// describe says for summaries where scales lie, and of which dtype they are.
	describe() (where string, scales safetensors.DType)
}

// opening is what a format makes a decoder from.
type opening struct {
	*module
	c            *Checkpoint
	settings     settings
	family       *family
	quantization *quantization
	// shared are tensors of other modules that the weight consumes too. open adds to them.
	shared []*Stored
}

// module is the tensors of a module whose names say that together they make its weight.
type module struct {
	name   string
	codes  *Stored // the tensor called as the module with the ending, which is ".weight" or ""; may be nil
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

// part finds a tensor of the module by its ending; nil if there is none.
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

// named is the tensor that messages name: the codes, or what comes first.
func (m *module) named() *Stored {
	if m.codes != nil {
		return m.codes
	}
	return m.parts[0].Stored
}

// endingSet is a set of endings, by their numbers.
type endingSet [2]uint64

func (s *endingSet) add(i uint8) { s[i/64] |= 1 << (i % 64) }

func (s endingSet) holds(all endingSet) bool { return s[0]&all[0] == all[0] && s[1]&all[1] == all[1] }

func (s endingSet) meets(any endingSet) bool { return s[0]&any[0]|s[1]&any[1] != 0 }

// ending is how the key of a part ends.
type ending struct {
	text    string
	number  uint8
	certain bool // only parts of formats end so
}

// row is a format with its endings as sets.
type row struct {
	*format
	needs, allows endingSet
}

// formatTable is rows as they are looked up. Endings that begin with a dot are found by what is
// behind their last dot; the others are tried one after the other, the longest first.
type formatTable struct {
	rows    []row
	endings []*ending
	dotted  map[string][]*ending
	joined  []*ending
}

var knownFormats = newFormatTable(formats)

// newFormatTable prepares rows for look-up.
func newFormatTable(formats []*format) *formatTable {
	t := &formatTable{dotted: map[string][]*ending{}}
	for _, f := range formats {
		t.rows = append(t.rows, row{f, t.register(f.needed(), f), t.register(f.optional, f)})
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

// needed are the endings of all parts but codes that are called as the module.
func (f *format) needed() []string {
	if f.codes == ".weight" || f.codes == "" {
		return f.parts
	}
	return append([]string{f.codes}, f.parts...)
}

// register adds endings to the table and gives them as a set.
func (t *formatTable) register(texts []string, f *format) (s endingSet) {
	for _, text := range texts {
		i := slices.IndexFunc(t.endings, func(e *ending) bool { return e.text == text })
		if i < 0 {
			i = len(t.endings)
			t.endings = append(t.endings, &ending{text: text, number: uint8(i)})
		}
		t.endings[i].certain = t.endings[i].certain || !f.loose
		s.add(uint8(i))
	}
	return s
}

// split finds the module and the ending of a key that may be a part; the ending is nil if it is
// none.
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

// is says whether a module is of the format.
func (r *row) is(m *module) bool {
	if r.anyPart {
		return m.has.meets(r.needs) && (r.fits == nil || r.fits(m))
	}
	if named := r.codes == ".weight" || r.codes == ""; named && (m.codes == nil || m.ending != r.codes) {
		return false
	}
	return m.has.holds(r.needs) && (r.fits == nil || r.fits(m))
}

// find finds the format of a module; nil if it has none.
func (t *formatTable) find(m *module) *row {
	for i := range t.rows {
		if t.rows[i].is(m) {
			return &t.rows[i]
		}
	}
	return nil
}

// refused says that a format is not decoded, of which tensor, and what to do.
func (f *format) refused(t *Stored, s settings) error {
	instead := f.instead
	if instead == "" {
		instead = "use this model in FP8 or BF16, or a loader that decodes the format itself"
	}
	method := s.object(quantizationFields...).text("quant_method")
	if method != "" {
		method = fmt.Sprintf(" (quant_method %q)", method)
	}
	return fmt.Errorf("%s: %s: %s%s is not decoded: %s", t.Shard, t.Key, f.name, method, instead)
}
