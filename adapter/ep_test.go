package adapter

import "testing"

func TestRanksShareExpertsAsDivmodDoes(t *testing.T) {
	for _, test := range []struct {
		n, size int
		want    [][2]int
	}{
		{8, 2, [][2]int{{0, 4}, {4, 8}}},
		{7, 3, [][2]int{{0, 3}, {3, 5}, {5, 7}}},
		{2, 4, [][2]int{{0, 1}, {1, 2}, {2, 2}, {2, 2}}},
		{0, 2, [][2]int{{0, 0}, {0, 0}}},
	} {
		for r, want := range test.want {
			lo, hi := EP{r, test.size}.Range(test.n)
			if lo != want[0] || hi != want[1] {
				t.Errorf("rank %d of %d of %d experts: [%d, %d), want %v", r, test.size, test.n, lo,
					hi, want)
			}
		}
	}
	if lo, hi := (EP{}).Range(5); lo != 0 || hi != 5 {
		t.Errorf("no ranks: [%d, %d), want all", lo, hi)
	}
}

func TestRanksThatDoNotExistAreRefused(t *testing.T) {
	for _, e := range []EP{{2, 2}, {-1, 2}, {0, -1}, {1, 0}} {
		if e.check() == nil {
			t.Errorf("%+v: no error", e)
		}
	}
	for _, e := range []EP{{}, {0, 1}, {3, 4}} {
		if err := e.check(); err != nil {
			t.Errorf("%+v: %v", e, err)
		}
	}
}
