package adapter

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// blank is a vector of zeros, one F32 for each expert. The layout has it even if the source does
// not.
type blank struct {
	beside, key string // ends of published keys: of a tensor in the same module, and its own
}

// addBlanks adds the vectors of zeros that the view has beside a tensor and the source does not.
func (p *planner) addBlanks(w *weight, at place) error {
	for _, m := range p.view.blanks {
		head, ok := strings.CutSuffix(w.hf, m.beside)
		if !ok || p.weightOf(head+m.key) != nil || p.c.isPart() { // another file may have it
			continue
		}
		if p.count < 0 {
			return fmt.Errorf("%s: %s: config.json: %s is missing, which is the size of %s",
				w.Shard, w.Key, p.countField(), head+m.key)
		}
		n, err := expr.Blank(safetensors.F32, int64(p.count))
		if err != nil {
			return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
		}
		name := p.name(head+m.key, at)
		if n, err = p.rounded(name, n); err != nil {
			return fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
		}
		if p.leftOut(name) != "" {
			continue
		}
		if _, err = p.put(name, n, p.destination(w, at), w.Key); err != nil {
			return fmt.Errorf("%s: %w", w.Shard, err)
		}
	}
	return nil
}
