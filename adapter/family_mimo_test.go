package adapter

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// values multiplies each code by the scale that at gives.
func values(codes synth.Tensor, at func(i, j int64) float32) synth.Tensor {
	want := synth.Tensor{Name: codes.Name, DType: "BF16", Shape: codes.Shape}
	for i := range codes.Shape[0] {
		for j := range codes.Shape[1] {
			want.Data = append(want.Data, synth.Round("BF16",
				synth.E4M3(codes.Data[i*codes.Shape[1]+j])*at(i, j))...)
		}
	}
	return want
}

// random makes a tensor with random data.
func random(rng *rand.Rand, name, dtype string, shape ...int64) synth.Tensor {
	return synth.Tensor{Name: name, DType: dtype, Shape: shape,
		Data: synth.Random(rng, dtype, shape)}
}

// MiMo-V2's fused query, key and value are in shards with separate grids. There are as many shards
// as key-value heads, or as the index's tp_size says. A uniform grid is read as uniform.
func TestMiMoV2ReadsTheGridOfEachShard(t *testing.T) {
	const key, cols = "model.layers.0.self_attn.qkv_proj.weight", 140
	for name, test := range map[string]struct {
		rows, grid int64
		shards     int64 // 0: uniform blocks
		tp         int   // of the index; 0: it does not say
	}{
		"a shard for each head":             {2 * 200, 4, 2, 0},
		"as many rows as uniform blocks":    {2 * 80, 2, 2, 0},
		"shards by the index":               {4 * 150, 8, 4, 4},
		"uniform":                           {2 * 150, 3, 0, 0},
		"shards of whole blocks are either": {2 * 128, 2, 0, 0},
		"as MiMo-V2.6 is published":         {4 * 3392, 4 * 27, 4, 0},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(13, 14))
			codes, scales := random(rng, key, "F8_E4M3", test.rows, cols),
				random(rng, key+"_scale_inv", "F32", test.grid, 2)
			heads := int64(2)
			if test.tp == 0 && test.shards > 0 {
				heads = test.shards
			}
			c := &synth.Checkpoint{
				Config: map[string]any{"model_type": "mimo_v2",
					"num_key_value_heads": heads, "num_attention_heads": 4, "head_dim": 24,
					"quantization_config": map[string]any{"quant_method": "fp8", "weight_block_size": []int{128, 128}}},
				Tensors: []synth.Tensor{codes, scales},
			}
			if test.tp > 0 {
				c.NoIndex = true
				index, err := json.Marshal(map[string]any{
					"metadata":   map[string]any{"tp_size": test.tp},
					"weight_map": map[string]string{key: "model-00001-of-000001.safetensors", key + "_scale_inv": "model-00001-of-000001.safetensors"}})
				if err != nil {
					t.Fatal(err)
				}
				c.Side = map[string][]byte{"model.safetensors.index.json": index}
			}
			want := values(codes, func(i, j int64) float32 {
				row := i / 128
				if test.shards > 0 {
					size := test.rows / test.shards
					row = i/size*(test.grid/test.shards) + i%size/128
				}
				return number32(scales, row*2+j/128)
			})
			equal(t, dict(t, opened(t, c), Options{Layout: "hf"}), []synth.Tensor{want})
		})
	}
}

// Unread metadata may hold a tp_size, so the number of shards is not guessed.
func TestMiMoV2RefusesAnIndexWhoseMetadataIsNotRead(t *testing.T) {
	const key = "model.layers.0.self_attn.qkv_proj.weight"
	rng := rand.New(rand.NewPCG(13, 14))
	index, err := json.Marshal(map[string]any{"metadata": map[string]any{"tp_size": 4,
		"more": strings.Repeat("x", 1<<17)},
		"weight_map": map[string]string{key: "model-00001-of-000001.safetensors", key + "_scale_inv": "model-00001-of-000001.safetensors"}})
	if err != nil {
		t.Fatal(err)
	}
	c := &synth.Checkpoint{
		Config:  map[string]any{"model_type": "mimo_v2", "num_key_value_heads": 2},
		Tensors: []synth.Tensor{random(rng, key, "F8_E4M3", 512, 140), random(rng, key+"_scale_inv", "F32", 4, 2)},
		NoIndex: true, Side: map[string][]byte{indexName: index},
	}
	_, err = NewPlan(opened(t, c), Options{Layout: "hf"})
	if err == nil || !strings.Contains(err.Error(), "tp_size") ||
		!strings.Contains(err.Error(), key) {
		t.Errorf("error %v, want one that names tp_size and %s", err, key)
	}
}

// mimoFlash is a layer of MiMo-V2-Flash with two heads of keys of 192 rows and values of 128.
func mimoFlash(rng *rand.Rand, keyGrid, valueGrid int64) (
	c *synth.Checkpoint, k, ks, v, vs synth.Tensor,
) {
	const p, cols = "model.layers.0.self_attn.", 140
	k, ks = random(rng, p+"k_proj.weight", "F8_E4M3", 2*192, cols),
		random(rng, p+"k_proj.weight_scale_inv", "F32", keyGrid, 2)
	v, vs = random(rng, p+"v_proj.weight", "F8_E4M3", 2*128, cols),
		random(rng, p+"v_proj.weight_scale_inv", "F32", valueGrid, 2)
	return &synth.Checkpoint{
		Config: map[string]any{"model_type": "mimo_v2_flash", "num_key_value_heads": 2,
			"num_attention_heads": 4, "head_dim": 192, "v_head_dim": 128,
			"num_hidden_layers": 1, "n_routed_experts": 2, "quantization_config": map[string]any{"quant_method": "fp8", "weight_block_size": []int{128, 128}}},
		Tensors: []synth.Tensor{k, ks, v, vs},
	}, k, ks, v, vs
}

// Keys and values of a head share a run of blocks if the grid of the keys covers each head
// separately. Three rows of scales cover 320 rows, and two of them belong to the keys.
func TestMiMoV2FlashReadsKeysAndValuesOfAHeadTogether(t *testing.T) {
	c, k, ks, v, vs := mimoFlash(rand.New(rand.NewPCG(15, 16)), 4, 2)
	run := func(head, row, j int64) float32 {
		if b := row / 128; b < 2 {
			return number32(ks, (head*2+b)*2+j/128)
		}
		return number32(vs, head*2+j/128)
	}
	d := dict(t, opened(t, c), Options{Layout: "hf"})
	equal(t, d, []synth.Tensor{
		values(k, func(i, j int64) float32 { return run(i/192, i%192, j) }),
		values(v, func(i, j int64) float32 { return run(i/128, 192+i%128, j) }),
	})
	for _, a := range d.Plan.Account {
		if want := 1; a.Key == ks.Name && len(a.Into) != 2 || a.Key != ks.Name &&
			len(a.Into) != want {
			t.Errorf("%s goes into %v", a.Key, a.Into)
		}
	}
}

func TestMiMoV2FlashReadsUniformAndTallerGridsOfKeys(t *testing.T) {
	for _, grid := range []int64{3, 9} { // as blocks need; taller, but not head by head
		c, k, ks, v, vs := mimoFlash(rand.New(rand.NewPCG(17, 18)), grid, 2)
		blocks := func(s synth.Tensor) func(i, j int64) float32 {
			return func(i, j int64) float32 { return number32(s, i/128*2+j/128) }
		}
		equal(t, dict(t, opened(t, c), Options{Layout: "hf"}),
			[]synth.Tensor{values(k, blocks(ks)), values(v, blocks(vs))})
	}
	c, _, _, _, vs := mimoFlash(rand.New(rand.NewPCG(19, 20)), 4, 3)
	_, err := NewPlan(opened(t, c), Options{Layout: "hf"})
	if err == nil || !strings.Contains(err.Error(), vs.Name) ||
		!strings.Contains(err.Error(), "[2 2]") {
		t.Errorf("error %v, want one that names %s and [2 2]", err, vs.Name)
	}
}

// Slices of a matrix in pieces equal slices of the whole, also at the ends of pieces.
func TestSlicesOfPiecesAreSlicesOfTheWhole(t *testing.T) {
	c, _, _, v, _ := mimoFlash(rand.New(rand.NewPCG(21, 22)), 4, 2)
	d := dict(t, opened(t, c), Options{Layout: "hf"})
	whole, _ := d.Tensor(v.Name)
	all := content(t, whole)
	width := int(2 * v.Shape[1])
	for _, lo := range []int64{0, 63, 64, 127, 128, 190} {
		part, err := whole.Slice(0, lo, lo+5)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(content(t, part), all[int(lo)*width:int(lo+5)*width]) {
			t.Errorf("rows from %d are not those of the whole", lo)
		}
	}
}

// Only the keys tell whether the grid of values continues the grid of the keys.
func TestMiMoV2FlashRefusesValuesWithoutTheirKeys(t *testing.T) {
	c, _, _, v, vs := mimoFlash(rand.New(rand.NewPCG(23, 24)), 4, 2)
	plain := synth.Tensor{Name: "model.layers.0.self_attn.k_proj.weight", DType: "BF16",
		Shape: []int64{2 * 192, 140}, Data: make([]byte, 2*2*192*140)}
	for name, tensors := range map[string][]synth.Tensor{"alone": {v, vs},
		"beside keys in BF16": {plain, v, vs}} {
		c.Tensors = tensors
		_, err := NewPlan(opened(t, c), Options{Layout: "hf"})
		if err == nil || !strings.Contains(err.Error(), v.Name+": ") ||
			!strings.Contains(err.Error(), "k_proj.weight is not there") {
			t.Errorf("%s: error %v, want one about the keys", name, err)
		}
	}
	c.Config["head_dim"] = 128 // keys of whole blocks: nothing is shared
	c.Tensors = []synth.Tensor{v, vs}
	equal(t, dict(t, opened(t, c), Options{Layout: "hf"}),
		[]synth.Tensor{values(v, func(i, j int64) float32 { return number32(vs, i/128*2+j/128) })})
}

// mimoFusedLayer is a layer of MiMo-V2 under an architecture. Its index may give the number of
// shards.
func mimoFusedLayer(t *testing.T, architecture string, tp int, window bool,
	lines string) *synth.Checkpoint {
	s := filled(t, `{"model_type": "mimo_v2", "num_hidden_layers": 1, "num_attention_heads": 8,
		"num_key_value_heads": 2, "head_dim": 20, "v_head_dim": 10, "swa_num_attention_heads": 4,
		"swa_num_key_value_heads": 4, "swa_head_dim": 30, "swa_v_head_dim": 20,
		"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}`, lines)
	s.Config["architectures"] = []any{architecture}
	s.Config["hybrid_layer_pattern"] = []any{map[bool]int{true: 1}[window]}
	if tp > 0 {
		s.NoIndex = true
		files := map[string]string{}
		for _, x := range s.Tensors {
			files[x.Name] = "model-00001-of-000001.safetensors"
		}
		index, err := json.Marshal(map[string]any{"metadata": map[string]any{"tp_size": tp},
			"weight_map": files})
		if err != nil {
			t.Fatal(err)
		}
		s.Side = map[string][]byte{indexName: index}
	}
	return s
}

// Query, key and value of each shard are put together, with the heads of the layer and the scales
// of the shard.
func TestMiMoV2RowsAreInOrder(t *testing.T) {
	const head, cols = "model.layers.0.self_attn.", 140
	for _, test := range []struct {
		architecture string
		tp           int
		window       bool
		shards       int64
		rows         [3]int64 // of query, key and value in a shard
	}{
		{"MiMoV25ForCausalLM", 0, false, 2, [3]int64{80, 20, 10}},
		{"MiMoV25ForCausalLM", 0, true, 2, [3]int64{60, 60, 40}},
		{"MiMoV25ForCausalLM", 2, false, 2, [3]int64{80, 20, 10}},
		{"MiMoV2ForCausalLM", 2, false, 2, [3]int64{80, 20, 10}},
		{"MiMoV2ForCausalLM", 2, true, 2, [3]int64{60, 60, 40}},
		{"MiMoV2ForCausalLM", 1, true, 1, [3]int64{120, 120, 80}},
	} {
		size := total(test.rows[:])
		grid := ceilDiv(size, 128)
		s := mimoFusedLayer(t, test.architecture, test.tp, test.window, fmt.Sprintf(
			"%sqkv_proj.weight F8_E4M3 %d %d\n%sqkv_proj.weight_scale_inv F32 %d 2",
			head, test.shards*size, cols, head, test.shards*grid))
		codes := elements(t, s, head+"qkv_proj.weight")
		scales := elements(t, s, head+"qkv_proj.weight_scale_inv")
		var parts []synth.Tensor
		lo := int64(0)
		for i, rows := range test.rows {
			from := lo
			parts = append(parts, byElement(head+string("qkv"[i])+"_proj.weight", "BF16",
				[]int64{test.shards * rows, cols}, func(i []int64) float32 {
					shard, row := i[0]/rows, from+i[0]%rows
					return codes(shard*size+row, i[1]) * scales(shard*grid+row/128, i[1]/128)
				}))
			lo += rows
		}
		if test.architecture == "MiMoV25ForCausalLM" {
			whole := synth.Tensor{Name: head + "qkv_proj.weight", DType: "BF16",
				Shape: []int64{test.shards * size, cols}}
			for _, x := range parts {
				whole.Data = append(whole.Data, x.Data...)
			}
			parts = []synth.Tensor{whole}
		}
		c := opened(t, s)
		equal(t, dict(t, c, Options{Layout: LayoutNative}), parts)

		equal(t, dict(t, c, Options{Layout: LayoutHFFP8}), s.Tensors)

		// A save of layout hf has an index that says how its rows lie.
		d := dict(t, c, Options{Layout: LayoutHF})
		if got := int64(d.Plan.TensorParallel); got != test.shards {
			t.Errorf("%v: tp_size %d of layout hf, want %d", test, got, test.shards)
		}
		saved := mimoFusedLayer(t, test.architecture, int(test.shards), test.window,
			fmt.Sprintf("%sqkv_proj.weight BF16 %d %d", head, test.shards*size, cols))
		saved.Tensors = tensorsOf(t, d)
		delete(saved.Config, "quantization_config")
		equal(t, dict(t, opened(t, saved), Options{Layout: LayoutNative}), parts)
	}
}

// The reference saves V2.5 in BF16 with its rows in order, and V2.6 with query, key and value
// apart.
func TestMiMoV2SavesOfTheReference(t *testing.T) {
	s := mimoFusedLayer(t, "MiMoV25ForCausalLM", 0, false,
		"model.layers.0.self_attn.qkv_proj.weight BF16 220 6")
	equal(t, dict(t, opened(t, s), Options{Layout: LayoutNative}), s.Tensors)
	s = mimoFusedLayer(t, "MiMoV2ForCausalLM", 0, false,
		"model.layers.0.self_attn.{q_proj,k_proj,v_proj}.weight BF16 40 6")
	equal(t, dict(t, opened(t, s), Options{Layout: LayoutNative}), s.Tensors)
}

func TestMiMoV2RefusesRowsThatItCannotPlace(t *testing.T) {
	const key = "model.layers.0.self_attn.qkv_proj.weight"
	layer := func(architecture string, tp, rows, grid int) *synth.Checkpoint {
		return mimoFusedLayer(t, architecture, tp, false, fmt.Sprintf(
			"%s F8_E4M3 %d 140\n%s_scale_inv F32 %d 2", key, rows, key, grid))
	}
	// The grid is that of two shards, but the index has no tp_size.
	wantRefused(t, layer("MiMoV2ForCausalLM", 0, 440, 4), LayoutNative, key, "1 shards", "tp_size")
	wantRefused(t, layer("MiMoV2ForCausalLM", 0, 222, 2), LayoutNative, key, "1 shards", "tp_size")
	wantRefused(t, layer("MiMoV2ForCausalLM", 2, 222, 2), LayoutNative, key, "[222 140]",
		"2 shards")
	wantRefused(t, layer("MiMoV2ForCausalLM", 3, 330, 3), LayoutNative, key, "8 heads", "3 shards")
	wantRefused(t, layer("MiMoV25ForCausalLM", 4, 220, 4), LayoutNative, key, "2 shards",
		"num_key_value_heads")

	s := layer("MiMoV25ForCausalLM", 0, 220, 2)
	s.Config["hybrid_layer_pattern"] = []any{}
	wantRefused(t, s, LayoutNative, key, "hybrid_layer_pattern is []")
	s.Config["hybrid_layer_pattern"] = []any{"full"}
	wantRefused(t, s, LayoutNative, key, "hybrid_layer_pattern is [\"full\"]")
	s.Config["hybrid_layer_pattern"] = []any{1}
	delete(s.Config, "swa_head_dim")
	wantRefused(t, s, LayoutNative, key, "swa_head_dim is missing")
	s = layer("Other", 0, 220, 2)
	wantRefused(t, s, LayoutNative, "mimo_v2", "no layout native")
	mustTensor(t, dict(t, opened(t, s), Options{Layout: LayoutHF}), key)
}
