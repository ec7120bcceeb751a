package adapter

import (
	"fmt"
	"slices"
	"strings"
)

// name is what a key of the source is called in the view.
func (p *planner) name(key string, at place) string {
	v := p.view
	to := firstOf(v.prefixes, firstOf(v.oneWay, key))
	if v.rooted && to == key {
		to = p.rooted(key)
	}
	if v.mtpPath != "" && p.depth >= 0 && at.layer >= p.depth && language[at.prefix] {
		to = strings.Replace(to, fmt.Sprintf("layers.%d.", at.layer), fmt.Sprintf("%s%d.", v.mtpPath, at.layer-p.depth), 1)
	}
	return firstOf(v.renames, to)
}

// rooted puts "model." in front of a key if other keys of the source have it.
func (p *planner) rooted(key string) string {
	for _, own := range []string{"model.", "mtp.", "lm_head."} {
		if strings.HasPrefix(key, own) {
			return key
		}
	}
	return p.root() + key
}

// root is "model." if keys of the source begin with it.
func (p *planner) root() string {
	for i := range p.weights {
		if strings.HasPrefix(p.weights[i].hf, "model.") {
			return "model."
		}
	}
	return ""
}

// groupName is what a grouped tensor of a layer is called in the view.
func (p *planner) groupName(x *expertLayer, g *group) string {
	at := place{prefix: x.prefix, layer: x.number}
	l := x.layerID
	if p.view.rooted && language[l.prefix] {
		l.prefix = p.root() + "language_model."
		if slices.Contains(p.view.textOnly, p.architecture()) {
			l.prefix = p.root()
		}
	}
	path := p.view.path
	if path == "" {
		path = p.family.experts.path
	}
	return p.name(l.name(path+g.name), at)
}

// architecture is the first of the configuration's architectures.
func (p *planner) architecture() string {
	all, _ := p.s["architectures"].([]any)
	if len(all) == 0 {
		return ""
	}
	a, _ := all[0].(string)
	return a
}
