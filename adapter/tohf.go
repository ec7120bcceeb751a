package adapter

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// NonQuantizedKeyPatterns are the parts of keys whose weights the reference's to_hf
// does not quantize.
var NonQuantizedKeyPatterns = []string{
	"input_layernorm.weight",
	"post_attention_layernorm.weight",
	"norm.weight",
	"lm_head.weight",
	"embed_tokens.weight",
	"mlp.gate.weight",
}

// ShouldQuantizeKey says whether the reference's to_hf quantizes a key: one that ends
// in ".weight" and contains none of NonQuantizedKeyPatterns.
func ShouldQuantizeKey(key string) bool {
	return strings.HasSuffix(key, ".weight") && !containsAny(key, NonQuantizedKeyPatterns)
}

func containsAny(key string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(key, p) {
			return true
		}
	}
	return false
}

// ToHF gives the view that a reference adapter's to_hf gives of a native checkpoint,
// or of any other: published keys, each expert's projections apart. Layout "hf"
// (the default) has values as the source has them, "hf-fp8" quantized ones.
func ToHF(c *Checkpoint, o Options) (*StateDict, error) {
	switch o.Layout {
	case "":
		o.Layout = "hf"
	case "hf", "hf-fp8":
	default:
		return nil, fmt.Errorf("layout %q is not one of published checkpoints: expected hf or hf-fp8", o.Layout)
	}
	return newStateDict(c, o)
}

// ConvertTensorToHF gives the tensors of a published checkpoint that one tensor of a
// native one becomes: grouped experts are taken apart, others renamed, and what
// o.Exclude matches is left out. With o.Layout "hf-fp8" they are quantized, as o.Scales
// says. A matrix that published checkpoints hold fused with others keeps its native name.
func ConvertTensorToHF(config *Config, name string, n expr.Node, o Options) ([]Tensor, error) {
	if o.Layout == "" {
		o.Layout = "hf"
	}
	p := &planner{c: &Checkpoint{Config: config}, o: o, buckets: map[string]*bucket{}, names: map[string]string{}}
	if err := p.configure(); err != nil {
		return nil, err
	}
	if len(p.layout.groups) > 0 {
		return nil, fmt.Errorf("layout %q is not one of published checkpoints: expected hf or hf-fp8", o.Layout)
	}
	if native, ok := p.family.view("native"); ok {
		p.back = native
	}
	if err := p.convert(name, n); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p.ordered(), nil
}

// convert adds what one native tensor becomes.
func (p *planner) convert(name string, n expr.Node) error {
	key := p.published(name)
	at := locate(key)
	b := p.group("", [2]int{})
	if p.family != nil && p.family.experts != nil && p.family.experts.grouped == "" && at.layer >= 0 {
		if l, g, ok := p.family.groupedExperts(at.rest); ok {
			parts := groupedWeight{layout: l, group: g}.parts(p.gated)
			id := layerID{at.prefix, at.layer}
			lo, hi := p.o.EP.Range(int(n.Shape()[0]))
			return g.apart(n, parts, lo, hi, func(r role, e int, one expr.Node) error {
				return p.convertOne(id.name(p.family.experts.key(e, r)), one, b, name)
			})
		}
	}
	n, err := p.special(key, n)
	if err != nil {
		return err
	}
	return p.convertOne(key, n, b, name)
}

// convertOne adds one published tensor, if it is not excluded.
func (p *planner) convertOne(key string, n expr.Node, b *bucket, from string) error {
	if p.leftOut(key) != "" {
		return nil
	}
	_, err := p.put(key, n, b, from)
	return err
}
