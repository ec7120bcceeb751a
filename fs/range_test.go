package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// budgets are the budgets of the tests of ranges: nothing, one unit, everything.
func budgets() map[string]int64 {
	return map[string]int64{"none": -1, "one": 24 << 10, "all": 1 << 30}
}

// poison dirties a buffer, like those of pools.
func poison(p []byte) {
	for i := range p {
		p[i] = 0xA5
	}
}

// checkRange reads one range and compares it with the whole.
func checkRange(ctx context.Context, r ReaderAtContext, whole []byte, off int64, n int) error {
	buf := make([]byte, n)
	poison(buf)
	got, err := r.ReadAtContext(ctx, buf, off)
	if errors.Is(err, context.Canceled) {
		poison(buf) // a later write to it is a race, which the detector reports
		return nil
	}
	want := whole[min(off, int64(len(whole))):]
	want = want[:min(n, len(want))]
	if n > len(want) && err != io.EOF || n == len(want) && err != nil && err != io.EOF {
		return fmt.Errorf("[%d, %d): %v", off, off+int64(n), err)
	}
	if got != len(want) || !bytes.Equal(buf[:got], want) {
		return fmt.Errorf("[%d, %d): differs from the slice of the whole", off, off+int64(n))
	}
	for _, b := range buf[got:] {
		if b != 0xA5 {
			return fmt.Errorf("[%d, %d): wrote behind the end", off, off+int64(n))
		}
	}
	return nil
}

// someRange picks an offset and a length: small, large, at borders, beyond the end.
func someRange(rng *rand.Rand, f *file) (off int64, n int) {
	switch rng.IntN(4) {
	case 0: // around a border
		off = f.ends[rng.IntN(len(f.ends))] - rng.Int64N(2000)
	case 1:
		off = f.Size() - rng.Int64N(5000)
	default:
		off = rng.Int64N(f.Size())
	}
	n = 1 + rng.IntN(1<<uint(4+rng.IntN(15)))
	return max(off, 0), n
}

func TestRangesEqualSlicesOfTheWhole(t *testing.T) {
	o := awkward[0]
	_, dir := writeSynth(t, o)
	whole := map[string][]byte{}
	all := openViews(t, dir, Options{CacheSize: 1 << 30}, layout("native", "native", 0),
		layout("hf", "hf", 0))
	names := append(shardsOf(t, all, "native"), shardsOf(t, all, "hf")...)
	for _, name := range names {
		whole[name] = readTree(t, all, name)
	}
	for budget, bytes := range budgets() {
		t.Run(budget, func(t *testing.T) {
			f := openViews(t, dir, Options{CacheSize: bytes, Workers: 4},
				layout("native", "native", 0), layout("hf", "hf", 0))
			var wg sync.WaitGroup
			for g := range 16 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(g), 7))
					for range 25 {
						name := names[rng.IntN(len(names))]
						file := f.find(name).content.(*file)
						off, n := someRange(rng, file)
						ctx, cancel := context.WithCancel(context.Background())
						if g%4 == 0 {
							go cancel()
						}
						if err := checkRange(ctx, file, whole[name], off, n); err != nil {
							t.Errorf("%s: %v", name, err)
						}
						cancel()
					}
				})
			}
			wg.Wait()
			wantIdle(t, f)
		})
	}
}

// wantIdle checks that reads that have ended hold nothing.
func wantIdle(t *testing.T, f *FS) {
	t.Helper()
	eventually(t, "nothing is in use", func() bool {
		s := f.Stats()
		return s.Active == 0 && s.Pinned == 0 && s.Filling == 0 && s.Waiting == 0 &&
			len(s.Reading) == 0
	})
	if s := f.Stats(); s.CacheUsed > s.CacheBudget {
		t.Errorf("%d bytes used of a budget of %d", s.CacheUsed, s.CacheBudget)
	}
}

func TestLargeReadsAreSplit(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Hidden: 512, ExpertIntermediate: 256, Layers: 2,
		Vocab: 96, Single: true})
	f := openViews(t, dir, Options{Workers: 4}, layout("", "native", 0))
	for _, name := range shardsOf(t, f, ".") {
		file := f.find(name).content.(*file)
		one := make([]byte, file.Size())
		for off := int64(0); off < file.Size(); off += 64 << 10 {
			if _, err := file.ReadAt(one[off:min(off+64<<10, file.Size())], off); err != nil &&
				err != io.EOF {
				t.Fatal(err)
			}
		}
		before := f.Stats().Splits
		// workers only take pieces that they can begin at once
		eventually(t, "a read is split", func() bool {
			if !bytes.Equal(readTree(t, f, name), one) {
				t.Fatalf("%s: large reads differ from small ones", name)
			}
			return f.Stats().Splits > before || file.Size() < 2*minPiece
		})
	}
}

func TestEndsOfFiles(t *testing.T) {
	_, dir := writeSynth(t,
		synth.Options{Side: map[string][]byte{"tokenizer.json": []byte("0123456789")}})
	f := openViews(t, dir, Options{}, layout("", "native", 0))
	for _, name := range []string{"tokenizer.json", configName, shardsOf(t, f, ".")[0]} {
		r, err := f.ReaderAt(name)
		if err != nil {
			t.Fatal(err)
		}
		size := r.Size()
		for _, test := range []struct {
			off  int64
			n    int
			got  int
			fail bool
			eof  bool
		}{
			{0, 4, 4, false, false}, {size - 2, 2, 2, false, false}, {size - 2, 3, 2, false, true},
			{size, 1, 0, false, true}, {size + 9, 1, 0, false, true}, {-1, 1, 0, true, false}, {3, 0, 0, false, false},
		} {
			n, err := r.ReadAt(make([]byte, test.n), test.off)
			if n != test.got || (err == io.EOF) != test.eof ||
				(err != nil && err != io.EOF) != test.fail {
				t.Errorf("%s: read of %d at %d of %d: %d, %v", name, test.n, test.off, size, n, err)
			}
		}
	}
}

// FuzzReadAt reads any range and compares it with the whole file.
func FuzzReadAt(f *testing.F) {
	c := synth.DeepSeek(synth.Options{Experts: 3, Hidden: 96, ExpertIntermediate: 57, Layers: 2,
		Vocab: 96, Single: true})
	dir := f.TempDir()
	if err := c.Write(dir); err != nil {
		f.Fatal(err)
	}
	var files []*FS
	for _, budget := range budgets() {
		files = append(files, openViews(f, dir, Options{CacheSize: budget, Workers: 2},
			layout("", "native", 0)))
	}
	whole := readTree(f, files[0], singleName)
	for _, seed := range [][2]int64{{0, 8}, {8, 4096}, {4095, 2}, {5000, 70000},
		{1 << 20, 1 << 20}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, off, n int64) {
		if off < 0 || n < 0 || n > 4<<20 {
			return
		}
		for _, fs := range files {
			if err := checkRange(context.Background(), fs.find(singleName).content, whole, off,
				int(n)); err != nil {
				t.Errorf("budget %d: %v", fs.options.CacheSize, err)
			}
		}
	})
}
