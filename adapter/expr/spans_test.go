package expr

import "testing"

// noted is the environment of a fill that notes which bytes it reads.
type noted struct {
	Alone
	read map[File][]bool
}

func (n *noted) ReadAt(f File, p []byte, off int64) (int, error) {
	mark(n.read, f, off, int64(len(p)))
	return n.Alone.ReadAt(f, p, off)
}

func mark(all map[File][]bool, f File, off, n int64) {
	if all[f] == nil {
		all[f] = make([]bool, f.Size())
	}
	for i := off; i < off+n; i++ {
		all[f][i] = true
	}
}

// The spans of a unit are the bytes that its fill reads, and at most some padding in words.
func TestSpansAreWhatAFillReads(t *testing.T) {
	seen := 0
	for i, r := range allRecipes {
		for _, u := range unitsOf(r.make(newMaker(t, uint64(i)))) {
			if u.Key().Kind != Transposed {
				continue
			}
			env := &noted{read: map[File][]bool{}}
			if err := u.Fill(env, make([]byte, u.Size())); err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			spans := map[File][]bool{}
			u.Spans(func(f File, off, n int64) bool {
				mark(spans, f, off, n)
				return true
			})
			seen++
			for f, want := range env.read {
				missing, more := 0, int64(0)
				for i := range want {
					switch {
					case want[i] && !spans[f][i]:
						missing++
					case !want[i] && spans[f][i]:
						more++
					}
				}
				if missing > 0 || more > 0 && more >= u.Key().Stride {
					t.Errorf("%s: %s: the spans lack %d bytes and have %d others", r.name, u,
						missing, more)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("there are no units")
	}
}
