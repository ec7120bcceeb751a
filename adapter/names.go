package adapter

import (
	"fmt"
	"strings"
)

// name gives a key of the source its name in the view.
func (p *planner) name(key string, at place) string {
	v := p.view
	if v.rekey != nil {
		key = v.rekey(p, key)
	}
	to := firstOf(v.prefixes, key)
	if v.mtpPath != "" && p.isBehind(at) {
		own := fmt.Sprintf("%s%d.", v.mtpPath, at.layer-p.depth)
		to = strings.Replace(to, fmt.Sprintf("layers.%d.", at.layer), own, 1)
	}
	return firstOf(v.renames, to)
}

// root is "model." if keys of the source begin with it.
func (p *planner) root() string {
	if p.rootKnown {
		return p.rootName
	}
	p.rootKnown = true
	for i := range p.weights {
		if strings.HasPrefix(p.weights[i].hf, "model.") {
			p.rootName = "model."
			break
		}
	}
	return p.rootName
}

// groupName gives a grouped tensor of a layer its name in the view.
func (p *planner) groupName(x *expertLayer, g *group) string {
	at := place{prefix: x.prefix, layer: x.number}
	l := x.layerID
	if p.view.groupPrefix != nil {
		l.prefix = p.view.groupPrefix(p, l.prefix)
	}
	path := p.view.path
	if path == "" {
		path = p.family.experts.path
	}
	return p.name(l.name(path+g.name), at)
}
