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
	keepMTP   mtp = iota
	dropMTP       // all of them
	dropAfter     // those after the model's own layers, but not those with a prefix of their own
	countMTP      // all beyond the number that the configuration gives
	anyMTP        // all, if the configuration says that there are none
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

// dropsMTP reports whether a key belongs to a prediction layer that is left out.
func (p *planner) dropsMTP(key string, at place) bool {
	if !p.isMTP(key, at) || p.o.MTP == MTPKeep {
		return false
	}
	behind := p.isBehind(at)
	n := at.layer
	if behind {
		n -= p.depth
	}
	switch {
	case p.o.MTP == MTPDrop:
		return true
	case p.view.mtp == dropAfter:
		return behind
	case p.view.mtp == countMTP:
		return n >= p.predictions && !(behind && p.predictions == 0)
	case p.view.mtp == anyMTP:
		return !behind && p.predictions == 0
	}
	return p.view.mtp == dropMTP
}

// ownPath reports whether a layer after the model's own layers has the view's name for prediction
// layers. It does not if the configuration says that there are none.
func (p *planner) ownPath(at place) bool {
	return p.view.mtpPath != "" && p.isBehind(at) &&
		!(p.view.mtp == countMTP && p.predictions == 0)
}

// dropsLayer reports whether a whole layer is left out.
func (p *planner) dropsLayer(x *expertLayer) bool {
	return p.dropsMTP(x.head, place{prefix: x.prefix, layer: x.number})
}

// countPredictions reads the number of prediction layers if the view depends on it. It is 0 if the
// configuration has none.
func (p *planner) countPredictions() error {
	if p.view.mtp != countMTP && p.view.mtp != anyMTP {
		return nil
	}
	n, err := p.field(predictionFields...)
	p.predictions = max(n, 0)
	return err
}
