package adapter

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/inmemory"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// disorder is a checkpoint whose parts can be shuffled without a change of meaning. Groups of its
// configuration overlap, and two files describe its quantization.
type disorder struct {
	config, beside map[string]any
	tensors        []synth.Tensor
}

// overlapping is a compressed-tensors configuration in which several groups match the same weights,
// and layers of ModelOpt in a file beside it.
func overlapping() (config, beside map[string]any) {
	group := func(weights map[string]any, targets ...any) map[string]any {
		return map[string]any{"targets": targets, "weights": weights}
	}
	config = map[string]any{
		"quant_method": "compressed-tensors",
		"ignore":       []any{"lm_head", "re:.*norm", "model.layers.0.extra.ignored"},
		"config_groups": map[string]any{
			"rows":   group(map[string]any{"strategy": "channel"}, "Linear", "re:.*rows"),
			"blocks": group(map[string]any{"strategy": "block", "block_structure": []any{128, 128}}, "re:.*_proj", "re:.*both", "re:.*kv_a_proj_with_mqa"),
			"small":  group(map[string]any{"strategy": "block", "block_structure": []any{64, 64}}, "re:.*small", "re:.*both", "model.layers.0.extra.named"),
			"groups": group(map[string]any{"strategy": "group", "group_size": 64}, "re:.*square", "re:.*both"),
			"int4":   group(map[string]any{"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}, "re:.*"),
		},
	}
	beside = map[string]any{"quantization": map[string]any{
		"quant_algo": "MIXED_PRECISION",
		"quantized_layers": map[string]any{
			"model.layers.0.extra.mx":     map[string]any{"quant_algo": "MXFP8", "group_size": 32},
			"model.layers.0.extra":        map[string]any{"quant_algo": "FP8"},
			"model.layers.*.extra.square": map[string]any{"quant_algo": "FP8_PB_WO", "group_size": 128},
		},
	}}
	return config, beside
}

// disordered makes the checkpoint: a small DeepSeek-V3 with weights of every partition and
// leftovers.
func disordered() *disorder {
	s := synth.DeepSeek(synth.Options{Layers: 2, Experts: 2, MTP: 1, Hidden: 140,
		ExpertIntermediate: 30, DenseIntermediate: 40, Heads: 1, QRank: 30, Vocab: 10, Shards: 3})
	d := &disorder{config: s.Config, tensors: s.Tensors}
	d.config["quantization_config"], d.beside = overlapping()
	rng := rand.New(rand.NewPCG(1, 15))
	add := func(name, dtype string, shape ...int64) {
		d.tensors = append(d.tensors, synth.Tensor{Name: "model.layers.0." + name, DType: dtype,
			Shape: shape, Data: synth.Random(rng, dtype, shape), Shard: rng.IntN(3)})
	}
	for _, w := range []struct {
		name         string
		shape, scale []int64
	}{
		{"small", []int64{130, 70}, []int64{3, 2}}, {"named", []int64{130, 70}, []int64{3, 2}}, {"both", []int64{130, 70}, []int64{2, 1}},
		{"two.both", []int64{130, 70}, []int64{130, 2}}, {"rows", []int64{96, 64}, []int64{96, 1}}, {"square", []int64{64, 64}, []int64{64, 1}},
		{"mx", []int64{40, 70}, []int64{40, 3}}, {"ignored", []int64{130, 70}, []int64{2, 1}}, {"stack", []int64{2, 130, 30}, []int64{2, 2, 1}},
	} {
		add("extra."+w.name+".weight", "F8_E4M3", w.shape...)
		add("extra."+w.name+".weight_scale", "F32", w.scale...)
		add("extra."+w.name+".input_scale", "F32")
	}
	add("extra.rows.bias", "BF16", 96)
	add("extra.rows.strange", "BF16", 3)
	add("extra.small.stranger", "BF16", 3)
	add("self_attn.k_scale", "F32", 1)
	add("extra.table.shard_0.weight", "F8_E4M3", 10, 6)
	add("extra.table.shard_1.weight", "F8_E4M3", 10, 6)
	add("extra.table.weight_scale", "F32", 1)
	return d
}

// shuffled gives the elements in another order; nil as the source of chance leaves them.
func shuffled[T any](rng *rand.Rand, all []T) []T {
	all = slices.Clone(all)
	if rng != nil {
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	return all
}

// shuffledJSON writes a value with the members of objects, and the names in lists, in another
// order.
func shuffledJSON(rng *rand.Rand, v any) []byte {
	switch v := v.(type) {
	case map[string]any:
		var members []string
		for _, k := range shuffled(rng, slices.Sorted(maps.Keys(v))) {
			members = append(members, fmt.Sprintf("%q: %s", k, shuffledJSON(rng, v[k])))
		}
		return []byte("{" + strings.Join(members, ", ") + "}")
	case []any:
		if _, names := v[0].(string); names {
			v = shuffled(rng, v)
		}
		b, _ := json.Marshal(v)
		return b
	}
	b, _ := json.Marshal(v)
	return b
}

// renamed gives the groups of a configuration other names, which sort in another order.
func renamed(rng *rand.Rand, config map[string]any) map[string]any {
	config = maps.Clone(config)
	q := maps.Clone(config["quantization_config"].(map[string]any))
	config["quantization_config"] = q
	groups := map[string]any{}
	all := q["config_groups"].(map[string]any)
	for i, k := range shuffled(rng, slices.Sorted(maps.Keys(all))) {
		groups[fmt.Sprintf("group_%d", i)] = all[k]
	}
	q["config_groups"] = groups
	return config
}

// write writes the checkpoint in an order of rng; nil: in its own.
func (d *disorder) write(t *testing.T, rng *rand.Rand) string {
	t.Helper()
	dir := inmemory.Dir(t)
	files := map[string][]byte{"config.json": shuffledJSON(rng, d.config),
		"hf_quant_config.json": shuffledJSON(rng, d.beside)}
	if rng != nil {
		files["config.json"] = shuffledJSON(rng, renamed(rng, d.config))
	}
	shards := [3][]synth.Tensor{}
	for _, x := range shuffled(rng, d.tensors) {
		if rng != nil {
			x.Shard = rng.IntN(len(shards))
		}
		shards[x.Shard] = append(shards[x.Shard], x)
	}
	weightMap := map[string]any{}
	for i, ts := range shards {
		name := fmt.Sprintf("model-%05d-of-00003.safetensors", i+1)
		files[name] = container(ts)
		for _, x := range ts {
			weightMap[x.Name] = name
		}
	}
	files["model.safetensors.index.json"] = shuffledJSON(rng,
		map[string]any{"weight_map": weightMap})
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// container is a safetensors file with the tensors in this order.
func container(ts []synth.Tensor) []byte {
	var members []string
	var data []byte
	for _, x := range ts {
		end := len(data) + len(x.Data)
		shape := strings.ReplaceAll(fmt.Sprint(x.Shape), " ", ",")
		members = append(members, fmt.Sprintf(`%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`,
			x.Name, x.DType, shape, len(data), end))
		data = append(data, x.Data...)
	}
	head := "{" + strings.Join(members, ",") + "}"
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...),
		data...)
}

// shardName is what shuffling changes in any message.
var shardName = regexp.MustCompile(`model-\d+-of-\d+\.safetensors`)

// told is all that is said of a checkpoint: views, accounts, notes, summary and errors. In any
// order if sorted is set. With bytes, the values too.
func told(t *testing.T, dir string, sorted, bytes bool) string {
	t.Helper()
	c, err := Open(t.Context(), dir, OpenOptions{})
	if err != nil {
		return strings.ReplaceAll(err.Error(), dir, "SOURCE")
	}
	defer c.Close()
	var all []string
	line := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	counts, err := Summary(c)
	line("summary %v %v", counts, err)
	for _, layout := range Layouts(c) {
		d, err := FromHF(c, Options{Layout: layout})
		if err != nil {
			line("%s: error: %v", layout, err)
			continue
		}
		for i, x := range d.Plan.Tensors {
			line("%s: %s [%s] %v %v = %s", layout, x.Name, x.Group, x.Node.DType(), x.Node.Shape(),
				x.Node)
			if bytes {
				line("%s: %s: %x", layout, x.Name, content(t, d.lazy(i)))
			}
		}
		for _, a := range d.Plan.Account {
			into := a.Into
			if sorted {
				into = slices.Sorted(slices.Values(into))
			}
			line("%s: %s %v %q into %v", layout, a.Key, a.Fate, a.Reason, into)
		}
		for _, n := range d.Plan.Notes {
			line("%s: note: %s", layout, n)
		}
		if !sorted {
			line("%s: config: %s", layout, d.Plan.Config)
		}
	}
	if sorted {
		slices.Sort(all)
		return shardName.ReplaceAllString(strings.Join(all, "\n"), "SHARD")
	}
	return strings.Join(all, "\n")
}

// faults each make the checkpoint one that is refused.
var faults = map[string]func(d *disorder, add func(name, dtype string, shape ...int64)){
	"too small a grid": func(d *disorder, add func(string, string, ...int64)) {
		add("model.layers.0.extra.none.both.weight", "F8_E4M3", 300, 300)
		add("model.layers.0.extra.none.both.weight_scale", "F32", 2, 2)
	},
	"rows or columns": func(d *disorder, add func(string, string, ...int64)) {
		add("model.layers.0.extra.tie.weight", "F8_E4M3", 2, 30, 30)
		add("model.layers.0.extra.tie.weight_scale", "F32", 2, 30)
	},
	"larger than either grid": func(d *disorder, add func(string, string, ...int64)) {
		add("model.layers.0.extra.large.both.weight", "F8_E4M3", 300, 300)
		add("model.layers.0.extra.large.both.weight_scale", "F32", 12, 12)
	},
	"a second scale": func(d *disorder, add func(string, string, ...int64)) {
		add("model.layers.0.extra.rows.weight_scale_inv", "F32", 96, 1)
	},
	"a dtype that is not of scales": func(d *disorder, add func(string, string, ...int64)) {
		add("model.layers.0.extra.int.weight", "F8_E4M3", 30, 30)
		add("model.layers.0.extra.int.weight_scale", "I32", 30, 1)
	},
	"scales without a weight": func(d *disorder, add func(string, string, ...int64)) {
		add("model.layers.0.extra.gone.weight_scale", "F32", 3, 3)
	},
}

// with makes the checkpoint with some faults.
func (d *disorder) with(names ...string) *disorder {
	bad := &disorder{config: d.config, beside: d.beside, tensors: slices.Clone(d.tensors)}
	rng := rand.New(rand.NewPCG(2, 15))
	for _, name := range names {
		faults[name](bad, func(name, dtype string, shape ...int64) {
			bad.tensors = append(bad.tensors, synth.Tensor{Name: name, DType: dtype, Shape: shape,
				Data: synth.Random(rng, dtype, shape)})
		})
	}
	return bad
}

// lacking makes the checkpoint without some of its tensors.
func (d *disorder) lacking(pattern string) *disorder {
	s := &synth.Checkpoint{Tensors: slices.Clone(d.tensors)}
	without(s, pattern)
	return &disorder{d.config, d.beside, s.Tensors}
}

// malformed has a configuration with several errors.
func malformed() *disorder {
	d := disordered()
	q := d.config["quantization_config"].(map[string]any)
	for i := range 5 {
		weights := map[string]any{"strategy": "block", "block_structure": []any{i, -i}}
		groups := q["config_groups"].(map[string]any)
		groups[fmt.Sprint("bad", i)] = map[string]any{"weights": weights}
	}
	return d
}

// The same source gives the same plans, word for word, however often it is opened. In another order
// it gives the same views, or one of the errors that it has.
func TestPlansDoNotDependOnOrder(t *testing.T) {
	t.Parallel()
	d := disordered()
	names := slices.Sorted(maps.Keys(faults))
	t.Run("again", func(t *testing.T) {
		for _, x := range []*disorder{d, d.with(names...), d.lacking(`experts\.1\.(up|down)_proj`),
			d.lacking(`_proj\.weight_scale_inv$`), malformed()} {
			dir := x.write(t, nil)
			want := told(t, dir, false, false)
			for i := range 50 {
				if got := told(t, dir, false, false); got != want {
					t.Fatalf("the source opened again, %d: %s", i, firstLine(got, want))
				}
			}
		}
	})
	t.Run("shuffled", func(t *testing.T) {
		want := told(t, d.write(t, nil), true, true)
		if strings.Contains(want, ": error: ") || !strings.Contains(want, ": note: ") ||
			!strings.Contains(want, "dropped") {
			t.Fatalf("the source is to have notes and leftovers, and no errors: %.2000s", want)
		}
		for seed := range uint64(20) {
			got := told(t, d.write(t, rand.New(rand.NewPCG(seed, 16))), true, true)
			if got != want {
				t.Fatalf("shuffled with seed %d: %s", seed, firstLine(got, want))
			}
		}
	})
	t.Run("shuffled errors", func(t *testing.T) {
		alone := map[string]bool{}
		for _, name := range names {
			said := told(t, d.with(name).write(t, nil), true, false)
			if !strings.Contains(said, ": error: ") {
				t.Errorf("%s: no error", name)
			}
			alone[said] = true
		}
		met := map[string]bool{}
		for seed := range uint64(40) {
			got := told(t, d.with(names...).write(t, rand.New(rand.NewPCG(seed, 17))), true, false)
			if met[got] = true; !alone[got] {
				t.Fatalf("shuffled with seed %d: %s\nis none of the errors of the faults alone",
					seed, got)
			}
		}
		if len(met) < 3 {
			t.Errorf("%d errors came first, expected more", len(met))
		}
	})
}

// firstLine gives the first line that differs.
func firstLine(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("\n got %.1000s\nwant %.1000s", a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(a), len(b))
}
