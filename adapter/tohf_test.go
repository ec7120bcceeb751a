package adapter

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

func TestShouldQuantizeKey(t *testing.T) {
	for key, want := range map[string]bool{
		"model.layers.0.mlp.up_proj.weight":               true,
		"model.layers.61.eh_proj.weight":                  true,
		"model.layers.61.shared_head.head.weight":         true,
		"model.layers.0.mlp.experts.3.down_proj.weight":   true,
		"model.layers.0.self_attn.q_a_layernorm.weight":   false,
		"model.layers.0.input_layernorm.weight":           false,
		"model.norm.weight":                               false,
		"lm_head.weight":                                  false,
		"model.embed_tokens.weight":                       false,
		"model.layers.3.mlp.gate.weight":                  false,
		"model.layers.3.mlp.gate.e_score_correction_bias": false,
		"model.layers.3.mlp.experts.gate_and_up_projs":    false,
	} {
		if ShouldQuantizeKey(key) != want {
			t.Errorf("ShouldQuantizeKey(%q) = %v", key, !want)
		}
	}
}

// plainSource is a checkpoint of BF16 values, native or published.
func plainSource(t *testing.T, native bool) (*synth.Checkpoint, *Checkpoint) {
	t.Helper()
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 2, Hidden: 136,
		ExpertIntermediate: 20, MTP: 1, Plain: true}))
	delete(s.Config, "quantization_config")
	ts := s.HF("BF16")
	if native {
		ts = s.Native("BF16", 0, 1)
	}
	return s, opened(t, regrouped(s, ts))
}

// quantized computes codes and scales of a BF16 or F32 matrix one element at a time.
func quantized(w synth.Tensor, ones bool) (codes, scales synth.Tensor) {
	rows, cols := w.Shape[0], w.Shape[1]
	r, c := ceilDiv(rows, 128), ceilDiv(cols, 128)
	value := func(i, j int64) float32 { return number32(w, i*cols+j) }
	grid := slices.Repeat([]float32{0}, int(r*c))
	for i := range rows {
		for j := range cols {
			g, v := &grid[i/128*c+j/128], math.Abs(float64(value(i, j)))
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				*g = max(*g, float32(v))
			}
		}
	}
	codes = synth.Tensor{Name: w.Name, DType: "F8_E4M3", Shape: w.Shape}
	scales = synth.Tensor{Name: w.Name + "_scale_inv", DType: "F32", Shape: []int64{r, c}}
	for i := range grid {
		if grid[i] = max(grid[i]/448, 0x1p-126); ones {
			grid[i] = 1
		}
		scales.Data = binary.LittleEndian.AppendUint32(scales.Data, math.Float32bits(grid[i]))
	}
	for i := range rows {
		for j := range cols {
			codes.Data = append(codes.Data, nearest(value(i, j)/grid[i/128*c+j/128]))
		}
	}
	return codes, scales
}

// magnitudes are the values of the codes without a sign.
var magnitudes = func() (m [0x7f]float64) {
	for code := range m {
		m[code] = float64(synth.E4M3(byte(code)))
	}
	return m
}()

// nearest finds the E4M3 code nearest to f: one of the two whose values f is between, and of two
// the even one. Beyond the largest it is the largest.
func nearest(f float32) byte {
	sign := byte(0)
	if math.Signbit(float64(f)) {
		sign = 0x80
	}
	if math.IsNaN(float64(f)) {
		return sign | 0x7f
	}
	a := min(math.Abs(float64(f)), 448)
	above := byte(slices.IndexFunc(magnitudes[:], func(m float64) bool { return m >= a }))
	best := max(above, 1) - 1
	d, b := magnitudes[above]-a, a-magnitudes[best]
	if d < b || d == b && above%2 == 0 {
		best = above
	}
	return sign | best
}

// withScales replaces the weights that rule picks by their codes and scales.
func withScales(ts []synth.Tensor, ones bool, rule func(synth.Tensor) bool) []synth.Tensor {
	var out []synth.Tensor
	for _, x := range ts {
		if !rule(x) {
			out = append(out, x)
			continue
		}
		codes, scales := quantized(x, ones)
		out = append(out, codes, scales)
	}
	return out
}

func TestQuantizedViewEqualsTheOracle(t *testing.T) {
	linear := regexp.MustCompile(`_proj(_with_mqa)?\.weight$`)
	for _, native := range []bool{true, false} {
		s, c := plainSource(t, native)
		d, err := ToHF(c, Options{Layout: "hf-fp8"})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, d, withScales(s.HF("BF16"), false, func(x synth.Tensor) bool {
			return linear.MatchString(x.Name) && !strings.Contains(x.Name, "eh_proj")
		}))

		d, err = ToHF(c, Options{Layout: "hf-fp8", Scales: "ones"})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, d, withScales(s.HF("BF16"), true,
			func(x synth.Tensor) bool { return ShouldQuantizeKey(x.Name) }))
	}
}

// linearWeight matches the weights that layout hf-fp8 quantizes in a DeepSeek-V3 without MTP
// layers.
var linearWeight = regexp.MustCompile(`_proj(_with_mqa)?\.weight$`)

// Codes and scales come from values that were rounded to F32 alone, so the view's dtype does not
// change them. Blocks of 64 × 48 are not those of the view, so every weight is quantized again.
func TestQuantizedViewsDoNotDependOnTheDType(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 3, Hidden: 150,
		ExpertIntermediate: 36, Block: [2]int64{64, 48}}))
	c := opened(t, s)
	exact := map[string]synth.Tensor{}
	for _, x := range s.HF("F32") {
		exact[x.Name] = x
	}
	for dtype, d := range dtypes {
		var want []synth.Tensor
		quantizedAgain := 0
		for _, x := range s.HF(dtype) {
			if !linearWeight.MatchString(x.Name) {
				want = append(want, x)
				continue
			}
			quantizedAgain++
			codes, scales := quantized(exact[x.Name], false)
			want = append(want, codes, scales)
		}
		if quantizedAgain < 10 {
			t.Fatalf("%s: only %d weights are quantized", dtype, quantizedAgain)
		}
		equal(t, dict(t, c, Options{Layout: LayoutHFFP8, DType: d}), want)
	}
}

// Experts that are stored as one FP8 tensor are taken apart first, each with its own scale.
func TestGroupedExpertsAreQuantizedFromF32(t *testing.T) {
	const experts, hidden, inner = 3, 140, 20
	s := synth.DeepSeek(small(synth.Options{Layers: 1, Dense: -1, Experts: experts, Hidden: hidden,
		ExpertIntermediate: inner, Plain: true}))
	s.Tensors = slices.DeleteFunc(s.Tensors,
		func(x synth.Tensor) bool { return strings.Contains(x.Name, ".experts.") })
	want := withScales(s.HF("BF16"), false,
		func(x synth.Tensor) bool { return linearWeight.MatchString(x.Name) })
	rng := rand.New(rand.NewPCG(5, 6))
	const path = "model.layers.0.mlp.experts."
	for _, g := range []struct {
		name       string
		rows, cols int64
		parts      []string
	}{
		{"gate_up_proj", 2 * inner, hidden, []string{"gate_proj", "up_proj"}},
		{"down_proj", hidden, inner, []string{"down_proj"}},
	} {
		codes := synth.Tensor{Name: path + g.name, DType: "F8_E4M3",
			Shape: []int64{experts, g.rows, g.cols}}
		codes.Data = synth.Random(rng, codes.DType, codes.Shape)
		scales := synth.Tensor{Name: codes.Name + "_scale_inv", DType: "F32",
			Shape: []int64{experts, 1, 1}}
		scales.Data = synth.Random(rng, scales.DType, scales.Shape)
		s.Tensors = append(s.Tensors, codes, scales)
		each := g.rows * g.cols / int64(len(g.parts))
		for e := range int64(experts) {
			for i, part := range g.parts {
				x := synth.Tensor{DType: "F32", Shape: []int64{each / g.cols, g.cols},
					Name: path + string(rune('0'+e)) + "." + part + ".weight"}
				from := (e*int64(len(g.parts)) + int64(i)) * each
				for _, code := range codes.Data[from : from+each] {
					x.Data = append(x.Data,
						synth.Round("F32", synth.E4M3(code)*number32(scales, e))...)
				}
				again, grid := quantized(x, false)
				want = append(want, again, grid)
			}
		}
	}
	c := opened(t, s)
	for _, d := range dtypes {
		equal(t, dict(t, c, Options{Layout: LayoutHFFP8, DType: d}), want)
	}
}

func TestQuantizedConfigListsTheOthers(t *testing.T) {
	_, c := plainSource(t, true)
	p, err := NewPlan(c, Options{Layout: "hf-fp8"})
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Q struct {
			Method string   `json:"quant_method"`
			Block  []int    `json:"weight_block_size"`
			Plain  []string `json:"modules_to_not_convert"`
		} `json:"quantization_config"`
	}
	if err := json.Unmarshal(p.Config, &config); err != nil {
		t.Fatal(err)
	}
	want := []string{"lm_head", "model.layers.1.mlp.gate", "model.layers.2.eh_proj",
		"model.layers.2.mlp.gate", "model.layers.2.shared_head.head"}
	if !slices.Equal(config.Q.Plain, want) || config.Q.Method != "fp8" ||
		!slices.Equal(config.Q.Block, []int{128, 128}) {
		t.Errorf("quantization_config %+v, want modules %v", config.Q, want)
	}
}

func TestQuantizedWeightsPassThrough(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Experts: 2, Hidden: 150, ExpertIntermediate: 140}))
	d, err := ToHF(opened(t, s), Options{Layout: "hf-fp8"})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, d, s.Tensors)
}

func TestExcludedWeightsLoseTheirScalesToo(t *testing.T) {
	s, c := plainSource(t, true)
	re := regexp.MustCompile(`model\.layers\.\d+\.mlp\.experts\.1\.|.*_scale_inv`)
	d, err := ToHF(c, Options{Layout: "hf-fp8", Scales: "ones", Exclude: re})
	if err != nil {
		t.Fatal(err)
	}
	isOne := func(x synth.Tensor) bool { return strings.Contains(x.Name, ".experts.1.") }
	quantized := func(x synth.Tensor) bool { return ShouldQuantizeKey(x.Name) }
	equal(t, d, withScales(slices.DeleteFunc(s.HF("BF16"), isOne), true, quantized))
}

func TestOneTensorAtATime(t *testing.T) {
	s, c := plainSource(t, true)
	a, err := NewDeepSeekV3(c.Config, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, quantization := range []bool{false, true} {
		var got []Tensor
		for _, stored := range c.Tensors() {
			n, err := expr.Load(&stored.Source)
			if err != nil {
				t.Fatal(err)
			}
			ts, err := a.ConvertSingleTensorToHF(stored.Key, n, quantization)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, ts...)
		}
		d, err := a.ToHF(c, quantization)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != d.Len() {
			t.Errorf("%d tensors, to_hf gives %d", len(got), d.Len())
		}
		for _, x := range got {
			want, ok := d.Tensor(x.Name)
			if !ok {
				t.Errorf("%s: not in to_hf", x.Name)
				continue
			}
			b := make([]byte, x.Node.Size())
			if err := x.Node.ReadAt(nil, b, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, content(t, want)) {
				t.Errorf("%s: other bytes than in to_hf", x.Name)
			}
		}
	}
	if d, err := a.FromHF(opened(t, s)); err != nil {
		t.Error(err)
	} else {
		equal(t, d, s.Native("BF16", 0, 1))
	}
}

func TestDeepSeekV3RefusesOthers(t *testing.T) {
	if _, err := NewDeepSeekV3(&Config{Raw: []byte(`{"model_type": "qwen3_moe"}`)},
		Options{}); err == nil || !strings.Contains(err.Error(), "qwen3_moe") {
		t.Errorf("error %v, want one about qwen3_moe", err)
	}
	if _, err := ToHF(&Checkpoint{}, Options{Layout: "native"}); err == nil ||
		!strings.Contains(err.Error(), "hf, split or hf-fp8") {
		t.Errorf("error %v, want one about the layout", err)
	}
}

// recognized reports whether names tell that tensors are in the native layout.
func recognized(c *Checkpoint, native []synth.Tensor) bool {
	v, ok := familyOf(c.Config.fields()).viewNamed(LayoutNative)
	return ok && slices.ContainsFunc(native, func(x synth.Tensor) bool {
		return strings.HasSuffix(x.Name, "_projs") ||
			slices.ContainsFunc(v.marks, func(m string) bool {
				return drop{key: m}.matches(x.Name)
			})
	})
}

// comesBack reports whether a checkpoint has layout native, and its published tensors can be
// computed back from that.
func comesBack(c *Checkpoint) bool {
	f := familyOf(c.Config.fields())
	_, ok := f.viewNamed(LayoutNative)
	return ok && !slices.ContainsFunc(noInverse[f.name+" "+LayoutNative],
		func(reason string) bool { return reason != injects })
}

// Each native tensor alone becomes the published ones that the view of a whole native checkpoint
// has.
func TestTensorsOfEveryFamilyConvertAlone(t *testing.T) {
	t.Parallel()
	for name := range listed {
		if name == "ling_v2" || name == "nemotron_omni_radio" {
			continue // fused matrices keep their native names
		}
		for _, o := range []Options{{Layout: LayoutHF}, {Layout: LayoutHF, EP: EP{1, 2}},
			{Layout: LayoutHFFP8}} {
			t.Run(name+" "+o.Layout, func(t *testing.T) {
				c := opened(t, randomListed(t, name))
				native := nativeTensors(t, c)
				if !comesBack(c) || !recognized(c, native) {
					return // the view would not take it for a native one
				}
				config, err := parseSettings(c.Config.Raw)
				if err != nil {
					t.Fatal(err)
				}
				delete(config, "quantization_config")
				s := &synth.Checkpoint{Config: config, Tensors: native}
				want := tensorsOf(t, dict(t, opened(t, s), o))
				got := &StateDict{Plan: &Plan{}, Env: &recentUnits{}, byName: map[string]int{}}
				for l := range dict(t, c, Options{Layout: LayoutNative, MTP: MTPKeep}).All() {
					ts, err := ConvertTensorToHF(c.Config, l.Name(), l.node, o)
					if err != nil {
						t.Fatalf("%s: %v", l.Name(), err)
					}
					for _, x := range ts {
						got.byName[x.Name] = len(got.Plan.Tensors)
						got.Plan.Tensors = append(got.Plan.Tensors, x)
					}
				}
				equal(t, got, want)
			})
		}
	}
}

// nativeTensors reads the native view of a checkpoint, prediction layers too. It is nil if there is
// none.
func nativeTensors(t *testing.T, c *Checkpoint) []synth.Tensor {
	t.Helper()
	if !slices.Contains(Layouts(c), LayoutNative) {
		return nil
	}
	return tensorsOf(t, dict(t, c, Options{Layout: LayoutNative, MTP: MTPKeep}))
}

// A native checkpoint as TorchTitan reads it, with groups made by hand of the published experts.
func TestNativeSourceAsTorchTitan(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 5, Hidden: 70,
		ExpertIntermediate: 33, MTP: 1}))
	c := opened(t, regrouped(s, s.Native("BF16", 0, 1)))
	for _, rank := range []EP{{}, {1, 2}} {
		d := dict(t, c, Options{Layout: LayoutTorchTitan, EP: rank})
		lo, hi := rank.Range(5)
		found := 0
		for _, w := range grouping(s.HF("BF16"), [roles]string{"w1_EFD", "w3_EFD", "w2_EDF"}) {
			head, name, ok := strings.Cut(strings.TrimPrefix(w.Name, "model."), "mlp.experts.")
			if !ok {
				continue
			}
			head = strings.Replace(head, "layers.2.", "mtp_layers.0.", 1)
			l := mustTensor(t, d, head+titanPath+name)
			w.Shape[0] = int64(hi - lo)
			each := len(w.Data) / 5
			if !slices.Equal(l.Shape(), w.Shape) ||
				!bytes.Equal(content(t, l), w.Data[lo*each:hi*each]) {
				t.Errorf("%s: %v with other bytes than %v", l.Name(), l.Shape(), w.Shape)
			}
			found++
		}
		if found != 6 {
			t.Errorf("%d groups, want three in each of two layers", found)
		}
	}
}

// tensorsOf reads a whole view.
func tensorsOf(t *testing.T, d *StateDict) []synth.Tensor {
	t.Helper()
	var all []synth.Tensor
	for l := range d.All() {
		all = append(all, synth.Tensor{Name: l.Name(), DType: l.DType().String(), Shape: l.Shape(),
			Data: content(t, l)})
	}
	return all
}
