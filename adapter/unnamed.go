package adapter

import "fmt"

// unnamed refuses a checkpoint with tensors that the layout has no names for, and whose values
// would need a rule that it does not have.
type unnamed struct {
	ends   []string // of their keys
	reason string
}

func (u unnamed) do(p *planner) error {
	for i := range p.weights {
		if w := &p.weights[i]; endsIn(u.ends, w.hf) {
			return fmt.Errorf("%s: %s: layout %s has no name for it, because %s: give --layout %s",
				w.Shard, w.Key, p.layout.Name, u.reason, LayoutHF)
		}
	}
	return nil
}

func (u unnamed) undo(*planner) error { return nil }
