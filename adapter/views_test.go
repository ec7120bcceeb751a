package adapter

import (
	"bytes"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// inEveryView calls check with each layout of each published sample.
func inEveryView(t *testing.T, check func(t *testing.T, c *Checkpoint, layout string)) {
	t.Helper()
	for name, sample := range publishedSamples(t) {
		t.Run(name, func(t *testing.T) {
			c := sample.open(t)
			for _, layout := range sample.layouts(t, c) {
				t.Run(layout, func(t *testing.T) { check(t, c, layout) })
			}
		})
	}
}

// ofExperts is a tensor that holds experts, in any layout.
var ofExperts = regexp.MustCompile(`(^|\.)experts\.|_E[FD][FD]$|\.mlp[12]_weight$`)

// oneExpert is a tensor of one expert of the language model.
var oneExpert = regexp.MustCompile(`^((language_model|thinker)\.)?((model|backbone)\.)?` +
	`(language_model\.)?layers\.\d+\.([a-z_]+\.)?experts\.\d+\.`)

// Each tensor is on one rank, or in parts on several that together are the whole, or the same on
// all. Experts are never the same on all.
func TestRanksOfEveryViewShareTheExperts(t *testing.T) {
	t.Parallel()
	inEveryView(t, func(t *testing.T, c *Checkpoint, layout string) {
		if familyOf(c.Config.fields()).expertKeys() == nil {
			return // there is nothing to share
		}
		whole := tensorsOf(t, dict(t, c, Options{Layout: layout}))
		for _, size := range []int{2, 3, 5} {
			ranks, total := make([]*StateDict, size), 0
			for rank := range ranks {
				ranks[rank] = dict(t, c, Options{Layout: layout, EP: EP{rank, size}})
				total += ranks[rank].Len()
			}
			for _, x := range whole {
				total -= wantShared(t, ranks, x)
				wantMarked(t, ranks, x.Name)
			}
			if total != 0 {
				t.Errorf("%d ranks: %d tensors that the whole view has not", size, total)
			}
		}
	})
}

// isGroupOfExperts reports whether a tensor holds a matrix of each expert.
func isGroupOfExperts(x synth.Tensor) bool {
	return len(x.Shape) == 3 && ofExperts.MatchString(x.Name)
}

// wantShared compares what ranks have of a tensor with the whole. It returns how many have it.
func wantShared(t *testing.T, ranks []*StateDict, whole synth.Tensor) (have int) {
	t.Helper()
	var together []byte
	entries, same := int64(0), true
	for _, d := range ranks {
		l, ok := d.Tensor(whole.Name)
		if !ok {
			continue
		}
		have++
		data := content(t, l)
		same = same && bytes.Equal(data, whole.Data) && slices.Equal(l.Shape(), whole.Shape)
		together = append(together, data...)
		if len(l.Shape()) > 0 {
			entries += l.Shape()[0]
		}
		if l.DType().String() != whole.DType {
			t.Errorf("%s: %s, want %s", whole.Name, l.DType(), whole.DType)
		}
	}
	switch all := have == len(ranks); {
	case have == 1 && same, all && same && !isGroupOfExperts(whole) &&
		!oneExpert.MatchString(whole.Name):
	case len(whole.Shape) == 0 || entries != whole.Shape[0] || !bytes.Equal(together, whole.Data):
		t.Errorf("%s: on %d of %d ranks, with %d entries together, want %v", whole.Name, have,
			len(ranks), entries, whole.Shape)
	}
	return have
}

// wantMarked checks that a tensor is marked as one of the rank if another rank has not the same.
// All others have the same recipe and group in every rank, so ranks can share their files.
func wantMarked(t *testing.T, ranks []*StateDict, name string) {
	t.Helper()
	var first *Tensor
	same := true
	for _, d := range ranks {
		i, ok := d.byName[name]
		if !ok {
			same = false
			continue
		}
		x := &d.Plan.Tensors[i]
		if first == nil {
			first = x
		}
		same = same && expr.Same(x.Node, first.Node) && x.Group == first.Group
		if x.OfRank != first.OfRank {
			t.Errorf("%s: marked differently on rank %d", name, d.Plan.Options.EP.Rank)
		}
	}
	if first != nil && first.OfRank == same {
		t.Errorf("%s: of the rank: %v, the same on every rank: %v", name, first.OfRank, same)
	}
}

// Without several ranks, no tensor is marked.
func TestTensorsAreOfARankOnlyIfThereAreSeveral(t *testing.T) {
	inEveryView(t, func(t *testing.T, c *Checkpoint, layout string) {
		for _, ep := range []EP{{}, {0, 1}} {
			p, err := NewPlan(c, Options{Layout: layout, EP: ep})
			if err != nil {
				continue // a model that has no ranks
			}
			for _, x := range p.Tensors {
				if x.OfRank {
					t.Errorf("%v: %s is of a rank", ep, x.Name)
				}
			}
		}
	})
}

// A part of any tensor, by its bytes or along its axes, is that part of the whole.
func TestPartsOfEveryViewEqualTheWhole(t *testing.T) {
	t.Parallel()
	inEveryView(t, func(t *testing.T, c *Checkpoint, layout string) {
		rng := rand.New(rand.NewPCG(21, 22))
		for l := range dict(t, c, Options{Layout: layout}).All() {
			whole := content(t, l)
			if len(whole) == 0 {
				continue
			}
			for range 4 {
				lo := rng.IntN(len(whole))
				p := bytes.Repeat([]byte{0xa5}, 1+rng.IntN(len(whole)-lo))
				if _, err := l.ReadAt(p, int64(lo)); err != nil ||
					!bytes.Equal(p, whole[lo:lo+len(p)]) {
					t.Errorf("%s = %s: %d bytes from %d differ from the whole, error %v", l.Name(),
						l.Recipe(), len(p), lo, err)
				}
			}
			part, want := l, whole
			for axis, n := range l.Shape() {
				lo := rng.Int64N(n)
				hi := lo + 1 + rng.Int64N(n-lo)
				var err error
				want = cut(want, synth.Width(l.DType().String()), part.Shape(), axis, lo, hi)
				if part, err = part.Slice(axis, lo, hi); err != nil {
					t.Fatalf("%s: %v", l.Name(), err)
				}
			}
			if !bytes.Equal(content(t, part), want) {
				t.Errorf("%s: %s differs from slicing the whole", l.Name(), part.Recipe())
			}
		}
	})
}

// Every source key has a fate, and every tensor comes from a key or is zeros.
func TestAccountsOfEveryView(t *testing.T) {
	inEveryView(t, func(t *testing.T, c *Checkpoint, layout string) {
		for _, o := range []Options{{}, {EP: EP{1, 2}}, {EP: EP{2, 3}}, {MTP: MTPDrop}} {
			if o.EP.Size > 0 && familyOf(c.Config.fields()).expertKeys() == nil {
				continue
			}
			o.Layout = layout
			wantAccounts(t, dict(t, c, o), len(c.Tensors()))
		}
	})
}

// wantAccounts checks that each source key is dropped for a reason or goes into tensors that the
// view has.
func wantAccounts(t *testing.T, d *StateDict, keys int) {
	t.Helper()
	from := map[string]bool{}
	for _, a := range d.Plan.Account {
		dropped := a.Fate == Dropped
		if dropped != (a.Reason != "") || dropped == (len(a.Into) > 0) {
			t.Errorf("%+v: %+v", d.Plan.Options, a)
		}
		for _, into := range a.Into {
			from[into] = true
			mustTensor(t, d, into)
		}
	}
	for l := range d.All() {
		if !from[l.Name()] && !strings.HasPrefix(l.Recipe(), "zeros(") {
			t.Errorf("%+v: nothing goes into %s", d.Plan.Options, l.Name())
		}
	}
	if len(d.Plan.Account) != keys {
		t.Errorf("%+v: %d keys in the account of %d", d.Plan.Options, len(d.Plan.Account), keys)
	}
}
