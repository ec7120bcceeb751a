package units

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
)

func TestHitsAndMissesAreCounted(t *testing.T) {
	c, f := testCache(t, 1<<20)
	u := fakeUnits(3, 1000)
	for i, test := range []struct {
		units        []*fakeUnit
		hits, misses int64
	}{
		{u[:1], 0, 1},
		{u[:1], 1, 1},
		{u, 2, 3},
		{u, 5, 3},
	} {
		if err := use(context.Background(), f, 0, 1, test.units...); err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); s.Hits != test.hits || s.Misses != test.misses {
			t.Errorf("read %d: %d hits and %d misses, want %d and %d", i, s.Hits, s.Misses,
				test.hits, test.misses)
		}
	}
}

// A unit is a miss for each reader that waits for it. A unit that was fetched ahead is a hit.
func TestOnlyUnitsThatAreThereAreHits(t *testing.T) {
	c, f := testCache(t, 1<<20)
	u := fakeUnits(1, 1000)[0]
	if !c.prefetch(u, 0) {
		t.Fatal("it is not fetched")
	}
	eventually(t, "it is there", func() bool { return c.Stats().Units == 1 })
	if err := use(context.Background(), f, 0, 1, u); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Hits != 1 || s.Misses != 0 {
		t.Errorf("%d hits, %d misses", s.Hits, s.Misses)
	}
}

// zeros is a source file of zeros.
type zeros struct{ noFile }

func (*zeros) ReadAt(_ context.Context, p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func TestUnannouncedUnitsAreCountedAndInTheAccount(t *testing.T) {
	load, err := expr.Load(&expr.Source{Key: "w", File: &zeros{noFile{name: "s"}},
		DType: safetensors.BF16, Shape: []int64{32, 64}})
	if err != nil {
		t.Fatal(err)
	}
	turned, err := expr.Transpose(load)
	if err != nil {
		t.Fatal(err)
	}
	for _, budget := range []int64{1, turned.Size(), 1 << 20} {
		c, f := testCache(t, budget)
		other := fakeUnits(1, 1000)[0]
		other.file = &noFile{name: "other"}
		if err := use(context.Background(), f, 0, 1, other); err != nil {
			t.Fatal(err)
		}
		r := f.begin(context.Background(), 0, turned.Size())
		r.Want(other)
		if err := r.Acquire(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := turned.ReadAt(r, make([]byte, turned.Size()), 0); err != nil {
				t.Fatal(err)
			}
		}
		s := c.Stats()
		if s.Unannounced == 0 {
			t.Errorf("budget %d: none were counted", budget)
		}
		if want := turned.Size() + 1000; s.Pinned != want || s.CacheUsed != want {
			t.Errorf("budget %d: %d bytes are pinned and %d used, want %d", budget, s.Pinned,
				s.CacheUsed, want)
		}
		r.End(true)
		if s := c.Stats(); s.Pinned != 0 || s.CacheUsed > budget {
			t.Errorf("budget %d: afterwards %d bytes are pinned and %d used", budget, s.Pinned,
				s.CacheUsed)
		}
	}
}

// changing is a source file that may change.
type changing struct {
	noFile
	changed atomic.Bool
}

func (f *changing) Check() error {
	if f.changed.Load() {
		return source.ErrChanged
	}
	return nil
}

func TestAKeptUnitOfAChangedFileIsRefusedWhetherOrNotItWasAnnounced(t *testing.T) {
	c, f := testCache(t, 1<<20)
	file := &changing{noFile: noFile{name: "source"}}
	u := &fakeUnit{file: file, number: 1, size: 1000}
	if err := use(context.Background(), f, 0, 1, u); err != nil {
		t.Fatal(err)
	}
	for _, changed := range []bool{false, true} {
		file.changed.Store(changed)
		announced := use(context.Background(), f, 0, 1, u)
		r := f.begin(context.Background(), 0, 1)
		_, late := c.late(r, u)
		r.End(late == nil)
		for _, err := range []error{announced, late} {
			if errors.Is(err, source.ErrChanged) != changed {
				t.Errorf("changed: %v, but the read gives %v", changed, err)
			}
		}
	}
	if n := u.fills.Load(); n != 1 {
		t.Errorf("%d fills", n)
	}
}
