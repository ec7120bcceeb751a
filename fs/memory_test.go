package fs

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs/units"
	"github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// TestSharesFitIntoWhatIsAllowed gives views of all kinds more and more memory: what they take
// never goes beyond it and never shrinks, and what the first refusal names is enough.
func TestSharesFitIntoWhatIsAllowed(t *testing.T) {
	_, source := writeSynth(t, synth.Options{})
	_, plain := writeSynth(t, synth.Options{Plain: true})
	const plans = 20 << 20
	for _, c := range []struct {
		name, source string
		layouts      []string
		o            Options
	}{
		{"hf", source, []string{"hf"}, Options{}},
		{"native", source, []string{"native"}, Options{}},
		{"all", source, []string{"native", "hf", "transformers", "torchtitan"}, Options{}},
		{"hf-fp8", plain, []string{"hf-fp8"}, Options{}},
		{"a cache of a given size", source, []string{"native"}, Options{CacheSize: 100 << 20}},
		{"no cache", source, []string{"native"}, Options{CacheSize: -1}},
	} {
		var views []View
		for _, l := range c.layouts {
			views = append(views, layout(l, l, safetensors.BF16))
		}
		f := openViews(t, c.source, c.o, views...)
		var refusal *MemoryError
		if err := f.fit(allowance{bytes: plans, by: "a test", shown: plans}, plans); !errors.As(err,
			&refusal) {
			t.Fatalf("%s: %v", c.name, err)
		}
		var before shares
		for n := refusal.Needed; n < 8<<30; n += n / 8 {
			if err := f.fit(allowance{bytes: n, by: "a test", shown: n}, plans); err != nil {
				t.Fatalf("%s: %d MiB: %v", c.name, n>>20, err)
			}
			s := f.shares
			if used := plans + reserved + s.bytes(); used > n {
				t.Errorf("%s: %d bytes are allowed, %d are used: %+v", c.name, n, used, s)
			}
			if s.requests*s.requestSize < before.requests*before.requestSize ||
				s.blocks < before.blocks || s.strips < before.strips || s.cache < before.cache ||
				s.spare < before.spare {
				t.Errorf("%s: with more memory there is less: %+v, before %+v", c.name, s, before)
			}
			if c.o.CacheSize > 0 && s.cache != c.o.CacheSize {
				t.Errorf("%s: a cache of %d", c.name, s.cache)
			}
			before = s
		}
		if most := mostShares(f.needs(), 8<<30); c.o.CacheSize <= 0 &&
			(before.requests != most.requests || before.blocks != most.blocks) {
			t.Errorf("%s: with 8 GiB there is %+v, not %+v", c.name, before, most)
		}
	}
}

func TestMemoryErrorsSayWhatIsNeeded(t *testing.T) {
	f, _ := layerFS(t, deepSeek, Options{})
	err := f.fit(allowance{bytes: 50 << 20, by: "/sys/fs/cgroup/x/memory.max", shown: 50 << 20},
		10<<20)
	const want = "too little memory: /sys/fs/cgroup/x/memory.max allows 50 MiB, but 80 MiB are " +
		"needed at least, of which the plans of the views take 10 MiB"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestReadsAreCutToTheUnitsThatFit reads ranges that need more units than there is room for.
func TestReadsAreCutToTheUnitsThatFit(t *testing.T) {
	x := expertShape{experts: 6, hidden: 256, intermediate: 128}
	fresh, _ := layerFS(t, x, Options{})
	want := readTree(t, fresh, singleName)
	f, _ := layerFS(t, x, Options{})
	n := f.needs()
	limit(f, func(l *units.Limits) { l.Units, l.Request = n.units, n.units })
	v := f.find(singleName).content.(*file)
	for _, seed := range size.Seeds(t) {
		rng := rand.New(rand.NewPCG(seed, 0))
		for range size.Count(300, 10_000) / 3 {
			off := rng.IntN(len(want))
			p := make([]byte, min(1+rng.IntN(1<<rng.IntN(20)), len(want)-off))
			if step := v.step(int64(off), int64(len(p))); step <= 0 || step > minStep &&
				v.needs(int64(off), step) > n.units {
				t.Fatalf("a step of %d bytes at %d needs %d bytes of units, %d are allowed", step,
					off, v.needs(int64(off), step), n.units)
			}
			if got, err := v.ReadAt(p, int64(off)); got != len(p) || err != nil && err != io.EOF ||
				!bytes.Equal(p, want[off:off+len(p)]) {
				t.Fatalf("[%d, %d): %d bytes, %v", off, off+len(p), got, err)
			}
		}
	}
	if s := f.Stats(); s.CacheUsed > n.units {
		t.Errorf("%d bytes in the cache, %d are allowed", s.CacheUsed, n.units)
	}
}

// TestFewStripsAreComputedAtOnce fills units from a source that notes how often it is read at once.
func TestFewStripsAreComputedAtOnce(t *testing.T) {
	f, source := layerFS(t, deepSeek, Options{})
	const few = 2
	limit(f, func(l *units.Limits) { l.Strips = few })
	var now, most atomic.Int64
	source.hook = func(_ int64, n int) error {
		if n < 64<<10 {
			return nil // of scales
		}
		at := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); at > old && !most.CompareAndSwap(old, at); old = most.Load() {
		}
		time.Sleep(time.Millisecond)
		return nil
	}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			r, err := f.ReaderAt(singleName)
			if err == nil {
				_, err = r.ReadAt(make([]byte, 4096),
					8192+int64(i)*deepSeek.hidden*deepSeek.intermediate*4)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > few || most.Load() == 0 {
		t.Errorf("%d strips were read at once", most.Load())
	}
}
