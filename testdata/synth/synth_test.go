package synth

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestFullSizeHasThePublishedCounts(t *testing.T) {
	f := NewFull()
	total := int64(0)
	for i := range f.Tensors {
		total += f.Tensors[i].Size()
	}
	if len(f.Tensors) != 91_991 || f.Shards() != 163 || total/1e9 != 688 {
		t.Errorf("%d tensors, %d shards, %d bytes", len(f.Tensors), f.Shards(), total)
	}
}

func TestSeedsReachBeyondEachPowerOfTwo(t *testing.T) {
	beyond := map[int64]int{}
	for _, s := range NewFull().Seeds {
		for _, limit := range []int64{1 << 31, 1 << 32, 1 << 33} {
			if 2*s.NativeIndex >= limit {
				beyond[limit]++
			}
		}
		if s.Scale == 1 || s.Code&0x7f == 0 || s.Code&0x7f == 0x7f {
			t.Fatalf("seed %+v", s)
		}
	}
	for limit, n := range beyond {
		if n < 100 {
			t.Errorf("%d seeds beyond %d", n, limit)
		}
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	o := Options{Seed: 7, Experts: 12, Hidden: 200, ExpertIntermediate: 100, Shards: 3,
		ScalesApart: true, MTP: 1}
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := DeepSeek(o).Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	names, _ := filepath.Glob(filepath.Join(a, "*"))
	if len(names) != 7 {
		t.Errorf("files: %v", names)
	}
	for _, name := range names {
		x, _ := os.ReadFile(name)
		y, err := os.ReadFile(filepath.Join(b, filepath.Base(name)))
		if err != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs: %v", filepath.Base(name), err)
		}
	}
}

func TestRoundAgainstNeighbours(t *testing.T) {
	for _, tc := range []struct {
		dtype string
		f     float32
		want  uint16
	}{
		{"BF16", 1, 0x3f80}, {"BF16", 0, 0}, {"BF16", float32(math.Copysign(0, -1)), 0x8000},
		{"BF16", 1 + 1.0/256, 0x3f80}, {"BF16", 1 + 3.0/256, 0x3f82}, {"BF16", 1 + 1.0/255, 0x3f81},
		{"BF16", math.MaxFloat32, 0x7f80}, {"BF16", 0x1p-133, 1}, {"BF16", 0x1p-134, 0}, {"BF16", 0x1.8p-134, 1},
		{"F16", 65504, 0x7bff}, {"F16", 65520, 0x7c00}, {"F16", 65519, 0x7bff}, {"F16", 0x1p-24, 1}, {"F16", 0x1p-25, 0},
		{"F16", 0x1p-14, 0x0400}, {"F16", -2, 0xc000}, {"F16", float32(math.Inf(-1)), 0xfc00},
	} {
		if got := round16(tc.dtype, tc.f); got != tc.want {
			t.Errorf("%s of %g: %#04x, want %#04x", tc.dtype, tc.f, got, tc.want)
		}
	}
}

// The oracle is itself held against the outputs of the reference.
func TestOracleEqualsTheReference(t *testing.T) {
	c := readSingle(t, "../golden/aligned-hf.safetensors")
	var golden map[string]map[string][3]any
	data, err := os.ReadFile("../golden/aligned-native-sha256.json")
	if err != nil || json.Unmarshal(data, &golden) != nil {
		t.Fatal(err)
	}
	for dtype, key := range map[string]string{"BF16": "torch.bfloat16/cpu",
		"F16": "torch.float16/cpu", "F32": "torch.float32/cpu"} {
		got := c.Native(dtype, 0, 1)
		if len(got) != len(golden[key]) {
			t.Errorf("%s: %d tensors, want %d", key, len(got), len(golden[key]))
		}
		for _, x := range got {
			sum := sha256.Sum256(x.Data)
			if want := golden[key][x.Name][2]; hex.EncodeToString(sum[:]) != want {
				t.Errorf("%s %s: %x, want %v", key, x, sum, want)
			}
		}
	}
}

// readSingle reads one file into a checkpoint with blocks of 128×128.
func readSingle(t *testing.T, path string) *Checkpoint {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := int(data[0]) | int(data[1])<<8 | int(data[2])<<16
	var entries map[string]struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(data[8:8+n], &entries); err != nil {
		t.Fatal(err)
	}
	c := &Checkpoint{block: [2]int64{128, 128}}
	body := data[8+n:]
	for name, e := range entries {
		if name != "__metadata__" {
			c.Tensors = append(c.Tensors,
				Tensor{name, e.DType, e.Shape, body[e.Offsets[0]:e.Offsets[1]], 0})
		}
	}
	return c
}
