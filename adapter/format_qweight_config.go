package adapter

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// qweightConfig is what the descriptions of a quantization say about weights in words.
type qweightConfig struct {
	format claim // AWQ or GPTQ
	order  claim // of the codes; its value is a key of qweightOrders
	base   qweightScheme
	named  map[string]qweightScheme // of single modules
	rules  []qweightRule
	all    []qweightScheme // each scheme once

	undecided string // a quant_method that may mean both
}

// claim is a value and the place that gives it. Without a place, nothing gives it.
type claim struct{ value, from string }

// qweightOrders are the orders of codes, by the names that programs give them.
var qweightOrders = map[string]struct {
	format string
	plus   int // added to each stored zero point
}{
	gemm:                   {"AWQ", 0},
	"auto_round:auto_awq":  {"AWQ", 0},
	"auto_round:awq":       {"AWQ", 0},
	"gptq":                 {"GPTQ", 1},
	"auto_round:auto_gptq": {"GPTQ", 1},
	"auto_round:gptq":      {"GPTQ", 1},
	"gptq_v2":              {"GPTQ", 0},
	"auto_round:gptqmodel": {"GPTQ", 0},
	"auto_round":           {"GPTQ", 0},
}

// qweightMethods are the values of quant_method with such weights. AutoRound writes either format.
var qweightMethods = map[string]string{
	"awq": "AWQ", "gptq": "GPTQ", "auto-round": "", "intel/auto-round": "",
}

// orderFields are the fields that name an order of codes.
var orderFields = []string{"checkpoint_format", "format", versionField, "packing_format"}

// versionField names the order of AWQ. In other descriptions it may be that of a program.
const versionField = "version"

// qweightScheme describes the codes of a weight.
type qweightScheme struct {
	bits, group             amount
	sym, inOrder, zeroPoint toggle // inOrder: desc_act, which lets g_idx permute the rows
}

// amount and toggle are settings, with the place that gives each. Without a place, nothing gives
// it.
type (
	amount struct {
		value int64
		from  string
	}
	toggle struct {
		value bool
		from  string
	}
)

// qweightRule is a scheme for the modules that a pattern matches.
type qweightRule struct {
	pattern *regexp.Regexp // nil: only Python can read it, so it may match any module
	scheme  qweightScheme
}

// qweight reads the descriptions, once.
func (q *quantization) qweight(of *Checkpoint) (*qweightConfig, error) {
	if q.words == nil {
		c := &qweightConfig{named: map[string]qweightScheme{}}
		for _, d := range q.descriptions {
			if err := c.read(d); err != nil {
				return nil, err
			}
		}
		if err := c.readRules(q.descriptions, of); err != nil {
			return nil, err
		}
		q.words = c
	}
	return q.words, nil
}

// read reads the settings of one description for all modules.
func (c *qweightConfig) read(d description) (err error) {
	if err := c.readFormat(d); err != nil {
		return err
	}
	if err := c.readOrder(d); err != nil {
		return err
	}
	s, err := readScheme(d.settings, d.file+": ")
	if err != nil {
		return err
	}
	return c.base.join(&s)
}

// readFormat reads quant_method.
func (c *qweightConfig) readFormat(d description) error {
	method, _ := d.settings["quant_method"].(string)
	if method == "" {
		return nil
	}
	from := fmt.Sprintf("%s: quant_method %.100q", d.file, method)
	format, ok := qweightMethods[method]
	switch {
	case !ok:
		format = method
	case format == "":
		c.undecided = from
	}
	return c.format.agree(claim{format, from})
}

// readOrder reads the fields that name an order of codes.
func (c *qweightConfig) readOrder(d description) error {
	if marlin, _ := d.settings["is_marlin_format"].(bool); marlin {
		return fmt.Errorf("%s: is_marlin_format is true: codes in the order of a kernel are not "+
			"decoded: %s", d.file, otherQweight)
	}
	method := d.settings.text("quant_method")
	for _, field := range orderFields {
		name, _ := d.settings[field].(string)
		if name == "" || field == versionField && qweightMethods[method] == "GPTQ" {
			continue
		}
		from := fmt.Sprintf("%s: %s %.100q", d.file, field, name)
		name = strings.ToLower(name)
		o, ok := qweightOrders[name]
		if !ok {
			return fmt.Errorf("%s is not decoded: %s", from, otherQweight)
		}
		if err := c.format.agree(claim{o.format, from}); err != nil {
			return err
		}
		if err := c.order.agree(claim{name, from}); err != nil {
			return err
		}
	}
	return nil
}

const otherQweight = `use a checkpoint in the order "gemm", "gptq" or "gptq_v2", or in BF16`

// agree adds a claim. Two places must not give different values.
func (c *claim) agree(o claim) error {
	switch {
	case o.value == "":
	case c.value == "":
		*c = o
	case c.value != o.value:
		return fmt.Errorf("%s, but %s: one of them is wrong: restore the published files",
			c.from, o.from)
	}
	return nil
}

// readScheme reads the settings of one scheme. Messages begin with the place.
func readScheme(o settings, place string) (s qweightScheme, err error) {
	for _, f := range []struct {
		names []string
		to    *amount
		whole bool // -1 means all rows
	}{{[]string{"bits", "w_bit"}, &s.bits, false},
		{[]string{"group_size", "q_group_size"}, &s.group, true}} {
		for _, name := range f.names {
			if err := f.to.read(o[name], place+name, f.whole); err != nil {
				return s, err
			}
		}
	}
	for name, to := range map[string]*toggle{
		"sym": &s.sym, "desc_act": &s.inOrder, "zero_point": &s.zeroPoint,
	} {
		if v, ok := o[name]; ok && v != nil {
			value, ok := v.(bool)
			if !ok {
				return s, fmt.Errorf("%s%s is %s: expected true or false", place, name, shown(v))
			}
			*to = toggle{value, fmt.Sprintf("%s%s %t", place, name, value)}
		}
	}
	return s, nil
}

// read reads a whole number from 1, or -1 if all is set.
func (n *amount) read(v any, from string, all bool) error {
	f, ok := v.(float64)
	switch {
	case v == nil:
		return nil
	case ok && all && f == -1, ok && f == math.Trunc(f) && f >= 1 && f <= math.MaxInt32:
		*n = amount{int64(f), fmt.Sprintf("%s %d", from, int64(f))}
		return nil
	}
	return fmt.Errorf("%s is %s: expected a whole number from 1", from, shown(v))
}

// join adds the settings of another description.
func (s *qweightScheme) join(o *qweightScheme) error {
	for _, n := range [][2]*amount{{&s.bits, &o.bits}, {&s.group, &o.group}} {
		if n[0].from != "" && n[1].from != "" && n[0].value != n[1].value {
			return disagree(n[0].from, n[1].from)
		}
		n[0].override(*n[1])
	}
	for _, f := range s.flags(o) {
		if f[0].from != "" && f[1].from != "" && f[0].value != f[1].value {
			return disagree(f[0].from, f[1].from)
		}
		f[0].override(*f[1])
	}
	return nil
}

// flags pairs the flags of two schemes.
func (s *qweightScheme) flags(o *qweightScheme) [3][2]*toggle {
	return [3][2]*toggle{{&s.sym, &o.sym}, {&s.inOrder, &o.inOrder}, {&s.zeroPoint, &o.zeroPoint}}
}

func disagree(a, b string) error {
	return fmt.Errorf("%s, but %s: one of them is wrong: restore the published files", a, b)
}

func (n *amount) override(o amount) {
	if o.from != "" {
		*n = o
	}
}

func (f *toggle) override(o toggle) {
	if o.from != "" {
		*f = o
	}
}

// said returns the setting for a message.
func (f *toggle) said(name string) string {
	if f.from == "" {
		return "no " + name + " in the configuration"
	}
	return f.from
}

// over returns the scheme with the settings of a rule in place of its own.
func (s qweightScheme) over(o *qweightScheme) qweightScheme {
	s.bits.override(o.bits)
	s.group.override(o.group)
	for _, f := range s.flags(o) {
		f[0].override(*f[1])
	}
	return s
}

// The fields with schemes of some modules. AutoRound's names a module, or a pattern that is found
// in its name. GPTQModel's patterns match at the beginning of the name.
const (
	patternField = "dynamic"
	nameField    = "extra_config"
)

// readRules reads the schemes of some modules.
func (c *qweightConfig) readRules(all []description, of *Checkpoint) error {
	left := maxInstructions
	for _, d := range all {
		for _, field := range []string{patternField, nameField} {
			rules := asObject(d.settings[field])
			for _, name := range sortedKeys(rules) {
				place := fmt.Sprintf("%s: %s of %.100q: ", d.file, field, name)
				o, err := readScheme(asObject(rules[name]), place)
				if err != nil {
					return err
				}
				s := c.base.over(&o)
				if field == nameField && of.byKey[name+".qweight"] != nil {
					c.named[name] = s
				} else {
					c.addPattern(field, name, s, &left)
				}
			}
		}
	}
	c.add(c.base)
	return nil
}

// addPattern adds a scheme for the modules that a pattern matches. A "+:" before a pattern includes
// modules. A "-:" leaves modules as they are, so it has no scheme.
func (c *qweightConfig) addPattern(field, text string, s qweightScheme, left *budget) {
	if field == patternField {
		if strings.HasPrefix(text, "-:") {
			return
		}
		text = "^(?:" + strings.TrimPrefix(text, "+:") + ")"
	}
	c.add(s)
	r := qweightRule{scheme: s}
	if left.take(text) {
		r.pattern = regexp.MustCompile(text)
	}
	c.rules = append(c.rules, r)
}

// add adds a scheme to the list of all.
func (c *qweightConfig) add(s qweightScheme) {
	if !slices.ContainsFunc(c.all, func(o qweightScheme) bool { return o.same(&s) }) {
		c.all = append(c.all, s)
	}
}

// same reports whether two schemes have the same settings, from whatever place.
func (s *qweightScheme) same(o *qweightScheme) bool {
	equal := s.bits.value == o.bits.value && s.group.value == o.group.value
	for _, f := range s.flags(o) {
		equal = equal && f[0].value == f[1].value && (f[0].from == "") == (f[1].from == "")
	}
	return equal
}

// schemesOf returns the schemes that the configuration may mean for a module.
func (c *qweightConfig) schemesOf(module string) []qweightScheme {
	if s, ok := c.named[module]; ok {
		return []qweightScheme{s}
	}
	var all []qweightScheme
	certain := false
	for _, r := range c.rules {
		if r.pattern == nil || r.pattern.MatchString(module) {
			all = append(all, r.scheme)
			certain = certain || r.pattern != nil
		}
	}
	if !certain {
		all = append(all, c.base)
	}
	return all
}

// schemeOf returns the scheme of a module: the one that the configuration gives it, or else any
// other in the configuration that fits the tensors. A model may have another name for the module
// than the configuration.
func (c *qweightConfig) schemeOf(module string, w *qweight) (qweightScheme, error) {
	said := c.schemesOf(module)
	for _, from := range [][]qweightScheme{said, c.all} {
		var fit []qweightScheme
		for _, s := range from {
			if s.fits(w) {
				fit = append(fit, s)
			}
		}
		if len(fit) == 0 {
			continue
		}
		for i := range fit {
			if !fit[i].same(&fit[0]) {
				return fit[0], fmt.Errorf("%s: %s: the configuration gives several descriptions "+
					"that fit it (%s; %s): name the module in one of them alone", w.codes.Shard,
					w.codes.Key, fit[0].String(), fit[i].String())
			}
		}
		return fit[0], nil
	}
	return said[0], fmt.Errorf("%s: %s: %s: %d bits with %d scales for %d rows, but the "+
		"configuration gives other sizes (%s): one of them is wrong", w.codes.Shard, w.codes.Key,
		w, w.bits, w.groups, w.in, said[0].String())
}

// fits reports whether tensors have the bits and the groups of the scheme.
func (s *qweightScheme) fits(w *qweight) bool {
	if s.bits.from != "" && s.bits.value != int64(w.bits) {
		return false
	}
	switch {
	case s.group.from == "":
		return true
	case s.group.value == -1:
		return w.groups == 1
	}
	return blocksIn(w.in, s.group.value) == w.groups
}

// String lists what the configuration says.
func (s *qweightScheme) String() string {
	var all []string
	for _, from := range []string{s.bits.from, s.group.from, s.sym.from, s.inOrder.from,
		s.zeroPoint.from} {
		if from != "" {
			all = append(all, from)
		}
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}

// expects refuses tensors of a format when the configuration describes another one.
func (c *qweightConfig) expects(w *qweight, format string) error {
	if c.format.value == "" || c.format.value == format {
		return nil
	}
	return fmt.Errorf("%s: %s: %s are the shapes of %s, but %s: one of them is wrong",
		w.codes.Shard, w.codes.Key, w, format, c.format.from)
}

// asSaid returns what the configuration says about the format, as the end of a message.
func (c *qweightConfig) asSaid() string {
	if c.format.from == "" {
		return ""
	}
	return " (" + c.format.from + ")"
}
