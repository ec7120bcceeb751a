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
	if p.ownPath(at) {
		own := fmt.Sprintf("%s%d.", v.mtpPath, at.layer-p.depth)
		_, rest, _ := strings.Cut(to, fmt.Sprintf("layers.%d.", at.layer))
		to = own + rest
	}
	to = firstOf(v.renames, to)
	for _, list := range v.later {
		to = firstOf(list, to)
	}
	return to
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
	head := x.head
	if p.view.groupPrefix != nil {
		head = fmt.Sprintf("%slayers.%d.", p.view.groupPrefix(p, x.prefix), x.number)
	}
	path := p.view.path
	if path == "" && p.layout.published && len(p.family.experts.groups) > 0 {
		path = p.family.experts.pathOfGroups()
	}
	if path == "" {
		path = p.family.experts.path
	}
	return p.name(head+path+g.name, at)
}
