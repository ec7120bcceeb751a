package adapter

import "strings"

// What a view does with prediction layers, as [Options] and --mtp name it.
const (
	MTPAuto = "auto" // as the family's adapter does
	MTPKeep = "keep"
	MTPDrop = "drop"
)

// mtp is what to do with the layers that predict further tokens.
type mtp uint8

const (
	keepMTP mtp = iota
	dropMTP
)

// isMTP reports whether a key belongs to a layer that predicts further tokens. Such a layer comes
// after the model's own layers, or has a prefix of its own.
func (p *planner) isMTP(key string, at place) bool {
	for _, prefix := range predictionPrefixes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return p.isBehind(at)
}

// isBehind reports whether a layer comes after the language model's own layers.
func (p *planner) isBehind(at place) bool {
	return p.depth >= 0 && at.layer >= p.depth && language[at.prefix]
}

// dropsMTP reports whether such layers are left out.
func (p *planner) dropsMTP() bool {
	return p.o.MTP == MTPDrop || p.o.MTP == MTPAuto && p.view.mtp == dropMTP
}

// dropsLayer reports whether a whole layer is left out.
func (p *planner) dropsLayer(l layerID) bool {
	return p.dropsMTP() && p.isMTP(l.name(""), place{prefix: l.prefix, layer: l.number})
}
