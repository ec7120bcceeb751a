package adapter

// Account says what became of one source key.
type Account struct {
	Key    string
	Fate   Fate
	Reason string   // why it was dropped; empty otherwise
	Into   []string // names of virtual tensors that use it
}

// Fate is what became of a source key.
type Fate uint8

// The fates.
const (
	Used    Fate = iota // part of a computed tensor
	Passed              // shown as it is
	Dropped             // left out, for Reason
)

// String gives the fate in one word.
func (f Fate) String() string { return [...]string{"used", "passed", "dropped"}[f] }

// accounts keeps the fate of every source key, in the order of Checkpoint.Tensors.
// A key without a fate yet has an empty Into and no Reason.
type accounts []Account

func newAccounts(tensors []*Stored) accounts {
	a := make(accounts, len(tensors))
	for i, t := range tensors {
		a[i].Key = t.Key
	}
	return a
}

// drop gives up a key.
func (a accounts) drop(i int, reason string) {
	a[i].Fate, a[i].Reason = Dropped, reason
}

// use says that all that the weight is made of goes into the tensors named.
func (a accounts) use(w *weight, fate Fate, into []string) {
	for _, i := range w.parts {
		a[i].Fate, a[i].Reason = fate, ""
		if a[i].Into == nil {
			a[i].Into = into
		} else {
			a[i].Into = append(a[i].Into[:len(a[i].Into):len(a[i].Into)], into...)
		}
	}
}

// dropWeight gives up a weight with all that it is made of.
func (a accounts) dropWeight(w *weight, reason string) {
	for _, i := range w.parts {
		if a[i].Into == nil { // else another weight uses it
			a.drop(int(i), reason)
		}
	}
}
