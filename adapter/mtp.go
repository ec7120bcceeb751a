package adapter

import "strings"

// mtp is what to do with the layers that predict further tokens.
type mtp uint8

const (
	keepMTP mtp = iota
	dropMTP
)

// isMTP says whether a key is of a layer that predicts further tokens: one behind
// the model's own layers, or under "mtp.".
func (p *planner) isMTP(key string, at place) bool {
	if strings.HasPrefix(key, "mtp.") || strings.HasPrefix(key, "model.mtp") {
		return true
	}
	return p.depth >= 0 && at.layer >= p.depth && language[at.prefix]
}

// dropsMTP says whether such layers are left out.
func (p *planner) dropsMTP() bool {
	return p.o.MTP == "drop" || p.o.MTP == "auto" && p.view.mtp == dropMTP
}

// dropsLayer says whether a whole layer is left out.
func (p *planner) dropsLayer(l layerID) bool {
	return p.dropsMTP() && p.isMTP(l.name(""), place{prefix: l.prefix, layer: l.number})
}
