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

// scaled is a quantized weight, the tensor of its scales, and which scale each element uses.
type scaled struct {
	key    string // of the weight
	codes  string // dtype; empty: F8_E4M3
	weight []int64
	scale  string // key, behind "x." as in key
	dtype  string // of the scales; empty: F32
	shape  []int64
	at     func(e, i, j int64) int64
}

// tensors gives random codes and scales, and the values to be shown.
func (s scaled) tensors(rng *rand.Rand) (codes, scales, want synth.Tensor) {
	codes = synth.Tensor{Name: s.key, DType: s.codes, Shape: s.weight}
	scales = synth.Tensor{Name: s.scale, DType: s.dtype, Shape: s.shape}
	if codes.DType == "" {
		codes.DType = "F8_E4M3"
	}
	if scales.DType == "" {
		scales.DType = "F32"
	}
	codes.Data = synth.Random(rng, codes.DType, codes.Shape)
	if scales.DType == "U8" || scales.DType == "F8_E8M0" {
		for range scales.Size() {
			scales.Data = append(scales.Data, byte(120+rng.IntN(16)))
		}
	} else {
		scales.Data = synth.Random(rng, scales.DType, scales.Shape)
	}
	want = synth.Tensor{Name: s.key, DType: "BF16", Shape: s.weight}
	f := [3]int64{1, 1, 1} // matrices, rows, columns
	switch n := len(s.weight); n {
	case 0:
	case 1, 2, 3:
		copy(f[3-n:], s.weight)
	default:
		f[1], f[2] = s.weight[0], product(s.weight[1:])
	}
	for i := range f[0] * f[1] * f[2] {
		scale := number32(scales, s.at(i/(f[1]*f[2]), i/f[2]%f[1], i%f[2]))
		want.Data = append(want.Data, synth.Round("BF16", synth.E4M3(codes.Data[i])*scale)...)
	}
	return codes, scales, want
}

// What people publish, cut, edit and convert, with the values that each element has. Each is one
// weight whose scales lie in a way that was once misread or refused.
func TestScalesAsPeopleStoreThem(t *testing.T) {
	type shape = []int64
	blocks := func(h, w, cols int64) func(e, i, j int64) int64 {
		return func(_, i, j int64) int64 { return i/h*cols + j/w }
	}
	whole := func(_, _, _ int64) int64 { return 0 }
	row := func(_, i, _ int64) int64 { return i }
	const (
		group128 = `{"quant_method": "compressed-tensors", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 128}}}}`
		mxfp8    = `{"quant_method": "compressed-tensors", "format": "mxfp8-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}}}}`
		pbWO     = `{"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}`
		moMXFP8  = `{"quant_method": "modelopt", "quant_algo": "MXFP8"}`
		moFP8    = `{"quant_method": "modelopt", "quant_algo": "FP8"}`
		quark    = `{"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_channel", "ch_axis": 0}}}`
		static   = `{"quant_method": "fp8", "activation_scheme": "static"}`
		row512   = `{"quant_method": "fp8", "weight_block_size": [1, 512]}`
		fbgemm   = `{"quant_method": "fbgemm_fp8"}`
		targets  = `{"quant_method": "compressed-tensors", "config_groups": {
			"group_0": {"targets": ["re:.*mlp.*"], "weights": {"strategy": "block", "block_structure": [128, 128]}},
			"group_1": {"targets": ["re:.*self_attn.*"], "weights": {"strategy": "block", "block_structure": [64, 64]}}}}`
	)
	mlp := settings{"intermediate_size": 136.0}
	for name, test := range map[string]struct {
		quantization string // empty: the configuration says nothing of it
		config       settings
		scaled
	}{
		"groups of 128":              {group128, nil, scaled{"x.weight", "", shape{40, 384}, "x.weight_scale", "", shape{40, 3}, blocks(1, 128, 3)}},
		"MXFP8 of ModelOpt":          {moMXFP8, nil, scaled{"x.weight", "", shape{64, 160}, "x.weight_scale", "F8_E8M0", shape{64, 5}, blocks(1, 32, 5)}},
		"MXFP8 as bytes":             {moMXFP8, nil, scaled{"x.weight", "", shape{40, 96}, "x.weight_scale", "U8", shape{40, 3}, blocks(1, 32, 3)}},
		"MXFP8, a short group":       {moMXFP8, nil, scaled{"x.weight", "", shape{40, 100}, "x.weight_scale", "U8", shape{40, 4}, blocks(1, 32, 4)}},
		"MXFP8 as [rows, n, 1]":      {moMXFP8, nil, scaled{"x.weight", "", shape{40, 96}, "x.weight_scale", "U8", shape{40, 3, 1}, blocks(1, 32, 3)}},
		"MXFP8 of compressed":        {mxfp8, nil, scaled{"x.weight", "", shape{32, 224}, "x.weight_scale", "F8_E8M0", shape{32, 7}, blocks(1, 32, 7)}},
		"MXFP8 of MiniMax-M3":        {`{"quant_method": "mxfp8"}`, nil, scaled{"x.weight", "", shape{56, 96}, "x.weight_scale_inv", "U8", shape{56, 3}, blocks(1, 32, 3)}},
		"exponents of blocks":        {block128, nil, scaled{"x.weight", "", shape{130, 200}, "x.weight_scale_inv", "U8", shape{2, 2}, blocks(128, 128, 2)}},
		"ModelOpt blocks of 64":      {pbWO, nil, scaled{"x.weight", "", shape{128, 192}, "x.weight_scale", "", shape{2, 3}, blocks(64, 64, 3)}},
		"ModelOpt [m,1,n,1]":         {pbWO, nil, scaled{"x.weight", "", shape{140, 150}, "x.weight_scale", "", shape{2, 1, 2, 1}, blocks(128, 128, 2)}},
		"ModelOpt [m,1,1,1]":         {pbWO, nil, scaled{"x.weight", "", shape{130, 40}, "x.weight_scale", "", shape{2, 1, 1, 1}, blocks(128, 128, 1)}},
		"blocks of 64, no config":    {"", nil, scaled{"x.weight", "", shape{192, 100}, "x.weight_scale_inv", "BF16", shape{3, 2}, blocks(64, 64, 2)}},
		"groups in a single file":    {"", nil, scaled{"x.weight", "", shape{64, 256}, "x.weight_scale", "", shape{64, 2}, blocks(1, 128, 2)}},
		"three axes":                 {"", nil, scaled{"blocks.0.attn.qkv.weight", "", shape{48, 128}, "blocks.0.attn.qkv.weight_scale", "", shape{48, 2, 1}, blocks(1, 64, 2)}},
		"groups of 512":              {row512, nil, scaled{"x.weight", "", shape{24, 1100}, "x.weight_scale_inv", "", shape{24, 3}, blocks(1, 512, 3)}},
		"rows beside blocks":         {block128, nil, scaled{"lm_head.weight", "", shape{150, 192}, "lm_head.weight_scale", "BF16", shape{150, 1}, row}},
		"rows beside blocks, narrow": {block128, nil, scaled{"x.weight", "", shape{96, 64}, "x.weight_scale", "", shape{96, 1}, row}},
		"one of two targets":         {targets, nil, scaled{"a.self_attn.k_proj.weight", "", shape{70, 130}, "a.self_attn.k_proj.weight_scale", "", shape{2, 3}, blocks(64, 64, 3)}},
		"the other target":           {targets, nil, scaled{"a.mlp.up_proj.weight", "", shape{140, 120}, "a.mlp.up_proj.weight_scale", "", shape{2, 1}, blocks(128, 128, 1)}},
		"a grid for gate and for up": {block128, mlp,
			scaled{"mlp.gate_up_proj.weight", "", shape{272, 40},
				"mlp.gate_up_proj.weight_scale_inv", "", shape{4, 1},
				func(_, i, _ int64) int64 { return i/136*2 + i%136/128 }}},
		"a number for gate and for up": {static, mlp,
			scaled{"mlp.gate_up_proj.weight", "", shape{272, 40}, "mlp.gate_up_proj.weight_scale",
				"", shape{2},
				func(_, i, _ int64) int64 { return i / 136 }}},
		"gate and up as one":          {block128, mlp, scaled{"mlp.gate_up_proj.weight", "", shape{272, 40}, "mlp.gate_up_proj.weight_scale_inv", "", shape{3, 1}, blocks(128, 128, 1)}},
		"a stack with one number":     {moFP8, nil, scaled{"experts.gate_up_proj", "", shape{2, 40, 48}, "experts.gate_up_proj_weight_scale", "", shape{}, whole}},
		"a stack with a number each":  {moFP8, nil, scaled{"experts.gate_up_proj", "", shape{3, 36, 40}, "experts.gate_up_proj_weight_scale", "", shape{3}, func(e, _, _ int64) int64 { return e }}},
		"a stack with columns":        {fbgemm, nil, scaled{"experts.gate_up_proj", "", shape{2, 40, 48}, "experts.gate_up_proj_scale", "", shape{2, 1, 48}, func(e, _, j int64) int64 { return e*48 + j }}},
		"a stack with [E,out]":        {fbgemm, nil, scaled{"experts.gate_up_proj", "", shape{2, 40, 48}, "experts.gate_up_proj_scale", "", shape{2, 48}, func(e, _, j int64) int64 { return e*48 + j }}},
		"a stack with blocks":         {block128, nil, scaled{"experts.gate_up_proj", "", shape{2, 136, 72}, "experts.gate_up_proj_scale_inv", "BF16", shape{2, 2, 1}, func(e, i, _ int64) int64 { return e*2 + i/128 }}},
		"a stack of experts by Qwen":  {block128, nil, scaled{"experts.down_proj", "", shape{2, 36, 136}, "experts.down_proj_weight_scale_inv", "BF16", shape{2, 1, 2}, func(e, _, j int64) int64 { return e*2 + j/128 }}},
		"a convolution":               {moFP8, nil, scaled{"vision.conv.weight", "", shape{8, 3, 5, 5}, "vision.conv.weight_scale", "", shape{}, whole}},
		"a convolution, each output":  {"", nil, scaled{"vision.conv.weight", "", shape{8, 3, 5, 5}, "vision.conv.weight_scale", "", shape{8, 1, 1, 1}, row}},
		"a vector":                    {moFP8, nil, scaled{"x.weight", "", shape{70}, "x.weight_scale", "", shape{1}, whole}},
		"a number":                    {moFP8, nil, scaled{"x.weight", "", shape{}, "x.weight_scale", "", shape{}, whole}},
		"Quark, a number":             {quark, nil, scaled{"x.weight", "", shape{48, 40}, "x.weight_scale", "", shape{}, whole}},
		"Quark, each row":             {quark, nil, scaled{"x.weight", "", shape{40, 40}, "x.weight_scale", "", shape{40}, row}},
		"ComfyUI's older name":        {"", nil, scaled{"input_blocks.1.proj_in.weight", "", shape{48, 40}, "input_blocks.1.proj_in.scale_weight", "", shape{1}, whole}},
		"one number for many weights": {block128, nil, scaled{"ple.embedding.shard_1.weight", "", shape{25, 80}, "ple.embedding.weight_scale", "BF16", shape{1}, whole}},
	} {
		t.Run(name, func(t *testing.T) {
			config := settings{}
			if test.quantization != "" {
				config = configured(t, test.quantization)
			}
			for k, v := range test.config {
				config[k] = v
			}
			codes, scales, want := test.tensors(rand.New(rand.NewPCG(7, 8)))
			for _, order := range [][]synth.Tensor{{codes, scales}, {scales, codes}} {
				for i := range order {
					order[i].Shard = i
				}
				c := opened(t, &synth.Checkpoint{Config: config, Tensors: order})
				equal(t, dict(t, c, Options{Layout: "hf"}), []synth.Tensor{want})
			}
		})
	}
}

// A scale that contradicts the configuration, or that could be laid in two ways, is refused with
// both shapes.
func TestScalesThatCannotBeToldAreRefused(t *testing.T) {
	type shape = []int64
	for name, test := range map[string]struct {
		quantization string
		scaled
		want []string
	}{
		"blocks of 64 where 128 are configured": {block128, scaled{key: "up_proj.weight", weight: shape{192, 128}, scale: "up_proj.weight_scale_inv", shape: shape{3, 2}}, []string{"[2 1]", "contradict"}},
		"a stack of squares": {`{"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}`,
			scaled{key: "down_proj.weight", weight: shape{2, 48, 48}, scale: "down_proj.weight_scale", shape: shape{2, 48}}, []string{"per row", "per column"}},
		"swizzled exponents": {`{"quant_method": "modelopt", "quant_algo": "MXFP8"}`,
			scaled{key: "up_proj.weight", weight: shape{128, 128}, scale: "up_proj.weight_scale", dtype: "U8", shape: shape{512}}, []string{"swizzled"}},
		"a larger grid": {block128, scaled{key: "up_proj.weight", weight: shape{200, 150}, scale: "up_proj.weight_scale_inv", shape: shape{3, 4}}, []string{"[2 2]"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.at = func(_, _, _ int64) int64 { return 0 }
			codes, scales, _ := test.tensors(rand.New(rand.NewPCG(7, 8)))
			c := opened(t, &synth.Checkpoint{Config: configured(t, test.quantization),
				Tensors: []synth.Tensor{codes, scales}})
			_, err := NewPlan(c, Options{Layout: "hf"})
			if err == nil {
				t.Fatal("a plan, want an error")
			}
			for _, want := range append(test.want, test.key, test.scale, fmt.Sprint(test.shape)) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// One scale that is there for a whole module serves all FP8 weights below it, and no others.
func TestOneScaleServesTheWeightsBelowItsModule(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	at := func(_, _, _ int64) int64 { return 0 }
	codes, scale, want := scaled{key: "a.b.s0.weight", weight: []int64{5, 8},
		scale: "a.b.weight_scale", dtype: "BF16", shape: []int64{1}, at: at}.tensors(rng)
	more := synth.Tensor{Name: "a.b.s1.weight", DType: "F8_E4M3", Shape: []int64{2, 3},
		Data: synth.Random(rng, "F8_E4M3", []int64{2, 3})}
	wantMore := synth.Tensor{Name: more.Name, DType: "BF16", Shape: more.Shape}
	for _, b := range more.Data {
		wantMore.Data = append(wantMore.Data,
			synth.Round("BF16", synth.E4M3(b)*number32(scale, 0))...)
	}
	own, ownScale, wantOwn := scaled{key: "a.b.s2.weight", weight: []int64{4, 4},
		scale: "a.b.s2.weight_scale", shape: []int64{4, 1},
		at: func(_, i, _ int64) int64 { return i }}.tensors(rng)
	c := &synth.Checkpoint{Config: map[string]any{},
		Tensors: []synth.Tensor{codes, scale, more, own, ownScale}}
	d := dict(t, opened(t, c), Options{Layout: "hf"})
	equal(t, d, []synth.Tensor{want, wantMore, wantOwn})
	i := slices.IndexFunc(d.Plan.Account, func(a Account) bool {
		return a.Key == "a.b.weight_scale"
	})
	if a := d.Plan.Account[i]; a.Fate != Used || len(a.Into) != 2 {
		t.Errorf("the scale is %s, into %v", a.Fate, a.Into)
	}
	with(c, "elsewhere.weight", "F8_E4M3", 2, 2)
	if _, err := NewPlan(opened(t, c), Options{Layout: "hf"}); err == nil ||
		!strings.Contains(err.Error(), "elsewhere.weight") {
		t.Errorf("error %v, want one about elsewhere.weight", err)
	}
}

func TestFP8WithoutScalesIsReadOnlyWhenAskedFor(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	at := func(_, _, _ int64) int64 { return 0 }
	codes, scale, shown := scaled{key: "x.weight", weight: []int64{5, 8}, scale: "x.weight_scale",
		at: at}.tensors(rng)
	c := &synth.Checkpoint{Config: map[string]any{}, Tensors: []synth.Tensor{codes, scale}}
	want := []synth.Tensor{shown}
	for key, shape := range map[string][]int64{"bare.weight": {7, 9}, "stack": {2, 3, 4},
		"bias": {5}} {
		w := synth.Tensor{Name: key, DType: "F8_E4M3", Shape: shape,
			Data: synth.Random(rng, "F8_E4M3", shape)}
		plain := synth.Tensor{Name: key, DType: "BF16", Shape: shape}
		for _, b := range w.Data {
			plain.Data = append(plain.Data, synth.Round("BF16", synth.E4M3(b))...)
		}
		c.Tensors, want = append(c.Tensors, w), append(want, plain)
	}
	checkpoint := opened(t, c)
	d := dict(t, checkpoint, Options{Layout: "hf", Unscaled: true})
	equal(t, d, want)
	if len(d.Plan.Notes) != 1 || !strings.Contains(d.Plan.Notes[0],
		"(and 2 more): FP8 without a scale") {
		t.Errorf("notes %q, want one about three tensors without a scale", d.Plan.Notes)
	}
	_, err := NewPlan(checkpoint, Options{Layout: "hf"})
	if err == nil || !strings.Contains(err.Error(), "without its scale") ||
		!strings.Contains(err.Error(), "--unscaled") {
		t.Errorf("error %v, want one that names --unscaled", err)
	}
}

// A view holds the parameters of the model and nothing that belongs to its quantization, also when
// the configuration says nothing of one.
func TestLeftoversOfAQuantizationAreDropped(t *testing.T) {
	const attn = "model.layers.0.self_attn."
	quantized := []tensor{{attn + "k_proj.weight", "F8_E4M3", []int64{4, 4}},
		{attn + "k_proj.weight_scale", "F32", nil},
		{"experts.up_proj", "F8_E4M3", []int64{2, 4, 4}}, {"experts.up_proj_weight_scale", "F32", []int64{2}}, {"model.norm.weight", "BF16", []int64{4}}}
	plain := []tensor{{attn + "k_proj.weight", "BF16", []int64{4, 4}},
		{"experts.up_proj", "BF16", []int64{2, 4, 4}}, {"model.norm.weight", "BF16", []int64{4}}}
	for _, test := range []struct {
		tensor
		dropped bool // where anything is quantized
	}{
		{tensor{attn + "k_proj.input_scale", "F32", nil}, true},
		{tensor{attn + "k_proj.input_scale", "F32", []int64{4}}, true}, // of a quantized module: whatever its shape
		{tensor{attn + "k_proj.scale_input", "F32", []int64{1}}, true},
		{tensor{attn + "k_proj.activation_scale", "BF16", nil}, true},
		{tensor{attn + "k_proj.act_scale", "F32", []int64{1}}, true},
		{tensor{attn + "k_proj.input_global_scale", "F32", []int64{1}}, true},
		{tensor{attn + "k_proj.input_zero_point", "I8", []int64{1}}, true},
		{tensor{attn + "k_proj.output_scale", "F32", nil}, true},
		{tensor{attn + "k_proj.qscale_act", "F32", nil}, true},
		{tensor{attn + "k_proj.k_scale", "F32", nil}, true},
		{tensor{attn + "k_proj.k_bias", "F32", nil}, true},
		{tensor{attn + "k_proj.comfy_quant", "U8", []int64{27}}, true},
		{tensor{attn + "k_proj.weight_format", "U8", nil}, true},
		{tensor{"experts.up_proj_input_scale", "F32", nil}, true},
		{tensor{"experts.up_proj_activation_scale", "F32", []int64{2}}, true},
		{tensor{attn + "k_scale", "F32", nil}, true},
		{tensor{attn + "v_scale", "F32", []int64{1}}, true},
		{tensor{attn + "kv_scale", "F32", nil}, true},
		{tensor{attn + "attn.q_scale", "F32", nil}, true},
		{tensor{attn + "prob_output_scale", "F32", nil}, true},
		{tensor{attn + "k_scale", "BF16", []int64{8, 1, 1}}, true}, // one for each head
		{tensor{"backbone.layers.1.mixer.k_proj.k_scale", "F32", nil}, true},
		{tensor{"backbone.layers.1.mixer.v_proj.v_scale", "F32", nil}, true},
		{tensor{"decoder.block.0.layer.0.SelfAttention.k_scale", "F32", nil}, true},
		{tensor{attn + "q_fake_quantizer.qscale_act", "F32", nil}, true},
		{tensor{"scaled_fp8", "F8_E4M3", []int64{2}}, true},
		{tensor{attn + "k_scale", "BF16", []int64{64}}, false},                 // a parameter
		{tensor{"model.layers.0.mlp.k_scale", "F32", nil}, false},              // not of an attention
		{tensor{"model.layers.0.mlp.input_scale", "BF16", []int64{64}}, false}, // of a module that is not quantized
		{tensor{"model.layers.0.attn_hc.scale", "F32", []int64{4}}, false},     // DeepSeek-V4's own
		{tensor{"model.layers.0.mlp.layer_scale", "F32", []int64{64}}, false},  // a parameter
		{tensor{"logit_scale", "F32", nil}, false},                             // a parameter
		{tensor{"scale_shift_table", "BF16", []int64{6, 4}}, false},            // a parameter
		{tensor{attn + "k_proj.bias", "BF16", []int64{4}}, false},              // a parameter
	} {
		for _, config := range []string{`{}`, `{"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}}`} {
			keeps(t, config, append(slices.Clone(quantized), test.tensor), test.key, !test.dropped)
		}
		if test.dtype != "F8_E4M3" {
			keeps(t, `{}`, append(slices.Clone(plain), test.tensor), test.key, true)
		}
	}
}

// tensor is a stored tensor of zeros.
type tensor struct {
	key, dtype string
	shape      []int64
}

// keeps checks whether the view of some tensors has a key, and that a key that it has not is
// accounted for with a reason.
func keeps(t *testing.T, config string, tensors []tensor, key string, want bool) {
	t.Helper()
	s, err := parseSettings([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	c := &synth.Checkpoint{Config: s}
	for _, x := range tensors {
		with(c, x.key, x.dtype, x.shape...)
	}
	d := dict(t, opened(t, c), Options{Layout: "hf"})
	_, got := d.Tensor(key)
	i := slices.IndexFunc(d.Plan.Account, func(a Account) bool { return a.Key == key })
	if a := d.Plan.Account[i]; got != want || !want && a.Reason == "" {
		t.Errorf("%s under %s of %d tensors: shown %t, want %t; reason %q", key, config,
			len(tensors), got, want, a.Reason)
	}
}

// FP8 without scales is quantized too: what belongs to its modules goes likewise.
func TestLeftoversOfUnscaledWeightsAreDropped(t *testing.T) {
	c := &synth.Checkpoint{Config: map[string]any{}}
	with(c, "a.weight", "F8_E4M3", 4, 4)
	with(c, "a.comfy_quant", "U8", 27)
	with(c, "a.input_scale", "F32", 4)
	with(c, "scaled_fp8", "F8_E4M3", 2)
	d := dict(t, opened(t, c), Options{Layout: "hf", Unscaled: true})
	if _, ok := d.Tensor("a.weight"); !ok || d.Len() != 1 {
		t.Errorf("%d tensors, want a.weight alone", d.Len())
	}
}

// Grouped weights may be called X_weight, as servers that save what they have loaded call them.
func TestScalesOfWeightsWithoutADotAreFound(t *testing.T) {
	for _, test := range []scaled{
		{key: "experts.w13_weight", weight: []int64{2, 140, 40}, scale: "experts.w13_weight_scale_inv", shape: []int64{2, 2, 1}, at: func(e, i, _ int64) int64 { return 2*e + i/128 }},
		{key: "experts.w2_weight", weight: []int64{2, 14, 40}, scale: "experts.w2_weight_scale", shape: []int64{2, 14, 1}, at: func(e, i, _ int64) int64 { return 14*e + i }},
		{key: "attn.in_proj_weight", weight: []int64{24, 8}, scale: "attn.in_proj_weight_scale", at: func(_, _, _ int64) int64 { return 0 }},
		{key: "experts.gate_up_proj", weight: []int64{2, 14, 40}, scale: "experts.gate_up_proj_weight_scale", shape: []int64{2, 1, 1}, at: func(e, _, _ int64) int64 { return e }},
	} {
		codes, scales, want := test.tensors(rand.New(rand.NewPCG(33, 34)))
		input := synth.Tensor{Name: strings.TrimSuffix(test.key, "_weight") + "_input_scale",
			DType: "F32", Shape: []int64{2}, Data: make([]byte, 8)}
		c := &synth.Checkpoint{Config: map[string]any{},
			Tensors: []synth.Tensor{scales, codes, input}}
		equal(t, dict(t, opened(t, c), Options{Layout: "hf"}), []synth.Tensor{want})
	}
}

// Two scales of a module whose weight is not there are both told of.
func TestTwoScalesWithoutAWeightAreRefused(t *testing.T) {
	c := &synth.Checkpoint{Config: map[string]any{}}
	with(c, "a.weight_scale", "F32")
	with(c, "a.weight_scale_inv", "F32", 2, 2)
	with(c, "a.0.weight", "F8_E4M3", 200, 200)
	_, err := NewPlan(opened(t, c), Options{Layout: "hf"})
	if err == nil || !strings.Contains(err.Error(), "a.weight_scale: scale without its weight") {
		t.Errorf("error %v, want one about a.weight_scale", err)
	}
}

func TestUnknownTensorsOfQuantizedModulesAreNamed(t *testing.T) {
	c := &synth.Checkpoint{Config: map[string]any{}}
	with(c, "a.x.weight", "F8_E4M3", 4, 4)
	with(c, "a.x.weight_scale", "F32")
	with(c, "a.x.bias", "BF16", 4)
	with(c, "a.x.lora_a", "BF16", 4, 4)
	with(c, "a.z.weight", "F8_E4M3", 4, 4)
	with(c, "a.z.weight_scale", "F32")
	with(c, "a.z.lora_a", "BF16", 4, 4)
	with(c, "a.y.weight", "BF16", 4, 4)
	with(c, "a.y.gain", "BF16", 4)
	d := dict(t, opened(t, c), Options{Layout: "hf"})
	if _, ok := d.Tensor("a.x.lora_a"); !ok {
		t.Error("a.x.lora_a is not shown")
	}
	if len(d.Plan.Notes) != 1 || !strings.Contains(d.Plan.Notes[0], "a.x.lora_a (and 1 more)") {
		t.Errorf("notes %q, want one about a.x.lora_a", d.Plan.Notes)
	}
}

func TestWarningsOfUnknownTensorsAreFew(t *testing.T) {
	c := &synth.Checkpoint{Config: map[string]any{}}
	with(c, "a.weight", "F8_E4M3", 4, 4)
	with(c, "a.weight_scale", "F32")
	for i := range 300 {
		with(c, fmt.Sprintf("a.x%d", i), "BF16", 1)
	}
	notes := dict(t, opened(t, c), Options{Layout: "hf"}).Plan.Notes
	if len(notes) != maxOddities+1 || !strings.HasPrefix(notes[0], "a.x0: ") ||
		!strings.HasPrefix(notes[maxOddities], "280 more names: ") {
		t.Errorf("%d notes: %.200q", len(notes), notes)
	}
}

func TestSummaryCountsFormatsAndPartitions(t *testing.T) {
	c := &synth.Checkpoint{Config: configured(t, block128)}
	for i := range 3 {
		with(c, fmt.Sprintf("a%d.weight", i), "F8_E4M3", 200, 200)
		with(c, fmt.Sprintf("a%d.weight_scale_inv", i), "F32", 2, 2)
	}
	with(c, "b.weight", "F8_E4M3", 200, 200)
	with(c, "b.weight_scale", "BF16", 200, 1)
	with(c, "norm.weight", "BF16", 4)
	got, err := Summary(opened(t, c))
	if err != nil {
		t.Fatal(err)
	}
	want := []Count{
		{3, "FP8", "blocks of 128 × 128", safetensors.F32}, {1, "FP8", "one scale per row", safetensors.BF16}, {Weights: 1},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
