package adapter

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/inmemory"
	"github.com/dequantfs/dequantfs/testdata/steady"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

const refusedGolden = "../testdata/partitions/refused.txt"

// tableWeights are the shapes of the table. Many have two partitions with the same grid: they are
// narrow, square, or of one block.
var tableWeights = []*tableWeight{
	{key: "x.weight", shape: []int64{130, 140}},
	{key: "x.weight", shape: []int64{200, 70}},
	{key: "x.weight", shape: []int64{257, 30}},
	{key: "x.weight", shape: []int64{9, 513}},
	{key: "x.weight", shape: []int64{5, 1030}},
	{key: "x.weight", shape: []int64{150, 150}},
	{key: "x.weight", shape: []int64{128, 128}},
	{key: "x.weight", shape: []int64{96, 96}},
	{key: "x.weight", shape: []int64{64, 64}},
	{key: "x.weight", shape: []int64{32, 32}},
	{key: "x.weight", shape: []int64{33, 40}},
	{key: "x.weight", shape: []int64{2, 200}},
	{key: "x.weight", shape: []int64{1, 200}},
	{key: "x.weight", shape: []int64{200, 1}},
	{key: "x.weight", shape: []int64{2, 2}},
	{key: "x.weight", shape: []int64{1, 1}},

	{key: "x.weight", shape: []int64{2, 130, 140}},
	{key: "x.weight", shape: []int64{3, 40, 50}},
	{key: "x.weight", shape: []int64{2, 48, 48}},
	{key: "x.weight", shape: []int64{4, 4, 4}},
	{key: "x.weight", shape: []int64{2, 2, 2}},
	{key: "x.weight", shape: []int64{3, 1, 200}},
	{key: "x.weight", shape: []int64{2, 150, 1}},
	{key: "x.weight", shape: []int64{1, 70, 40}},
	{key: "experts.down_proj", shape: []int64{3, 70, 40}},

	fusedWeight("gate_up_proj.weight", 2, 100, 100),
	fusedWeight("gate_up_proj.weight", 100, 100, 100),
	fusedWeight("gate_up_proj.weight", 40, 136, 136),
	fusedWeight("gate_up_proj.weight", 130, 80, 80),
	fusedWeight("gate_up_proj.weight", 64, 128, 128),
	fusedWeight("gate_up_proj.weight", 64, 32, 32),
	fusedWeight("gate_up_proj.weight", 300, 1, 1),
	fusedWeight("qkv_proj.weight", 70, 200, 50, 50),
	fusedWeight("qkv_proj.weight", 33, 128, 128, 128),
	{key: "experts.gate_up_proj", shape: []int64{2, 200, 20}, parts: []int64{100, 100}, given: true, settings: map[string]any{"moe_intermediate_size": 100}},

	// Without sizes in the configuration, only the name says that a matrix has two halves. In a
	// stack, gate and up may also be columns.
	{key: "gate_up_proj.weight", shape: []int64{200, 100}, parts: []int64{100, 100}},
	{key: "gate_up_proj.weight", shape: []int64{272, 40}, parts: []int64{136, 136}},
	{key: "gate_up_proj.weight", shape: []int64{256, 64}, parts: []int64{128, 128}},
	{key: "gate_up_proj.weight", shape: []int64{201, 64}},
	{key: "experts.gate_up_proj", shape: []int64{2, 200, 20}},
	{key: "qkv_proj.weight", shape: []int64{300, 70}},

	{key: "x.weight", shape: []int64{300}},
	{key: "x.weight", shape: []int64{8, 3, 5, 5}},
	{key: "x.weight", shape: []int64{1, 3, 2, 2}},

	{key: "x.weight", shape: []int64{130, 140}, family: "deepseek_v3"},
	{key: "x.weight", shape: []int64{260, 140}, family: "deepseek_v3"},
	{key: "x.weight", shape: []int64{200, 70}, family: "deepseek_v3"},
	{key: "x.weight", shape: []int64{64, 64}, family: "deepseek_v3"},
	{key: "x.weight", shape: []int64{2, 130, 40}, family: "deepseek_v3"},
}

// fusedWeight returns a matrix of two or three parts whose rows config.json gives.
func fusedWeight(key string, cols int64, parts ...int64) *tableWeight {
	w := &tableWeight{key: key, shape: []int64{0, cols}, parts: parts, given: true}
	for _, n := range parts {
		w.shape[0] += n
	}
	if w.settings = map[string]any{"intermediate_size": parts[0]}; len(parts) == 3 {
		w.settings = map[string]any{"num_attention_heads": parts[0] / 2,
			"num_key_value_heads": parts[1] / 2, "head_dim": 2}
	}
	return w
}

// describe names a weight in the golden file.
func (w *tableWeight) describe() string {
	s := fmt.Sprintf("%s %v", w.key, w.shape)
	if w.given {
		s += fmt.Sprintf(" of parts %v", w.parts)
	}
	if w.family != "" {
		s = w.family + " " + s
	}
	return s
}

// tableConfig is a configuration of the table.
type tableConfig struct {
	name   string
	config any // quantization_config, or nil
	beside any // hf_quant_config.json, or nil
	words
}

// fields is a shorter name of its type.
type fields = map[string]any

// groups returns a compressed-tensors configuration with one group for each description of weights.
func groups(weights ...fields) fields {
	all := fields{}
	for i, w := range weights {
		w["num_bits"], w["type"] = 8, "float"
		all[fmt.Sprintf("group_%d", i)] = fields{"targets": []string{"Linear"}, "weights": w}
	}
	return fields{"quant_method": "compressed-tensors", "config_groups": all,
		"ignore": []string{"lm_head"}}
}

// tableConfigs returns all configurations: those without a word about scales, and every description
// of each partition.
func tableConfigs() []tableConfig {
	all := []tableConfig{
		{name: "none"},
		{name: "fp8", config: fields{"quant_method": "fp8", "activation_scheme": "dynamic"}},
		{name: "ModelOpt blocks", config: fields{"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}},
		{name: "group for others", config: fields{"quant_method": "compressed-tensors",
			"config_groups": fields{
				"a": fields{"targets": []string{"re:.*other.*"}, "weights": fields{"strategy": "block", "block_structure": []int{64, 64}}}}}},

		{name: "no blocks", config: fields{"quant_method": "fp8", "weight_block_size": nil}, words: words{tensor: true}},
		{name: "static", config: fields{"quant_method": "fp8", "activation_scheme": "static"}, words: words{tensor: true}},
		{name: "tensor", config: groups(fields{"strategy": "tensor"}), words: words{tensor: true}},
		{name: "ModelOpt FP8", beside: fields{"quantization": fields{"quant_algo": "FP8"}}, words: words{tensor: true}},

		{name: "channel", config: groups(fields{"strategy": "channel"}), words: words{channel: true}},
		{name: "FBGEMM", config: fields{"quant_method": "fbgemm_fp8"}, words: words{channel: true}},
		{name: "ModelOpt rows", config: fields{"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, words: words{channel: true}},

		{name: "ModelOpt 64", config: fields{"quant_method": "modelopt", "quant_algo": "FP8_PB_WO", "group_size": 64}, words: words{blocks: [][2]int64{{64, 64}, {1, 64}}}},
		{name: "MXFP8", config: fields{"quant_method": "mxfp8"}, words: words{blocks: [][2]int64{{1, 32}}}},
		{name: "channel and blocks", config: groups(fields{"strategy": "channel"},
			fields{"strategy": "block", "block_structure": []int{128, 128}}),
			words: words{channel: true, blocks: [][2]int64{{128, 128}}}},
		{name: "groups and blocks", config: groups(fields{"strategy": "group", "group_size": 32},
			fields{"strategy": "block", "block_structure": []int{128, 128}}),
			words: words{blocks: [][2]int64{{1, 32}, {128, 128}}}},
	}
	for _, b := range listedBlocks {
		w := fields{"strategy": "block", "block_structure": b}
		if b[0] == 1 {
			w = fields{"strategy": "group", "group_size": b[1]}
		}
		says := words{blocks: [][2]int64{b}}
		all = append(all,
			tableConfig{name: fmt.Sprintf("fp8 %v", b),
				config: fields{"quant_method": "fp8", "weight_block_size": b}, words: says},
			tableConfig{name: fmt.Sprintf("groups %v", b), config: groups(w), words: says})
	}
	return all
}

// String lists the description.
func (c words) String() string {
	var all []string
	if c.tensor {
		all = append(all, "tensor")
	}
	if c.channel {
		all = append(all, "channel")
	}
	for _, b := range c.blocks {
		all = append(all, fmt.Sprintf("%d×%d", b[0], b[1]))
	}
	if all == nil {
		return "nothing"
	}
	return strings.Join(all, "+")
}

// truth is how the maker of a checkpoint stored the scales.
type truth struct {
	kind string // one of tableKinds, or "larger" or "none"
	knownPartition
	words words     // the maker's configuration
	grids [][]int64 // possible stored shapes
}

// truths lists every way in which the scales of a weight may have been made, and shapes of no known
// way.
func (w *tableWeight) truths() (all []truth) {
	add := func(kind string, k knownPartition) {
		all = append(all, truth{kind: kind, knownPartition: k, words: k.words,
			grids: w.spellings(&k)})
	}
	matrix := len(w.shape) == 2 || len(w.shape) == 3
	for _, k := range w.known(words{}) {
		switch {
		case k.larger:
		case k.parts:
			add("per part", k)
		case k.name == "one scale per matrix" && len(w.shape) == 3:
			add("per expert", k)
		case k.shared, k.name == "one scale per matrix":
			add("whole", k)
		case k.words.channel && strings.HasSuffix(k.name, "row"):
			add("rows", k)
		case k.words.channel:
			add("columns", k)
		default:
			add(words{blocks: k.words.blocks}.String(), k)
		}
	}
	if w.family == "deepseek_v3" {
		all = append(all, w.larger())
	}
	if matrix {
		all = append(all, truth{kind: "none", grids: w.oddGrids()})
	}
	return all
}

// larger is blocks of 128 with unused rows and columns of scales.
func (w *tableWeight) larger() truth {
	k := w.padded([2]int64{128, 128})
	t := truth{kind: "larger", knownPartition: k, words: words{blocks: [][2]int64{{128, 128}}}}
	rows, cols := k.grid()
	for _, more := range [][2]int64{{1, 0}, {0, 1}, {3, 1}, {1, 4}} {
		g := []int64{rows + more[0], cols + more[1]}
		if len(w.shape) == 3 {
			g = append([]int64{w.shape[0]}, g...)
		}
		t.grids = append(t.grids, g)
	}
	return t
}

// oddGrids are shapes of scales that are almost those of a partition.
func (w *tableWeight) oddGrids() (all [][]int64) {
	count, m, n := w.matrix()
	k := w.blocked([2]int64{128, 128}, nil)
	rows, cols := k.grid()
	all = [][]int64{{cols + 1, rows}, {rows + 1, cols + 1}, {rows + 2, cols}, {rows, cols + 2}, {n},
		{rows * cols}, {n, m}, {1, rows, 1, cols, 1}}
	if len(w.shape) == 3 {
		all = append(all, []int64{m}, []int64{count + 1, 1, 1}, []int64{1, m, 1},
			[]int64{count * m, 1}, []int64{count, m + 1}, []int64{count, rows})
	}
	return all
}

// tableCase is one weight under one scale and one configuration.
type tableCase struct {
	*tableWeight
	config tableConfig
	truth  *truth
	class  string // how it is configured
	dtype  string // of the scale
	stored []int64
	n      int
	verdict
}

var (
	tableClasses = []string{"configured as that", "configured as another", "not configured"}
	tableKinds   = []string{"128×128", "64×64", "32×32", "1×128", "1×64", "1×32", "1×512", "rows",
		"columns", "whole", "per part", "per expert"}
	tableDTypes = []string{"F32", "BF16", "F16", "F8_E8M0", "U8"}
)

// classOf compares a configuration with the truth.
func classOf(c words, t *truth) string {
	switch r := (reading{members: []knownPartition{{words: t.words}}}); {
	case !c.tensor && !c.channel && len(c.blocks) == 0:
		return tableClasses[2]
	case t.kind != "none" && r.namedBy(c):
		return tableClasses[0]
	}
	return tableClasses[1]
}

// met counts the cases of the table.
type met map[string]int

// tableCases makes the table. Each grid has its plain spelling. Its other spellings, and the dtypes
// of the scales, take turns.
func tableCases(counts met) (all []*tableCase) {
	for wi, w := range tableWeights {
		judged := map[string]verdict{}
		truths := w.truths()
		said := map[string]bool{}
		for ci, c := range tableConfigs() {
			done := map[string]bool{}
			again := said[c.words.String()]
			if again && (wi+ci)%3 > 0 {
				continue // a third of the weights have the same configuration in other words
			}
			said[c.words.String()] = true
			for ti := range truths {
				t := &truths[ti]
				class := classOf(c.words, t)
				for _, stored := range w.turn(t, wi+ci, again) {
					turn := counts[t.kind+", "+class]
					dtype := tableDTypes[turn%len(tableDTypes)]
					counts[t.kind+", "+class]++
					counts[t.kind+", "+class+", "+dtype]++
					x := &tableCase{tableWeight: w, config: c, truth: t, class: class, dtype: dtype,
						stored: stored, n: len(all)}
					key := fmt.Sprint(c.words, dtype == "U8", stored)
					if _, ok := judged[key]; !ok {
						judged[key] = w.judge(c.words, dtype, stored)
					}
					if x.verdict = judged[key]; !done[fmt.Sprint(dtype, stored)] {
						all = append(all, x)
					}
					done[fmt.Sprint(dtype, stored)] = true
				}
			}
		}
	}
	return all
}

// turn returns the plain spelling and one other, unless the configuration is the same again in
// other words. Of shapes that fit nothing it returns three.
func (w *tableWeight) turn(t *truth, i int, again bool) [][]int64 {
	switch n := len(t.grids); {
	case t.kind == "none" || t.kind == "larger":
		return [][]int64{t.grids[i%n], t.grids[(i+1)%n], t.grids[(i+3)%n]}
	case n == 1 || again:
		return t.grids[:1]
	}
	return [][]int64{t.grids[0], t.grids[1+i%(len(t.grids)-1)]}
}

func (x *tableCase) weightKey() string { return fmt.Sprintf("model.layers.%d.%s", x.n, x.key) }

func (x *tableCase) scaleKey() string {
	switch key := x.weightKey(); {
	case !strings.HasSuffix(key, ".weight"):
		return key + "_weight_scale"
	case x.n%2 == 0:
		return key + "_scale"
	default:
		return key + "_scale_inv"
	}
}

func (x *tableCase) String() string {
	return fmt.Sprintf("%s under %s %v (%s, %s: %s)",
		x.describe(), x.dtype, x.stored, x.truth.kind, x.class, x.config.name)
}

// source returns config.json and the other files of a checkpoint for the case.
func (x *tableCase) source(t *testing.T) *synth.Checkpoint {
	c := fields{"model_type": cmp.Or(x.family, "novel")}
	for k, v := range x.settings {
		c[k] = v
	}
	if x.config.config != nil {
		c["quantization_config"] = x.config.config
	}
	s := &synth.Checkpoint{Config: c, Single: true}
	if x.config.beside != nil {
		b, err := json.Marshal(x.config.beside)
		if err != nil {
			t.Fatal(err)
		}
		s.Side = map[string][]byte{"hf_quant_config.json": b}
	}
	return s
}

// distinctScales returns scales in random order, from 1 downwards. The first thousands differ, but
// exponents have only 32 values.
func distinctScales(rng *rand.Rand, dtype string, n int64) []byte {
	b := make([]byte, 0, int(n)*synth.Width(dtype))
	for _, i := range rng.Perm(int(n)) {
		switch i := int64(i); dtype {
		case "F32":
			b = synth.AppendRound(b, "F32",
				math.Float32frombits(uint32(0x3f800000-i*max(1, 0x2000000/n))))
		case "BF16":
			v := 0x3f80 - i%0x1000*max(1, 0x400/n)
			b = append(b, byte(v), byte(v>>8))
		case "F16":
			v := 0x3c00 - i%0x1000*max(1, 0x1000/n)
			b = append(b, byte(v), byte(v>>8))
		default:
			b = append(b, byte(130-i%32*max(1, 16/n)))
		}
	}
	return b
}

// scaleNumbers reads scales. It computes F16 by the definition.
func scaleNumbers(s synth.Tensor) []float32 {
	all := make([]float32, len(s.Data)/synth.Width(s.DType))
	for i := range all {
		if s.DType != "F16" {
			all[i] = number32(s, int64(i))
			continue
		}
		v := uint16(s.Data[2*i]) | uint16(s.Data[2*i+1])<<8
		all[i] = float32(math.Ldexp(1+float64(v&0x3ff)/1024, int(v>>10)-15))
	}
	return all
}

// tensors makes the stored tensors of a case, and the values that a view in dtype out must show.
func (x *tableCase) tensors(out string) (weight, scale, want synth.Tensor) {
	rng := rand.New(rand.NewPCG(uint64(x.n), 13))
	if x.codes == nil {
		x.codes = synth.Random(rng, "F8_E4M3", x.shape)
	}
	weight = synth.Tensor{Name: x.weightKey(), DType: "F8_E4M3", Shape: x.shape, Data: x.codes}
	scale = synth.Tensor{Name: x.scaleKey(), DType: x.dtype, Shape: x.stored,
		Data: distinctScales(rng, x.dtype, product(x.stored))}
	if x.chosen == nil {
		return weight, scale, want
	}
	want = synth.Tensor{Name: weight.Name, DType: out, Shape: x.shape,
		Data: make([]byte, 0, len(x.codes)*synth.Width(out))}
	scales := scaleNumbers(scale)
	var done [8][256][]byte // products of the first scales, because rounding is slow
	for i, at := range x.scalesOf(x.chosen, x.stored) {
		code := weight.Data[i]
		if at >= int64(len(done)) {
			want.Data = synth.AppendRound(want.Data, out, codeValues[code]*scales[at])
			continue
		}
		if done[at][code] == nil {
			done[at][code] = synth.Round(out, codeValues[code]*scales[at])
		}
		want.Data = append(want.Data, done[at][code]...)
	}
	return weight, scale, want
}

// codeValues are the values of all codes.
var codeValues = func() (all [256]float32) {
	for i := range all {
		all[i] = synth.E4M3(byte(i))
	}
	return all
}()

// Every partition is combined with every configuration and many shapes. If exactly one reading of
// its scales fits a weight, the weight has the values of that reading. Any other weight is refused.
func TestEveryPartitionUnderEveryConfiguration(t *testing.T) {
	t.Parallel()
	counts := met{}
	cases := tableCases(counts)
	for _, kind := range append(tableKinds, "larger", "none") {
		for _, class := range tableClasses {
			if (kind == "none") && class == tableClasses[0] {
				continue
			}
			for _, d := range tableDTypes {
				if counts[kind+", "+class+", "+d] == 0 {
					t.Errorf("no case of %s, %s, scales %s", kind, class, d)
				}
			}
		}
	}
	sources := map[string][]*tableCase{}
	var order []string
	refused := newRefusals()
	for _, x := range cases {
		x.checkTruth(t, counts)
		if x.chosen == nil {
			x.checkRefused(t, refused, counts)
			continue
		}
		counts["right"]++
		counts["right, "+x.class]++
		key := fmt.Sprint(x.family, x.settings, x.config)
		if sources[key] == nil {
			order = append(order, key)
		}
		sources[key] = append(sources[key], x)
	}
	for i, key := range order {
		checkValues(t, sources[key], []string{"BF16", "F32", "F16"}[i%3])
	}
	refused.check(t)
	for _, fate := range []string{"right", "in several ways", "in no known way", "only as",
		"is not decoded", "swizzled"} {
		if counts[fate] == 0 {
			t.Errorf("no case: %s", fate)
		}
	}
	t.Logf("%d cases: %d right; refused: %d fit in no known way, %d in several ways, %d only as "+
		"parts that are not given, %d as parts of a stack, %d lists of exponents; %d opened for "+
		"real among %d refused",
		len(cases), counts["right"], counts["in no known way"], counts["in several ways"],
		counts["only as"], counts["is not decoded"], counts["swizzled"],
		counts["opened"], len(cases)-counts["right"])
	t.Logf("right by class: %d configured as that, %d as another, %d not configured; %d read as "+
		"the configuration says and not as they were made",
		counts["right, "+tableClasses[0]], counts["right, "+tableClasses[1]],
		counts["right, "+tableClasses[2]], counts["not as made"])
}

// checkTruth checks the rules themselves: an accepted weight is read as it was made, unless the
// configuration says otherwise.
func (x *tableCase) checkTruth(t *testing.T, counts met) {
	if x.chosen == nil || x.truth.kind == "none" {
		return
	}
	if slices.Equal(x.scalesOf(x.chosen, x.stored),
		x.positions(&x.truth.knownPartition, x.stored)) {
		return
	}
	counts["not as made"]++
	if x.class != tableClasses[1] {
		t.Errorf("%v: read as %s, which is not how it was made", x, x.names())
	}
}

// checkValues opens a checkpoint of many weights and compares the view.
func checkValues(t *testing.T, cases []*tableCase, out string) {
	s := cases[0].source(t)
	var want []synth.Tensor
	for _, x := range cases {
		w, scale, v := x.tensors(out)
		s.Tensors = append(s.Tensors, w, scale)
		want = append(want, v)
	}
	t.Run(fmt.Sprint(cases[0].family, cases[0].config.name, cases[0].n), func(t *testing.T) {
		c := opened(t, s)
		d, err := FromHF(c, Options{Layout: "hf", DType: dtypes[out]})
		if err == nil {
			equal(t, d, want)
			return
		}
		t.Error(err)
		for _, x := range cases {
			if _, err := NewPlan(x.headers(t), Options{Layout: "hf"}); err != nil {
				t.Errorf("%v: refused, but only %s fits: %v", x, x.names(), err)
			}
		}
	})
}

// sized is a file that only has a size.
type sized struct{ steady.File }

func (sized) Name() string { return "model.safetensors" }
func (sized) Size() int64  { return 1 << 40 }

func (sized) ReadAt(context.Context, []byte, int64) (int, error) { return 0, io.EOF }

// headers returns the opened checkpoint of a case without data, because plans read none.
func (x *tableCase) headers(t *testing.T) *Checkpoint {
	s := x.source(t)
	raw, err := json.Marshal(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	c := &Checkpoint{shards: []string{"model.safetensors"}, byKey: map[string]*Stored{},
		quantizeFiles: s.Side}
	if c.Config, err = parseConfig(raw); err != nil {
		t.Fatal(err)
	}
	for _, h := range []struct {
		key, dtype string
		shape      []int64
	}{{x.scaleKey(), x.dtype, x.stored}, {x.weightKey(), "F8_E4M3", x.shape}} {
		d, err := safetensors.ParseDType(h.dtype)
		if err != nil {
			t.Fatal(err)
		}
		y := &Stored{Shard: "model.safetensors",
			Source: expr.Source{Key: h.key, File: sized{}, DType: d, Shape: h.shape}}
		c.tensors, c.byKey[h.key] = append(c.tensors, y), y
	}
	return c
}

// checkRefused plans a case that must be refused, and checks the message. Some cases are opened
// from files.
func (x *tableCase) checkRefused(t *testing.T, all *refusals, counts met) {
	counts[x.says]++
	c := x.headers(t)
	if x.n%25 == 0 {
		s := x.source(t)
		w, scale, _ := x.tensors("BF16")
		s.Tensors = []synth.Tensor{w, scale}
		dir := inmemory.Dir(t)
		if err := s.Write(dir); err != nil {
			t.Fatal(err)
		}
		var err error
		if c, err = Open(t.Context(), dir, OpenOptions{}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		counts["opened"]++
	}
	p, err := NewPlan(c, Options{Layout: "hf"})
	if err == nil {
		t.Errorf("%v: accepted as %v; it fits %s: %s",
			x, p.Tensors[0].Node, cmp.Or(x.names(), "nothing"), x.says)
		return
	}
	said := err.Error()
	for _, want := range []string{x.weightKey(), x.scaleKey(), "model.safetensors",
		fmt.Sprint(x.stored), x.says} {
		if !strings.Contains(said, want) && (x.says != "swizzled" || want != x.weightKey()) {
			t.Errorf("%v: %q does not say %q", x, said, want)
		}
	}
	if x.says == "in several ways" {
		x.checkNamed(t, said)
	}
	if plain := x.truth.grids[0]; x.says != "in no known way" || slices.Equal(plain, x.stored) {
		all.add(x, said)
	}
}

// checkNamed checks that a message names every reading that fits exactly once.
func (x *tableCase) checkNamed(t *testing.T, said string) {
	_, said, _ = strings.Cut(said, "in several ways: ")
	said, _, _ = strings.Cut(said, "; ")
	names := strings.Split(said, ", or ")
	for _, r := range x.readings {
		n := 0
		for _, k := range r.members {
			if slices.Contains(names, k.name) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%v: %q names %d of the ways that come to the same bytes, want 1 of %s",
				x, said, n, (&verdict{readings: []reading{r}}).names())
		}
	}
	if len(names) != len(x.readings) {
		t.Errorf("%v: %q, but %s fits", x, said, x.names())
	}
}

// refusals are the lines of the golden file: the message for a weight under a scale, and the
// configurations that give it.
type refusals struct {
	order []string
	under map[string][]string
}

func newRefusals() *refusals { return &refusals{under: map[string][]string{}} }

func (r *refusals) add(x *tableCase, said string) {
	for _, cut := range []string{" (it is fused", ": expected", "; ", ", which is not"} {
		said, _, _ = strings.Cut(said, cut)
	}
	i := strings.LastIndex(said, x.weightKey()+": ")
	said = said[max(i, 0):]
	said = strings.NewReplacer(x.weightKey()+": ", "", "model.safetensors: "+x.scaleKey()+": ",
		"").Replace(said)
	line := x.describe() + ": " + said
	if r.under[line] == nil {
		r.order = append(r.order, line)
	}
	if w := x.config.words.String(); !slices.Contains(r.under[line], w) {
		r.under[line] = append(r.under[line], w)
	}
}

// check compares with the golden file, or updates it.
func (r *refusals) check(t *testing.T) {
	var b strings.Builder
	for _, line := range r.order {
		fmt.Fprintf(&b, "%s | configured: %s\n", line, strings.Join(r.under[line], ", "))
	}
	if *update {
		if err := os.WriteFile(refusedGolden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(refusedGolden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() == string(want) {
		return
	}
	got, golden := strings.Split(b.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(got), len(golden)) {
		if i >= len(got) || i >= len(golden) || got[i] != golden[i] {
			t.Fatalf("not as in %s from line %d on (go test ./adapter -run EveryPartition "+
				"-update writes it anew):\n got %s\nwant %s",
				refusedGolden, i+1, got[min(i, len(got)-1)], golden[min(i, len(golden)-1)])
		}
	}
}
