package adapter

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quantizationFields are the fields of config.json that describe a quantization.
var quantizationFields = []string{"quantization_config", "compression_config"}

// quantization is the configured description of scales. The tensors decide the format; the
// configuration gives block sizes and breaks ties.
type quantization struct {
	there        bool   // the configuration has a description
	method       string // quant_method
	descriptions []description
	floats       ruleSet // of FP8 codes
	integers     ruleSet // of codes that are whole numbers

	partitions []*partition              // each partition in use, once
	numbers    map[[64]byte]*[16]float32 // each table of numbers of codes, by its bytes
	qweights   *qweightConfig            // what they say about AWQ and GPTQ
}

// description is the fields of one description, as the file has them.
type description struct {
	file string
	settings
}

// ruleSet is the rules for weights of one kind.
type ruleSet struct {
	rules   []rule
	any     scheme             // all rules together
	always  scheme             // all rules for every weight together
	only    bool               // there are no other rules
	schemes map[string]*scheme // by the rules that apply
}

// rule is the configured description of some weights.
type rule struct {
	targets  *targets // nil: every weight
	ignore   *targets
	integers bool // the codes are whole numbers
	scheme
}

// scheme is the configured description of one weight.
type scheme struct {
	blocks  [][2]int64 // sizes of blocks; a group of g in a row is 1 × g
	tensor  bool       // one scale for a whole matrix
	channel bool       // one scale for each output channel

	// of whole numbers
	bits       []int // of a code
	symmetric  bool  // no zero points
	asymmetric bool  // zero points; both: several rules apply

	ordered   bool // a list gives the group of each column
	unordered bool // groups follow each other; both: several rules apply
}

// dialects are the descriptions that different programs write. Each reads the fields that it knows
// and ignores the rest.
var dialects = []struct {
	methods []string // values of quant_method; "" means that the field is absent
	read    func(o settings) ([]rule, error)
}{
	{[]string{"", "fp8", "mxfp8", "fbgemm_fp8"}, readBlockSize},
	{append([]string{"", "compressed-tensors"}, modelOptMethods...), readConfigGroups},
	{append([]string{""}, modelOptMethods...), readModelOpt},
}

// readQuantization reads the description in config.json and those in the files beside it.
func readQuantization(c *Checkpoint, s settings) (*quantization, error) {
	q := &quantization{}
	if err := q.read(configName, s.object(quantizationFields...)); err != nil {
		return nil, fmt.Errorf("%s: %w", configName, err)
	}
	for _, name := range append([]string{paramsName}, quantizeNames...) {
		raw, ok := c.quantizeFiles[name]
		if !ok {
			continue
		}
		o, err := parseSettings(raw)
		if err == nil {
			err = q.read(name, o)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	q.floats.settle()
	q.integers.settle()
	return q, nil
}

// read adds the rules of one description. ModelOpt's own file nests them in a field "quantization".
func (q *quantization) read(file string, o settings) error {
	if inside, ok := o["quantization"].(map[string]any); ok {
		o = inside
	}
	if len(o) == 0 {
		return nil
	}
	q.there = true
	q.descriptions = append(q.descriptions, description{file, o})
	method, _ := o["quant_method"].(string)
	if q.method == "" {
		q.method = method
	}
	for _, d := range dialects {
		if !slices.Contains(d.methods, method) {
			continue
		}
		rules, err := d.read(o)
		if err != nil {
			return err
		}
		for _, r := range rules {
			set := &q.floats
			if r.integers {
				set = &q.integers
			}
			set.rules = append(set.rules, r)
		}
	}
	return nil
}

// settle joins the rules for every weight.
func (q *ruleSet) settle() {
	q.schemes = map[string]*scheme{}
	q.only = true
	for i := range q.rules {
		q.any.join(&q.rules[i].scheme)
		if r := &q.rules[i]; r.targets == nil && r.ignore == nil {
			q.always.join(&r.scheme)
		} else {
			q.only = false
		}
	}
}

// schemeOf joins all rules that apply to a weight. Rules may overlap, and their order does not
// matter.
func (q *ruleSet) schemeOf(key string) *scheme {
	if q.only {
		return &q.always
	}
	module := strings.TrimSuffix(key, ".weight")
	applies := make([]byte, len(q.rules))
	for i := range q.rules {
		if q.rules[i].applies(module) {
			applies[i] = 1
		}
	}
	s := q.schemes[string(applies)]
	if s == nil {
		s = &scheme{}
		for i := range q.rules {
			if applies[i] == 1 {
				s.join(&q.rules[i].scheme)
			}
		}
		q.schemes[string(applies)] = s
	}
	return s
}

// described returns what the configuration says about the groups and zero points of a module. If no
// rule names it, all rules count, because their names may be those of another library.
func (q *ruleSet) described(module string) *scheme {
	if s := q.schemeOf(module); s.ordered || s.unordered {
		return s
	}
	return &q.any
}

// intern returns the single copy of a partition without parts.
func (q *quantization) intern(p partition) *partition {
	i := slices.IndexFunc(q.partitions, func(o *partition) bool {
		return o.block == p.block && o.shared == p.shared && o.larger == p.larger
	})
	if i < 0 {
		i = len(q.partitions)
		q.partitions = append(q.partitions, &partition{block: p.block, shared: p.shared,
			larger: p.larger})
	}
	return q.partitions[i]
}

// join adds another scheme. The order of joins does not change the result.
func (s *scheme) join(o *scheme) {
	for _, b := range o.blocks {
		if !slices.Contains(s.blocks, b) {
			s.blocks = append(s.blocks, b)
		}
	}
	slices.SortFunc(s.blocks, func(a, b [2]int64) int { return slices.Compare(b[:], a[:]) })
	s.tensor = s.tensor || o.tensor
	s.channel = s.channel || o.channel
	for _, n := range o.bits {
		if !slices.Contains(s.bits, n) {
			s.bits = append(s.bits, n)
		}
	}
	slices.Sort(s.bits)
	s.symmetric = s.symmetric || o.symmetric
	s.asymmetric = s.asymmetric || o.asymmetric
	s.ordered = s.ordered || o.ordered
	s.unordered = s.unordered || o.unordered
}

// divides reports whether the scheme says which elements share a scale.
func (s *scheme) divides() bool { return len(s.blocks) > 0 || s.tensor || s.channel }

// String returns all that the scheme says about bits and partitions, for messages.
func (s *scheme) String() string {
	var says []string
	for _, n := range s.bits {
		says = append(says, fmt.Sprintf("%d bits", n))
	}
	for _, b := range s.blocks {
		says = append(says, partition{block: b}.String())
	}
	if s.channel {
		says = append(says, rowPartition.String())
	}
	if s.tensor {
		says = append(says, wholePartition.String())
	}
	return strings.Join(says, ", ")
}

// names reports whether the scheme describes the partition.
func (s *scheme) names(p partition) bool {
	switch {
	case p.larger:
		return false
	case p.block == wholePartition.block:
		return s.tensor
	case p.block == rowPartition.block, p.block == columnPartition.block:
		return s.channel
	}
	return slices.Contains(s.blocks, p.block)
}

// wayOut returns the remedy for scales that fit no known partition, or several.
func (s *scheme) wayOut() string {
	if len(s.blocks) > 0 {
		return "the configuration and the scales contradict each other: restore the published " +
			"files, or correct the configured block size"
	}
	return "say in config.json which it is: add weight_block_size to quantization_config, or " +
		"restore the published one"
}

// applies reports whether the rule covers a module.
func (r *rule) applies(module string) bool {
	return (r.targets == nil || r.targets.match(module)) &&
		(r.ignore == nil || !r.ignore.match(module))
}

// targets are the modules that a rule covers.
type targets struct {
	all      bool            // a class such as Linear is a target, and every module may be of it
	names    map[string]bool // of modules
	above    map[string]bool // names whose modules below are all covered
	patterns []*pattern
}

func newTargets() *targets { return &targets{names: map[string]bool{}, above: map[string]bool{}} }

func (t *targets) match(module string) bool {
	return t.all || t.names[module] || t.below(module) ||
		slices.ContainsFunc(t.patterns,
			func(p *pattern) bool { return p.MatchString(module) })
}

// below reports whether a module is below one of the names.
func (t *targets) below(module string) bool {
	if len(t.above) == 0 {
		return false
	}
	for i, r := range module {
		if r == '.' && t.above[module[:i]] {
			return true
		}
	}
	return false
}

// addTarget reads a target of compressed-tensors: "re:PATTERN", the name of a module, or a class. A
// pattern matches at the beginning.
func (t *targets) addTarget(s string, left *budget) {
	first, _ := utf8.DecodeRuneInString(s)
	pattern, isPattern := strings.CutPrefix(s, "re:")
	switch {
	case isPattern:
		t.addPattern("^(?:"+pattern+")", left)
	case unicode.IsUpper(first):
		t.all = true
	default:
		t.names[s] = true
	}
}

// addGlob reads a name of ModelOpt, in which "*" matches anything. A name without "*" covers that
// module and all modules below it.
func (t *targets) addGlob(s string, left *budget) {
	if strings.Contains(s, "*") {
		t.addPattern("^"+strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, ".*")+"$", left)
		return
	}
	t.names[s], t.above[s] = true, true
}

// addPattern adds a pattern. A pattern that only Python can read, or that exceeds the budget,
// matches everything. That is safe, because the scales must fit the rule too.
func (t *targets) addPattern(expression string, left *budget) {
	if !left.take(expression) {
		t.all = true
		return
	}
	t.patterns = append(t.patterns, newPattern(expression))
}

// budget is the number of instructions left for the patterns of a description. It is needed because
// the few letters of (.{900}){9} compile to a megabyte.
type budget int

const (
	maxInstructions budget = 1 << 18 // at most 1024 patterns, because each counts as 256 or more
	maxPattern             = 4096    // letters of one pattern
)

// take takes a pattern from the budget. It returns false for a pattern that is invalid or too
// large.
func (b *budget) take(pattern string) bool {
	if len(pattern) > maxPattern {
		return false
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return false
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return false
	}
	n := budget(len(program.Inst)) + 256
	if n > *b {
		return false
	}
	*b -= n
	return true
}

// readTargets reads a list of strings and skips other values. It returns nil if there is no list.
func readTargets(v any, left *budget) *targets {
	list, ok := v.([]any)
	if !ok {
		return nil
	}
	t := newTargets()
	for _, e := range list {
		if s, ok := e.(string); ok {
			t.addTarget(s, left)
		}
	}
	return t
}

func asObject(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// sortedKeys returns the keys of an object in sorted order.
func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// readBlockSize reads weight_block_size, where null means one scale for a matrix. Some methods
// imply the size by their name.
func readBlockSize(o settings) ([]rule, error) {
	v, there := o["weight_block_size"]
	b, err := blockOf("weight_block_size", v)
	if err != nil {
		return nil, err
	}
	r := rule{}
	switch {
	case v != nil:
		r.blocks = [][2]int64{b}
	case o.text("quant_method") == "mxfp8":
		r.blocks = [][2]int64{{1, 32}}
	case o.text("quant_method") == "fbgemm_fp8":
		r.channel = true
	case there || o.text("activation_scheme") == "static":
		r.tensor = true
	}
	return []rule{r}, nil
}

// blockOf reads [128, 128] or, from older files, "128x128". For null it returns zeros.
func blockOf(name string, v any) (b [2]int64, err error) {
	switch v := v.(type) {
	case nil:
		return b, nil
	case []any:
		if len(v) != 2 {
			break
		}
		for i := range v {
			b[i] = wholeNumber(v[i])
		}
	case string:
		if _, err := fmt.Sscanf(v, "%dx%d", &b[0], &b[1]); err != nil {
			b = [2]int64{}
		}
	}
	if b[0] < 1 || b[1] < 1 || max(b[0], b[1]) > math.MaxInt32 {
		return b, fmt.Errorf("%s is %s: expected two whole numbers from 1", name, shown(v))
	}
	return b, nil
}

// wholeNumber returns a whole number from 1 to 2^31-1. For any other value it returns 0.
func wholeNumber(v any) int64 {
	if f, ok := v.(float64); ok && f == math.Trunc(f) && f >= 1 && f <= math.MaxInt32 {
		return int64(f)
	}
	return 0
}
