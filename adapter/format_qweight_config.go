package adapter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// qweightConfig is what the descriptions of a quantization say about AWQ and GPTQ.
type qweightConfig struct {
	format setting[string] // AWQ or GPTQ
	order  setting[string] // of the codes; a key of qweightOrders
	base   qweightScheme
	named  map[string]qweightScheme // of single modules
	rules  []qweightRule
	all    []qweightScheme // each scheme once

	undecided string // a quant_method that may mean both
}

// qweightOrders are the orders of codes.
var qweightOrders = map[string]struct {
	format string
	plus   int // added to each stored zero point; only the first GPTQ format stores one less
}{gemm: {"AWQ", 0}, "gptq": {"GPTQ", 1}, "gptq_v2": {"GPTQ", 0}}

// orderNames are the orders by the names that programs give them.
var orderNames = map[string]string{
	gemm: gemm, "auto_round:auto_awq": gemm, "auto_round:awq": gemm,
	"gptq": "gptq", "auto_round:auto_gptq": "gptq", "auto_round:gptq": "gptq",
	"gptq_v2": "gptq_v2", "auto_round:gptqmodel": "gptq_v2", "auto_round": "gptq_v2",
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
	bits, group    setting[int64]
	sym, zeroPoint setting[bool]
	inOrder        setting[bool] // desc_act, which lets g_idx permute the rows
}

// setting is a value and the place that gives it. Without a place, nothing gives it.
type setting[T comparable] struct {
	value T
	from  string
}

// qweightRule is a scheme for the modules that a pattern matches.
type qweightRule struct {
	pattern *pattern // nil: only Python can read it, so it may match any module
	scheme  qweightScheme
}

// qweight reads the descriptions, once.
func (q *quantization) qweight(of *Checkpoint) (*qweightConfig, error) {
	if q.qweights == nil {
		c := &qweightConfig{named: map[string]qweightScheme{}}
		for _, d := range q.descriptions {
			if err := c.read(d); err != nil {
				return nil, err
			}
		}
		if err := c.readRules(q.descriptions, of); err != nil {
			return nil, err
		}
		q.qweights = c
	}
	return q.qweights, nil
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
		return nil
	}
	return c.format.join(setting[string]{format, from})
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
		order, ok := orderNames[strings.ToLower(name)]
		if !ok {
			return fmt.Errorf("%s is not decoded: %s", from, otherQweight)
		}
		if err := c.format.join(setting[string]{qweightOrders[order].format, from}); err != nil {
			return err
		}
		if err := c.order.join(setting[string]{order, from}); err != nil {
			return err
		}
	}
	return nil
}

const otherQweight = `use a checkpoint in the order "gemm", "gptq" or "gptq_v2", or in BF16`

// join adds the setting of another place. Two places must not give different values.
func (s *setting[T]) join(o setting[T]) error {
	if s.from == "" {
		*s = o
	} else if o.from != "" && s.value != o.value {
		return fmt.Errorf("%s, but %s: one of them is wrong: restore the published files", s.from,
			o.from)
	}
	return nil
}

// override replaces the setting if another place gives it.
func (s *setting[T]) override(o setting[T]) {
	if o.from != "" {
		*s = o
	}
}

// same reports whether two settings have the same value, from whatever place.
func (s setting[T]) same(o setting[T]) bool {
	return s.value == o.value && (s.from == "") == (o.from == "")
}

// said returns the setting for a message.
func (s setting[T]) said(name string) string {
	return cmp.Or(s.from, "no "+name+" in the configuration")
}

// readScheme reads the settings of one scheme. Messages begin with the place.
func readScheme(o settings, place string) (s qweightScheme, err error) {
	for _, f := range []struct {
		name string
		to   *setting[int64]
	}{{"bits", &s.bits}, {"w_bit", &s.bits}, {"group_size", &s.group}, {"q_group_size", &s.group}} {
		v, allRows := o[f.name], o[f.name] == float64(-1) && f.to == &s.group
		switch n := wholeNumber(v); {
		case v == nil:
		case allRows:
			*f.to = setting[int64]{-1, place + f.name + " -1"}
		case n > 0:
			*f.to = setting[int64]{n, fmt.Sprintf("%s%s %d", place, f.name, n)}
		default:
			return s, fmt.Errorf("%s%s is %s: expected a whole number from 1", place, f.name,
				shown(v))
		}
	}
	for _, f := range []struct {
		name string
		to   *setting[bool]
	}{{"sym", &s.sym}, {"desc_act", &s.inOrder}, {"zero_point", &s.zeroPoint}} {
		v := o[f.name]
		if is, ok := v.(bool); ok {
			*f.to = setting[bool]{is, fmt.Sprintf("%s%s %t", place, f.name, is)}
		} else if v != nil {
			return s, fmt.Errorf("%s%s is %s: expected true or false", place, f.name, shown(v))
		}
	}
	return s, nil
}

// join adds the settings of another description.
func (s *qweightScheme) join(o *qweightScheme) error {
	return cmp.Or(s.bits.join(o.bits), s.group.join(o.group), s.sym.join(o.sym),
		s.zeroPoint.join(o.zeroPoint), s.inOrder.join(o.inOrder))
}

// over returns the scheme with the settings of a rule in place of its own.
func (s qweightScheme) over(o *qweightScheme) qweightScheme {
	s.bits.override(o.bits)
	s.group.override(o.group)
	s.sym.override(o.sym)
	s.zeroPoint.override(o.zeroPoint)
	s.inOrder.override(o.inOrder)
	return s
}

// same reports whether two schemes have the same settings.
func (s *qweightScheme) same(o *qweightScheme) bool {
	return s.bits.same(o.bits) && s.group.same(o.group) && s.sym.same(o.sym) &&
		s.zeroPoint.same(o.zeroPoint) && s.inOrder.same(o.inOrder)
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
				if s := c.base.over(&o); field == nameField && of.hasModule(name) {
					c.named[name] = s
				} else if err := c.addPattern(field, name, s, &left); err != nil {
					return fmt.Errorf("%s%w", place, err)
				}
			}
		}
	}
	c.add(c.base)
	return nil
}

// maxRules limits the patterns, because each is tried on each module. Published configurations have
// a few.
const maxRules = 4096

// hasModule reports whether a layer has the name.
func (c *Checkpoint) hasModule(name string) bool {
	return c.byKey[name+".qweight"] != nil || c.byKey[name+".weight"] != nil
}

// addPattern adds a scheme for the modules that a pattern matches. A "+:" before a pattern includes
// modules. A "-:" leaves modules as they are, as 16 bits do, so it has no scheme.
func (c *qweightConfig) addPattern(field, text string, s qweightScheme, left *budget) error {
	switch {
	case s.bits.value > 8, field == patternField && strings.HasPrefix(text, "-:"):
		return nil
	case len(c.rules) == maxRules:
		return fmt.Errorf("more than %d patterns: too many for a configuration", maxRules)
	case field == patternField:
		text = "^(?:" + strings.TrimPrefix(text, "+:") + ")"
	}
	c.add(s)
	r := qweightRule{scheme: s}
	if left.take(text) {
		r.pattern = newPattern(text)
	}
	c.rules = append(c.rules, r)
	return nil
}

// add adds a scheme to the list of all.
func (c *qweightConfig) add(s qweightScheme) {
	if !slices.ContainsFunc(c.all, func(o qweightScheme) bool { return o.same(&s) }) {
		c.all = append(c.all, s)
	}
}

// schemesOf returns the schemes that the configuration may mean for a module. They are certain if
// the configuration names the module, or has a pattern that matches it.
func (c *qweightConfig) schemesOf(module string) (all []qweightScheme, certain bool) {
	if s, ok := c.named[module]; ok {
		return []qweightScheme{s}, true
	}
	for _, r := range c.rules {
		if r.pattern == nil || r.pattern.MatchString(module) {
			all = append(all, r.scheme)
			certain = certain || r.pattern != nil
		}
	}
	if !certain {
		all = append(all, c.base)
	}
	return all, certain
}

// schemeOf returns the scheme of a module: the one that the configuration gives it, or else any
// other in the configuration that fits the tensors. A model may have another name for the module
// than the configuration, but not if the configuration has a scheme under this name.
func (c *qweightConfig) schemeOf(module string, w *qweight) (qweightScheme, error) {
	said, certain := c.schemesOf(module)
	others := c.all
	if certain {
		others = nil
	}
	for _, from := range [][]qweightScheme{said, others} {
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
