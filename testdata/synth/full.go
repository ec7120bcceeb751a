package synth

import (
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"strings"
)

// Full is a written checkpoint of the full size of DeepSeek-V3.
type Full struct {
	*Checkpoint
	Seeds []Seed
}

// Seed is one element of a quantized weight that is not zero.
//
// Code and scale follow from the key alone. With h(key, n) the finalizer of splitmix64
// over FNV-1a-64(key) + n·0x9E3779B97F4A7C15, and n the row-major index,
//
//	code  = (1 + h % 126) | (h >> 63) << 7              of the weight's key
//	scale = float32 of bits (119 + (h>>32)%8)<<23 | h&0x7FFFFF   of the scale's key
//
// so no code is zero or NaN and no scale is 1. Everything else in the files is a hole.
type Seed struct {
	Key      string // of the weight
	Row, Col int64
	Index    int64 // row-major, in the weight and so in the hf view
	Code     byte
	Scale    float32

	// Where from_hf puts it: the merged tensor's name and the row-major index in it;
	// the weight's own for tensors that are not merged.
	Native      string
	NativeIndex int64
	Layer       int
}

// Value is the product, rounded once; round it to the view's dtype with [Round].
func (s Seed) Value() float32 { return float32(E4M3(s.Code) * s.Scale) }

func hash(key string, n int64) uint64 {
	f := fnv.New64a()
	f.Write([]byte(key))
	z := f.Sum64() + uint64(n)*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

func seedCode(key string, n int64) byte {
	h := hash(key, n)
	return byte(1+h%126) | byte(h>>63)<<7
}

func seedScale(key string, n int64) float32 {
	h := hash(key, n)
	return math.Float32frombits(uint32(119+(h>>32)%8)<<23 | uint32(h)&0x7FFFFF)
}

// fullOptions are the published model's sizes.
func fullOptions() Options {
	return Options{
		Layers: 61, Dense: 3, MTP: 1, Experts: 256, Hidden: 7168,
		ExpertIntermediate: 2048, DenseIntermediate: 18432,
		Heads: 128, QRank: 1536, KVRank: 512, Nope: 128, Rope: 64, VHead: 128, Vocab: 129280,
		Shards: 163,
	}.withDefaults()
}

// NewFull describes the checkpoint, 91,991 tensors in 163 shards, without writing it.
func NewFull() *Full {
	o := fullOptions()
	c := Holes(o)
	c.Side = map[string][]byte{"tokenizer_config.json": []byte("{\"model_max_length\": 131072}\n")}
	c.Config["max_position_embeddings"] = 163840
	c.Config["num_experts_per_tok"], c.Config["n_group"], c.Config["topk_group"] = 8, 8, 4
	f := &Full{Checkpoint: c}
	f.seed(o)
	return f
}

// Holes describes a checkpoint of any size whose data are holes, in shards of about the same size.
func Holes(o Options) *Checkpoint {
	o = o.withDefaults()
	c := &Checkpoint{Config: o.config(), block: o.Block}
	specs := o.specs()
	total, done := int64(0), int64(0)
	for _, s := range specs {
		total += s.size()
	}
	for _, s := range specs {
		shard := int(done * int64(o.Shards) / total)
		done += s.size()
		dtype := s.dtype
		if s.quantized {
			dtype = "F8_E4M3"
			grid := []int64{(s.shape[0] + 127) / 128, (s.shape[1] + 127) / 128}
			c.Tensors = append(c.Tensors, Tensor{s.name + "_scale_inv", "F32", grid, nil, shard})
		}
		c.Tensors = append(c.Tensors, Tensor{s.name, dtype, s.shape, nil, shard})
	}
	return c
}

func (s spec) size() int64 {
	n := int64(2)
	if s.quantized {
		n = 1
	}
	for _, d := range s.shape {
		n *= d
	}
	return n
}

// WriteFull writes the checkpoint into dir: a few seconds, 689 GB apparent, some
// dozens of MB on a disk that has holes.
func WriteFull(dir string) (*Full, error) {
	f := NewFull()
	if err := f.Write(dir); err != nil {
		return nil, err
	}
	files := map[string]*os.File{}
	defer func() {
		for _, file := range files {
			file.Close()
		}
	}()
	write := func(key string, index int64, b []byte) error {
		p := f.places[key]
		if files[p.file] == nil {
			file, err := os.OpenFile(p.file, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			files[p.file] = file
		}
		_, err := files[p.file].WriteAt(b, p.offset+index*int64(len(b)))
		return err
	}
	grids := f.grids()
	for _, s := range f.Seeds {
		if err := write(s.Key, s.Index, []byte{s.Code}); err != nil {
			return nil, err
		}
		block := s.Row/128*grids[s.Key] + s.Col/128
		if err := write(s.Key+"_scale_inv", block, Round("F32", s.Scale)); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// grids gives, for each quantized weight, the columns of its scale grid.
func (f *Full) grids() map[string]int64 {
	out := map[string]int64{}
	for i := range f.Tensors {
		t := &f.Tensors[i]
		if key, ok := strings.CutSuffix(t.Name, "_scale_inv"); ok {
			out[key] = t.Shape[1]
		}
	}
	return out
}

// seed chooses the positions of every layer: in each merged tensor the first, the
// last, 64 random ones and those on both sides of the byte offsets 2^31, 2^32 and
// 2^33 in BF16 and F32; in every other quantized weight the first and the last.
func (f *Full) seed(o Options) {
	for _, s := range o.specs() {
		if !s.quantized || strings.Contains(s.name, ".experts.") {
			continue
		}
		layer := -1
		fmt.Sscanf(s.name, "model.layers.%d.", &layer)
		n := s.shape[0] * s.shape[1]
		for _, i := range []int64{0, n - 1} {
			f.add(Seed{Key: s.name, Row: i / s.shape[1], Col: i % s.shape[1], Native: s.name,
				NativeIndex: i, Layer: layer}, s.shape[1])
		}
	}
	for layer := o.Dense; layer < o.Layers+o.MTP; layer++ {
		p := fmt.Sprintf("model.layers.%d.mlp.experts.", layer)
		inner, hidden := o.ExpertIntermediate, o.Hidden
		for _, i := range positions(p+"gate_and_up_projs", int64(o.Experts)*hidden*2*inner) {
			e, d, j := i/(hidden*2*inner), i/(2*inner)%hidden, i%(2*inner)
			name := "gate_proj"
			if j >= inner {
				name = "up_proj"
			}
			f.add(Seed{
				Key: fmt.Sprintf("%s%d.%s.weight", p, e, name), Row: j % inner, Col: d,
				Native: p + "gate_and_up_projs", NativeIndex: i, Layer: layer,
			}, hidden)
		}
		for _, i := range positions(p+"down_projs", int64(o.Experts)*inner*hidden) {
			e, j, d := i/(inner*hidden), i/hidden%inner, i%hidden
			f.add(Seed{
				Key: fmt.Sprintf("%s%d.down_proj.weight", p, e), Row: d, Col: j,
				Native: p + "down_projs", NativeIndex: i, Layer: layer,
			}, inner)
		}
	}
}

// positions are row-major indices into a merged tensor of n elements.
func positions(name string, n int64) []int64 {
	out := []int64{0, n - 1}
	for k := range int64(64) {
		out = append(out, int64(hash(name, k)%uint64(n)))
	}
	for _, bytes := range []int64{1 << 31, 1 << 32, 1 << 33} {
		for _, width := range []int64{2, 4} {
			if i := bytes / width; i < n {
				out = append(out, i-1, i)
			}
		}
	}
	return out
}

// add completes a seed from its key and position; cols is the weight's width.
func (f *Full) add(s Seed, cols int64) {
	s.Index = s.Row*cols + s.Col
	s.Code = seedCode(s.Key, s.Index)
	s.Scale = seedScale(s.Key+"_scale_inv", s.Row/128*((cols+127)/128)+s.Col/128)
	f.Seeds = append(f.Seeds, s)
}
