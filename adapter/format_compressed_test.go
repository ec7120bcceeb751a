package adapter

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// onlyWeight describes the only quantized weight of a checkpoint.
func onlyWeight(t *testing.T, config string, tensors ...synth.Tensor) (string, error) {
	t.Helper()
	counts, err := Summary(opened(t, &synth.Checkpoint{Config: configured(t, config),
		Tensors: tensors}))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s, %s", counts[0].Format, counts[0].Where, counts[0].Scales), nil
}

// ctPack is the tensors of a pack: rows × cols codes in rows of words.
func ctPack(words, rows, cols int64, scale ...int64) []synth.Tensor {
	return []synth.Tensor{stock("x.weight_packed", "I32", rows, words),
		stock("x.weight_scale", "BF16", scale...), stockNumbers("x.weight_shape", "I64", rows, cols)}
}

// The dtypes and shapes of the tensors decide how a weight is decoded.
func TestTensorsOfCompressedTensorsDecide(t *testing.T) {
	const (
		pack4 = "packed integers (compressed-tensors), 4 bits, "
		pack8 = "packed integers (compressed-tensors), 8 bits, "
	)
	eight := strings.Replace(ctInt4, `: 4`, `: 8`, 1)
	ordered := stockNumbers("x.weight_g_idx", "I32", slices.Repeat([]int64{0, 1}, 32)...)
	inOrder := stockNumbers("x.weight_g_idx", "I32", runsOf(64, 32)...)
	unset := stockNumbers("x.weight_g_idx", "I32", slices.Repeat([]int64{-1}, 64)...)
	for name, test := range map[string]struct {
		config  string
		tensors []synth.Tensor
		want    string
	}{
		"4 bits":                   {noConfig, ctPack(8, 3, 64, 3, 2), pack4 + "groups of 32 in a row, BF16"},
		"8 bits":                   {eight, ctPack(16, 3, 64, 3, 2), pack8 + "groups of 32 in a row, BF16"},
		"8 bits, another module":   {strings.Replace(eight, "Linear", "model.x", 1), ctPack(16, 3, 64, 3, 2), pack8 + "groups of 32 in a row, BF16"},
		"4 bits under a stale 8":   {eight, ctPack(8, 3, 64, 3, 2), pack4 + "groups of 32 in a row, BF16"},
		"channel":                  {noConfig, ctPack(9, 3, 65, 3, 1), pack4 + "one scale per row, BF16"},
		"a group of 12":            {noConfig, ctPack(9, 3, 72, 3, 6), pack4 + "groups of 12 in a row, BF16"},
		"one scale":                {noConfig, ctPack(8, 3, 64, 1), pack4 + "one scale per matrix, BF16"},
		"short, 4 bits configured": {ctInt4, ctPack(1, 3, 2, 3, 1), pack4 + "one scale per row, BF16"},
		"short, 8 bits configured": {eight, ctPack(1, 3, 2, 3, 1), pack8 + "one scale per row, BF16"},
		"24 columns configured":    {ctInt4, ctPack(3, 3, 24, 3, 1), pack4 + "one scale per row, BF16"},
		"configured in text_config": {
			`null, "text_config": {"quantization_config": ` + ctInt4 + `}`,
			ctPack(1, 3, 2, 3, 1), pack4 + "one scale per row, BF16"},
		"configured in compression_config": {`null, "compression_config": ` + ctInt4,
			ctPack(1, 3, 2, 3, 1), pack4 + "one scale per row, BF16"},
		"a list of groups": {noConfig, append(ctPack(8, 3, 64, 3, 2), ordered),
			pack4 + "groups of 32 in a row, in another order, BF16"},
		"a list in order": {noConfig, append(ctPack(8, 3, 64, 3, 2), inOrder),
			pack4 + "groups of 32 in a row, BF16"},
		"a list that is not set": {noConfig, append(ctPack(8, 3, 64, 3, 2), unset),
			pack4 + "groups of 32 in a row, BF16"},
		"a single group needs no list": {ctOrdered(`"group"`), ctPack(8, 3, 64, 3, 1),
			pack4 + "one scale per row, BF16"},
		"columns that were only rounded in another order": {ctOrdered(`"weight"`),
			ctPack(8, 3, 64, 3, 2), pack4 + "groups of 32 in a row, BF16"},
		"columns in no other order": {ctOrdered("false"), ctPack(8, 3, 64, 3, 2),
			pack4 + "groups of 32 in a row, BF16"},
		"a list that one of two rules asks for": {strings.Replace(ctBothSigns, `false}`,
			`true, "actorder": "group"}`, 1), ctPack(8, 3, 64, 3, 2),
			pack4 + "groups of 32 in a row, BF16"},
		"zero points that one of two rules asks for": {ctBothSigns, ctPack(8, 3, 64, 3, 2),
			pack4 + "groups of 32 in a row, BF16"},
		"INT8": {noConfig, []synth.Tensor{stock("x.weight", "I8", 3, 64),
			stock("x.weight_scale", "F32", 3, 1)}, "INT8 (compressed-tensors), one scale per row, F32"},
		"INT8, one scale": {noConfig, []synth.Tensor{stock("x.weight", "I8", 3, 64),
			stock("x.weight_scale", "F32", 1)}, "INT8 (compressed-tensors), one scale per matrix, F32"},
		"INT8 in groups": {eight, []synth.Tensor{
			stock("x.weight", "I8", 3, 64), stock("x.weight_scale", "F32", 3, 2)},
			"INT8 (compressed-tensors), groups of 32 in a row, F32"},
		"NVFP4": {noConfig, []synth.Tensor{stock("x.weight_packed", "U8", 3, 32),
			stock("x.weight_scale", "F8_E4M3", 3, 4), stock("x.weight_global_scale", "F32")},
			"NVFP4 (compressed-tensors), groups of 16 in a row, F8_E4M3"},
		"NVFP4 under a configuration of INT4": {ctInt4, []synth.Tensor{
			stock("x.weight_packed", "U8", 3, 32), stock("x.weight_scale", "F8_E4M3", 3, 4),
			stock("x.weight_global_scale", "F32", 1)},
			"NVFP4 (compressed-tensors), groups of 16 in a row, F8_E4M3"},
		"NVFP4, a stack": {noConfig, []synth.Tensor{stock("x.weight_packed", "U8", 2, 3, 32),
			stock("x.weight_scale", "F8_E4M3", 2, 3, 4), stock("x.weight_global_scale", "F32", 2, 1, 1)},
			"NVFP4 (compressed-tensors), groups of 16 in a row, F8_E4M3"},
		"MXFP4": {noConfig, []synth.Tensor{stock("x.weight_packed", "U8", 3, 32),
			stock("x.weight_scale", "U8", 3, 2)}, "MXFP4, groups of 32 in a row, U8"},
		"MXFP4 with exponents of their dtype": {noConfig, []synth.Tensor{
			stock("x.weight_packed", "U8", 3, 32), stock("x.weight_scale", "F8_E8M0", 3, 2)},
			"MXFP4, groups of 32 in a row, F8_E8M0"},
		"MXFP4 of Quark": {quarkFP4, []synth.Tensor{stock("x.weight", "U8", 3, 32),
			stock("x.weight_scale", "U8", 3, 2)}, "MXFP4, groups of 32 in a row, U8"},
		"MXFP4 of gpt-oss": {`{"quant_method": "mxfp4"}`, []synth.Tensor{
			stock("x_blocks", "U8", 2, 3, 2, 16), stock("x_scales", "U8", 2, 3, 2)},
			"MXFP4 (gpt-oss), groups of 32 in a row, U8"},
	} {
		if got, err := onlyWeight(t, test.config, test.tensors...); got != test.want {
			t.Errorf("%s: %q, error %v, want %q", name, got, err, test.want)
		}
	}
}

// ctBothSigns has two groups for the same layers, one of them with zero points.
const ctBothSigns = `{"quant_method": "compressed-tensors", "config_groups": {
	"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": false}},
	"b": {"targets": ["re:x"], "weights": {"num_bits": 4, "type": "int"}}}}`

// ctOrdered is ctInt4 with a value of actorder.
func ctOrdered(actorder string) string {
	return strings.Replace(ctInt4, `"group_size": 32`, `"group_size": 32, "actorder": `+actorder, 1)
}

// ordered adds actorder to a configuration.
func ordered(config string) string {
	return strings.Replace(config, `"group_size"`, `"actorder": "group", "group_size"`, 1)
}

// What tensors and configuration do not say together is refused.
func TestPacksWithTwoMeaningsAreRefused(t *testing.T) {
	three := strings.Replace(ctInt4, `: 4`, `: 3`, 1)
	for name, test := range map[string]struct {
		config  string
		tensors []synth.Tensor
		want    []string
	}{
		"short rows without a configuration": {noConfig, ctPack(1, 3, 2, 3, 1), []string{"x.weight_packed", "[2 3 4 5 6 7 8] bits", "num_bits"}},
		"24 columns without a configuration": {noConfig, ctPack(3, 3, 24, 3, 1), []string{"x.weight_packed", "[3 4] bits", "num_bits"}},
		"7 or 8 bits":                        {ctInt4, ctPack(16, 3, 64, 3, 2), []string{"x.weight_packed", "[7 8] bits", "num_bits"}},
		"24 columns, 3 bits configured":      {three, ctPack(3, 3, 24, 3, 1), []string{"x.weight_packed", "3 bits"}},
		"short rows, two widths configured": {`{"quant_method": "compressed-tensors", "config_groups": {
			"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}},
			"b": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int"}}}}`,
			ctPack(1, 3, 2, 3, 1), []string{"x.weight_packed", "[4 8] bits"}},
		"3 bits, ten in a word":      {noConfig, ctPack(10, 3, 100, 3, 1), []string{"x.weight_packed", "codes of 3 bits"}},
		"6 bits, a stream":           {noConfig, ctPack(19, 3, 100, 3, 1), []string{"x.weight_packed", "codes of 6 bits"}},
		"a list of scales":           {noConfig, ctPack(8, 64, 64, 64), []string{"x.weight_scale", "[64]", "[64 1]"}},
		"groups in a row of columns": {noConfig, ctPack(8, 3, 64, 1, 2), []string{"x.weight_scale", "[1 2]"}},
		"a shape that is too long": {noConfig, append(ctPack(8, 3, 64, 3, 2)[:2],
			stock("x.weight_shape", "I64", 1000)), []string{"x.weight_shape", "[1000]"}},
		"groups of two sizes": {noConfig, append(ctPack(8, 3, 64, 3, 2),
			stockNumbers("x.weight_g_idx", "I32", butAt(runsOf(64, 32), 63, 0)...)),
			[]string{"x.weight_g_idx", "unequal sizes", "32 columns"}},
		"the weight itself beside a pack": {noConfig, append(ctPack(8, 3, 64, 3, 2),
			stock("x.weight", "BF16", 3, 64)), []string{"x.weight_packed", "x.weight,", "remove one"}},
		"a second scale beside a pack": {noConfig, append(ctPack(8, 3, 64, 3, 2),
			stock("x.weight_scale_inv", "F32", 3, 2)), []string{"x.weight_scale_inv", "x.weight_packed"}},
		"a scale for each matrix of no stack": {noConfig, []synth.Tensor{
			stock("x.weight_packed", "U8", 3, 32), stock("x.weight_scale", "F8_E4M3", 3, 4),
			stock("x.weight_global_scale", "F32", 3)}, []string{"x.weight_global_scale", "[3]"}},
		"INT8 with scales of no known groups": {noConfig, []synth.Tensor{
			stock("x.weight", "I8", 3, 64), stock("x.weight_scale", "F32", 3, 4)},
			[]string{"x.weight_scale", "[3 4]", "[3 64]"}},
		"INT8 without the zero points that are configured": {ctInt8, []synth.Tensor{
			stock("x.weight", "I8", 3, 64), stock("x.weight_scale", "F32", 3, 1)},
			[]string{"x.weight", "symmetric", "x.weight_zero_point"}},
		"without the zero points that are configured under other names": {
			strings.NewReplacer("Linear", "re:decoder", `, "actorder": "group"`, "").Replace(ctAsym),
			ctPack(8, 3, 64, 3, 2), []string{"x.weight_packed", "symmetric", "x.weight_zero_point"}},
		"without the list that is configured": {ctOrdered(`"group"`), ctPack(8, 3, 64, 3, 2),
			[]string{"x.weight_packed", "actorder: group", "x.weight_g_idx", "actorder: weight"}},
		"without the list, by another name": {ctOrdered(`"dynamic"`), ctPack(8, 3, 64, 3, 2),
			[]string{"x.weight_packed", "x.weight_g_idx"}},
		"without the list, as old programs ask for it": {ctOrdered("true"), ctPack(8, 3, 64, 3, 2),
			[]string{"x.weight_packed", "x.weight_g_idx"}},
		"without the list that is configured under other names": {
			strings.Replace(ctOrdered(`"group"`), "Linear", "re:decoder", 1),
			ctPack(8, 3, 64, 3, 2), []string{"x.weight_packed", "x.weight_g_idx"}},
		"INT8 in groups without the list": {strings.Replace(ctOrdered(`"group"`), ": 4", ": 8", 1),
			[]synth.Tensor{stock("x.weight", "I8", 3, 64), stock("x.weight_scale", "F32", 3, 2)},
			[]string{"x.weight", "actorder: group", "x.weight_g_idx"}},
		"NVFP4 without the list": {ordered(ctNVFP4), []synth.Tensor{
			stock("x.weight_packed", "U8", 3, 32), stock("x.weight_scale", "F8_E4M3", 3, 4),
			stock("x.weight_global_scale", "F32", 1)}, []string{"x.weight_packed", "x.weight_g_idx"}},
		"MXFP4 without the list": {ordered(ctMXFP4), []synth.Tensor{
			stock("x.weight_packed", "U8", 3, 32), stock("x.weight_scale", "U8", 3, 2)},
			[]string{"x.weight_packed", "x.weight_g_idx"}},
		"FP8 in groups without the list": {strings.Replace(ordered(ctMXFP4), ": 4", ": 8", 1),
			[]synth.Tensor{stock("x.weight", "F8_E4M3", 3, 64), stock("x.weight_scale", "U8", 3, 2)},
			[]string{"x.weight", "x.weight_g_idx"}},
		"groups of gpt-oss in other bytes": {`{"quant_method": "mxfp4"}`, []synth.Tensor{
			stock("x_blocks", "U8", 2, 3, 4, 8), stock("x_scales", "U8", 2, 3, 2)},
			[]string{"x_blocks", "[2 3 4 8]", "16 bytes"}},
	} {
		got, err := onlyWeight(t, test.config, test.tensors...)
		if err == nil {
			t.Errorf("%s: %q, want an error", name, got)
			continue
		}
		wantMessage(t, err.Error(), test.want)
	}
}

// A pack consumes all its tensors, and what only describes activations is dropped.
func TestEveryTensorOfAPackHasAFate(t *testing.T) {
	tensors := append(ctPack(8, 3, 64, 3, 2), stock("x.weight_zero_point", "I32", 1, 2),
		stockNumbers("x.weight_g_idx", "I32", runsOf(64, 32)...), stock("x.input_scale", "BF16", 7),
		stock("x.input_zero_point", "I8", 7), stock("x.bias", "BF16", 3))
	c := opened(t, &synth.Checkpoint{Config: configured(t, ctAsym), Tensors: tensors})
	d := dict(t, c, Options{Layout: LayoutHF})
	for _, a := range d.Plan.Account {
		dropped := strings.HasPrefix(a.Key, "x.input_")
		if (a.Fate == Dropped) != dropped || (len(a.Into) != 1) != dropped {
			t.Errorf("%s: %s, into %v", a.Key, a.Fate, a.Into)
		}
	}
	if len(d.Plan.Notes) > 0 {
		t.Errorf("notes %q", d.Plan.Notes)
	}
}

// Where the tensors are certain, what the configuration says otherwise is noted. Weights share a
// note.
func TestConfigurationsThatPacksContradictAreNoted(t *testing.T) {
	for name, test := range map[string]struct {
		config  string
		tensors []synth.Tensor
		want    string
	}{
		"as configured": {ctInt4, ctPack(8, 3, 64, 3, 2), ""},
		"one group":     {ctInt4, ctPack(4, 3, 32, 3, 1), ""},
		"no rule":       {noConfig, ctPack(8, 3, 64, 3, 2), ""},
		"another group": {ctInt4, ctPack(8, 3, 64, 3, 4),
			"x.weight_packed: 4 bits, groups of 16 in a row, but the configuration says 4 bits, " +
				"groups of 32 in a row: the tensors decide"},
		"other bits": {strings.Replace(ctInt4, `: 4`, `: 8`, 1), ctPack(8, 3, 64, 3, 2),
			"x.weight_packed: 4 bits, groups of 32 in a row, but the configuration says 8 bits, " +
				"groups of 32 in a row: the tensors decide"},
		"two weights": {ctInt4,
			append(ctPack(8, 3, 64, 3, 1), moved(ctPack(8, 3, 64, 3, 1), "y")...),
			"x.weight_packed (and 1 more): 4 bits, one scale per row, but the configuration says " +
				"4 bits, groups of 32 in a row: the tensors decide"},
	} {
		p, err := NewPlan(opened(t, &synth.Checkpoint{Config: configured(t, test.config),
			Tensors: test.tensors}), Options{Layout: LayoutHF})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := strings.Join(p.Notes, "\n"); got != test.want {
			t.Errorf("%s: notes %q, want %q", name, got, test.want)
		}
	}
}

// A header may declare axes of any size if another axis is empty.
func TestEmptyPacksOfHugeAxesAreRefused(t *testing.T) {
	const huge = 1 << 62
	for name, tensors := range map[string][]synth.Tensor{
		"MXFP4": {stock("x.weight_packed", "U8", 0, huge), stock("x.weight_scale", "U8", 0, huge/16)},
		"gpt-oss": {stock("x_blocks", "U8", 0, 3, huge/16, 16),
			stock("x_scales", "U8", 0, 3, huge/16)},
		"NVFP4": {stock("x.weight_packed", "U8", 0, huge), stock("x.weight_scale", "F8_E4M3", 0, 1),
			stock("x.weight_global_scale", "F32", 1)},
		"a pack": {stock("x.weight_packed", "I32", 0, huge), stock("x.weight_scale", "BF16", 0, 1),
			stockNumbers("x.weight_shape", "I64", 0, 1<<31)},
	} {
		if got, err := onlyWeight(t, noConfig, tensors...); err == nil {
			t.Errorf("%s: %q, want an error", name, got)
		}
	}
}

// A view that quantizes decodes packs first.
func TestPacksAreQuantizedToFP8(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	pack := ctPack(8, 3, 64, 3, 2)
	for i := range pack[:2] {
		pack[i].Data = synth.Random(rng, "BF16", []int64{3 * []int64{16, 2}[i]})
	}
	c := opened(t, &synth.Checkpoint{Config: map[string]any{"model_type": "deepseek_v3",
		"n_routed_experts": 0, "num_hidden_layers": 1}, Tensors: moved(pack, "model.layers.0.mlp.up_proj")})
	d := dict(t, c, Options{Layout: LayoutHFFP8})
	const key = "model.layers.0.mlp.up_proj.weight"
	for name, want := range map[string]safetensors.DType{key: safetensors.F8E4M3,
		key + "_scale_inv": safetensors.F32} {
		if x, ok := d.Tensor(name); !ok || x.DType() != want {
			t.Errorf("%s: %v, want %s", name, x, want)
		}
	}
}

// moved gives the tensors of module x to another module.
func moved(tensors []synth.Tensor, module string) []synth.Tensor {
	for i := range tensors {
		tensors[i].Name = module + strings.TrimPrefix(tensors[i].Name, "x")
	}
	return tensors
}

// Every value is compared with the rule, element by element, where the goldens have no example.
func TestValuesOfCompressedTensorsFollowTheRule(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	filled := func(x synth.Tensor, like string) synth.Tensor {
		x.Data = synth.Random(rng, like, x.Shape)
		return x
	}
	codes := filled(stock("x.weight", "I8", 3, 64), "U8")
	scale := filled(stock("x.weight_scale", "F32", 3, 2), "F32")
	zero := filled(stock("x.weight_zero_point", "I8", 3, 2), "U8")
	packed := filled(stock("x.weight_packed", "U8", 2, 3, 16), "U8")
	small := filled(stock("x.weight_scale", "F8_E4M3", 2, 3, 2), "F8_E4M3")
	global := filled(stock("x.weight_global_scale", "F32", 2, 1, 1), "F32")
	for name, test := range map[string]struct {
		tensors []synth.Tensor
		shape   []int64
		value   func(i int64) float32
	}{
		"INT8 in groups with zero points": {[]synth.Tensor{codes, scale, zero}, []int64{3, 64},
			func(i int64) float32 {
				q, z := float32(int8(codes.Data[i])), float32(int8(zero.Data[i/32]))
				return float32(q-z) * number32(scale, i/32)
			}},
		"NVFP4, a second scale for each matrix": {[]synth.Tensor{packed, small, global},
			[]int64{2, 3, 32}, func(i int64) float32 {
				code := packed.Data[i/2] >> (4 * (i % 2)) & 15
				s := synth.E4M3(small.Data[i/16]) / number32(global, i/96)
				number := []float32{0, .5, 1, 1.5, 2, 3, 4, 6}[code&7]
				if code > 7 {
					number = -number // in float32, so that code 8 is -0
				}
				return number * s
			}},
	} {
		want := synth.Tensor{Name: "x.weight", DType: "F32", Shape: test.shape}
		for i := range product(test.shape) {
			want.Data = append(want.Data, synth.Round("F32", test.value(i))...)
		}
		t.Run(name, func(t *testing.T) {
			c := opened(t, &synth.Checkpoint{Config: configured(t, ctInt8Groups),
				Tensors: test.tensors})
			o := Options{Layout: LayoutHF, DType: dtypes["F32"]}
			equal(t, dict(t, c, o), []synth.Tensor{want})
		})
	}
}

const ctInt8Groups = `{"quant_method": "compressed-tensors", "config_groups": {"group_0": {
	"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "symmetric": false,
	"strategy": "group", "group_size": 32}}}}`
