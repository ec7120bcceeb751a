package adapter

import "slices"

// Account records the fate of one source key.
type Account struct {
	Key    string
	Fate   Fate
	Reason string   // why the key was dropped; otherwise empty
	Into   []string // names of the virtual tensors that use the key
}

// Fate is what a view does with a source key.
type Fate uint8

// The fates.
const (
	Used    Fate = iota // part of a computed tensor
	Passed              // shown unchanged
	Dropped             // left out; Reason says why
)

// String returns the fate in one word.
func (f Fate) String() string { return [...]string{"used", "passed", "dropped"}[f] }

// accounts holds the fate of every source key, in the order of Checkpoint.Tensors. A key that has
// no fate yet has neither Into nor Reason.
type accounts []Account

func newAccounts(tensors []*Stored) accounts {
	a := make(accounts, len(tensors))
	for i, t := range tensors {
		a[i].Key = t.Key
	}
	return a
}

// drop records that a key is left out.
func (a accounts) drop(i int, reason string) {
	a[i].Fate, a[i].Reason = Dropped, reason
}

// use records that the named tensors use all parts of a weight.
func (a accounts) use(w *weight, fate Fate, into []string) {
	for _, i := range w.parts {
		a[i].Fate, a[i].Reason = fate, ""
		if a[i].Into == nil {
			a[i].Into = slices.Clip(into) // other keys may share it, so appending must copy
		} else {
			a[i].Into = append(a[i].Into, into...)
		}
	}
}

// dropWeight drops all parts of a weight.
func (a accounts) dropWeight(w *weight, reason string) {
	for _, i := range w.parts {
		if a[i].Into == nil { // otherwise another weight uses it
			a.drop(int(i), reason)
		}
	}
}
