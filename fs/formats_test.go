package fs

import (
	"context"
	"encoding/binary"
	iofs "io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/formats"
	"github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// formatViews are the views of a checkpoint of formats: hf in each dtype, and native where its
// tensors are known.
func formatViews(c *formats.Checkpoint) (views []View) {
	for name, d := range dtypes {
		views = append(views, layout("hf-"+name, "hf", d))
		if c.Native != nil {
			views = append(views, layout("native-"+name, "native", d))
		}
	}
	return views
}

// Every element of every format is compared with an oracle that shares no code with the program.
func TestEveryElementOfEveryFormatEqualsTheOracle(t *testing.T) {
	for _, test := range formats.All() {
		t.Run(test.Name, func(t *testing.T) {
			for _, seed := range size.Seeds(t) {
				c := test.Make(seed)
				dir := t.TempDir()
				if err := c.Write(dir); err != nil {
					t.Fatal(err)
				}
				f := openViews(t, dir, Options{}, formatViews(c)...)
				for name := range dtypes {
					wantElements(t, f, "hf-"+name, name, c.HF)
					if c.Native != nil {
						wantElements(t, f, "native-"+name, name, c.Native)
					}
				}
			}
		})
	}
}

// wantElements compares a view with the oracle, through io/fs.
func wantElements(t *testing.T, f *FS, dir, dtype string, want []formats.Want) {
	t.Helper()
	got := map[string]synth.Tensor{}
	for _, file := range shardsOf(t, f, dir) {
		data, err := iofs.ReadFile(f, file)
		if err != nil {
			t.Fatal(err)
		}
		cut := cutTensors(t, data)
		tensors, err := tensorsShown(data)
		if err != nil {
			t.Fatal(err)
		}
		for key, x := range tensors {
			got[key] = synth.Tensor{Name: key, DType: x.DType, Shape: x.Shape, Data: cut[key]}
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d tensors, want %d", dir, len(got), len(want))
	}
	for _, w := range want {
		g, ok := got[w.Name]
		x := w.Tensor(dtype)
		switch {
		case !ok:
			t.Errorf("%s: %s: missing", dir, w.Name)
		case g.DType != x.DType || !slices.Equal(g.Shape, x.Shape):
			t.Errorf("%s: %v, want %v", dir, g, x)
		default:
			if i := differs(x.DType, g.Data, x.Data); i >= 0 {
				width := synth.Width(x.DType)
				t.Errorf("%s: %v: element %d is %x, want %x", dir, g, i,
					g.Data[i*width:(i+1)*width], x.Data[i*width:(i+1)*width])
			}
		}
	}
}

// differs gives the first element in which two tensors differ, or −1. All NaN are alike.
func differs(dtype string, got, want []byte) int {
	width := synth.Width(dtype)
	for i := 0; i < len(want); i += width {
		g, w := got[i:i+width], want[i:i+width]
		if !slices.Equal(g, w) && !(isNaN(dtype, g) && isNaN(dtype, w)) {
			return i / width
		}
	}
	return -1
}

func isNaN(dtype string, b []byte) bool {
	switch dtype {
	case "BF16":
		return binary.LittleEndian.Uint16(b)&0x7fff > 0x7f80
	case "F16":
		return binary.LittleEndian.Uint16(b)&0x7fff > 0x7c00
	case "F32":
		return math.IsNaN(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
	}
	return false
}

// A range begins and ends anywhere: inside an element, between two nibbles of a byte, between
// fields of a word.
func TestRangesOfEveryFormatEqualSlicesOfTheWhole(t *testing.T) {
	seed := size.Seeds(t)[0]
	for _, test := range formats.All() {
		t.Run(test.Name, func(t *testing.T) {
			c := test.Make(seed)
			dir := t.TempDir()
			if err := c.Write(dir); err != nil {
				t.Fatal(err)
			}
			all := openViews(t, dir, Options{}, formatViews(c)...)
			for budget, bytes := range budgets() {
				f := openViews(t, dir, Options{CacheSize: bytes, Workers: 2}, formatViews(c)...)
				rng := rand.New(rand.NewPCG(seed, uint64(len(budget))))
				for _, v := range f.views {
					for _, name := range shardsOf(t, f, v.Dir) {
						wantRanges(t, f, name, readTree(t, all, name), rng)
					}
				}
				wantIdle(t, f)
			}
		})
	}
}

// wantRanges reads random ranges of a file.
func wantRanges(t *testing.T, f *FS, name string, whole []byte, rng *rand.Rand) {
	t.Helper()
	file := f.find(name).content.(*file)
	for range size.Count(12, 500) {
		off, n := someRange(rng, file)
		if rng.IntN(2) == 0 {
			n = 1 + rng.IntN(40)
		}
		if err := checkRange(context.Background(), file, whole, off, n); err != nil {
			t.Errorf("%s: budget %d: %v", name, f.options.CacheSize, err)
			return
		}
	}
}
