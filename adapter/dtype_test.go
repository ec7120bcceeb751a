package adapter

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

func TestDTypeIsThatOfTheConfiguration(t *testing.T) {
	for config, want := range map[string]safetensors.DType{
		`{}`:                          safetensors.BF16,
		`{"torch_dtype": "float16"}`:  safetensors.F16,
		`{"dtype": "float32"}`:        safetensors.F32,
		`{"torch_dtype": "bfloat16"}`: safetensors.BF16,
		`{"torch_dtype": "float16", "dtype": "float32"}`:                         safetensors.F32, // as transformers
		`{"torch_dtype": "float16", "dtype": null}`:                              safetensors.F16,
		`{"torch_dtype": "float16", "dtype": "auto"}`:                            safetensors.F16,
		`{"torch_dtype": "float16", "text_config": {"dtype": "float32"}}`:        safetensors.F16,
		`{"text_config": {"torch_dtype": "float16"}}`:                            safetensors.F16,
		`{"torch_dtype": "float8_e4m3fn", "text_config": {"dtype": "float32"}}`:  safetensors.F32,
		`{"torch_dtype": "float64"}`:                                             safetensors.BF16,
		`{"torch_dtype": 16, "dtype": {"a": "float16"}}`:                         safetensors.BF16,
		`{"vision_config": {"torch_dtype": "float32"}}`:                          safetensors.BF16,
		`{"thinker_config": {"text_config": {"dtype": "float16"}}}`:              safetensors.F16,
		`{"llm_config": {"torch_dtype": "float16"}}`:                             safetensors.F16,
		`{"language_config": {"dtype": "bfloat16"}, "llm_config": {"dtype": 1}}`: safetensors.BF16,
	} {
		p, err := NewPlan(&Checkpoint{Config: &Config{Raw: []byte(config)}},
			Options{Layout: LayoutHF})
		if err != nil {
			t.Errorf("%s: %v", config, err)
		} else if p.Options.DType != want {
			t.Errorf("%s: %s, want %s", config, p.Options.DType, want)
		}
	}
}

func TestTheConfigurationSaysWhetherItNamesADType(t *testing.T) {
	for config, want := range map[string]bool{
		`{}`:                          false,
		`{"torch_dtype": "bfloat16"}`: true,
		`{"torch_dtype": "float64"}`:  false,
		`{"text_config": {"torch_dtype": "bfloat16"}}`: true,
		``: false,
	} {
		d, named := (&Config{Raw: []byte(config)}).DType()
		if d != safetensors.BF16 || named != want {
			t.Errorf("%q: %s, named %t, want BF16, %t", config, d, named, want)
		}
	}
}

// The dtype of config.json, the same one as an option, and config.json of the view agree.
func TestADTypeLeftOpenIsTheConfigured(t *testing.T) {
	for dtype, d := range dtypes {
		s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 2}))
		s.Config["torch_dtype"] = torchName[d]
		c := opened(t, s)
		for _, layout := range []string{LayoutNative, LayoutHF} {
			got := dict(t, c, Options{Layout: layout})
			equal(t, got, tensorsOf(t, dict(t, c, Options{Layout: layout, DType: d})))
			if got.Plan.Options.DType != d || configOf(t, got.Plan)["dtype"] != torchName[d] {
				t.Errorf("%s: %s in %s", dtype, got.Plan.Options.DType, got.Plan.Config)
			}
		}
		equal(t, dict(t, c, Options{Layout: LayoutHF}), s.HF(dtype))
	}
}

// configOf reads the config.json of a plan.
func configOf(t *testing.T, p *Plan) (config map[string]any) {
	t.Helper()
	if err := json.Unmarshal(p.Config, &config); err != nil {
		t.Fatal(err)
	}
	return config
}

// castSource has tensors of every kind beside an FP8 weight.
func castSource() *synth.Checkpoint {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 2, Hidden: 70,
		Block: [2]int64{48, 32}}))
	rng := rand.New(rand.NewPCG(7, 8))
	for _, dtype := range []string{"F32", "BF16", "F16", "I64", "I32", "U8", "BOOL", "F64"} {
		x := synth.Tensor{Name: "model.extra." + strings.ToLower(dtype), DType: dtype,
			Shape: []int64{3, 5}}
		x.Data = synth.Random(rng, dtype, x.Shape)
		if dtype == "F64" {
			x.Data = nil
			for range 15 {
				x.Data = binary.LittleEndian.AppendUint64(x.Data,
					math.Float64bits(rng.NormFloat64()))
			}
		}
		s.Tensors = append(s.Tensors, x)
	}
	s.Config["vision_config"] = map[string]any{"torch_dtype": "float64",
		"text_config": map[string]any{"dtype": "x"}}
	return s
}

// castTo converts a tensor by the element.
func castTo(x synth.Tensor, dtype string) synth.Tensor {
	out := synth.Tensor{Name: x.Name, DType: dtype, Shape: x.Shape}
	for i := range x.Size() / int64(synth.Width(x.DType)) {
		switch x.DType {
		case "F64":
			v := math.Float64frombits(binary.LittleEndian.Uint64(x.Data[8*i:]))
			out.Data = append(out.Data, synth.Round(dtype, float32(v))...)
		case "F16":
			out.Data = append(out.Data,
				synth.Round(dtype, half(binary.LittleEndian.Uint16(x.Data[2*i:])))...)
		case "F32", "BF16":
			out.Data = append(out.Data, synth.Round(dtype, number32(x, i))...)
		default:
			return x
		}
	}
	return out
}

// half decodes an F16 by the definition of the format.
func half(bits uint16) float32 {
	e, m := int(bits>>10&31), float64(bits&1023)
	v := math.Ldexp(m, -24)
	switch {
	case e == 31 && m > 0:
		v = math.NaN()
	case e == 31:
		v = math.Inf(1)
	case e > 0:
		v = math.Ldexp(1024+m, e-25)
	}
	if bits>>15 == 1 {
		v = -v
	}
	return float32(v)
}

// With [CastAll] every floating tensor has the view's dtype, rounded once. All others pass.
func TestEveryFloatingTensorIsCast(t *testing.T) {
	s := castSource()
	c := opened(t, s)
	for dtype, d := range dtypes {
		var hf []synth.Tensor
		for _, x := range s.HF(dtype) {
			hf = append(hf, castTo(x, dtype))
		}
		got := dict(t, c, Options{Layout: LayoutHF, DType: d, Cast: CastAll})
		equal(t, got, hf)
		config := configOf(t, got.Plan)
		tower := config["vision_config"].(map[string]any)
		if name := torchName[d]; config["torch_dtype"] != name || config["dtype"] != name ||
			tower["torch_dtype"] != name || tower["text_config"].(map[string]any)["dtype"] != name {
			t.Errorf("%s: config.json is %s", dtype, got.Plan.Config)
		}
		var native []synth.Tensor
		for _, x := range s.Native(dtype, 0, 1) {
			native = append(native, castTo(x, dtype))
		}
		equal(t, dict(t, c, Options{Layout: LayoutNative, DType: d, Cast: CastAll}), native)
	}
}

// Without it plain tensors pass byte for byte, whatever the dtype, and so do towers' dtypes.
func TestPlainTensorsPassUnlessAsked(t *testing.T) {
	s := castSource()
	c := opened(t, s)
	for dtype, d := range dtypes {
		for _, o := range []Options{{DType: d}, {DType: d, Cast: CastComputed}} {
			o.Layout = LayoutHF
			got := dict(t, c, o)
			equal(t, got, s.HF(dtype))
			if tower := configOf(t,
				got.Plan)["vision_config"].(map[string]any); tower["torch_dtype"] != "float64" {
				t.Errorf("vision_config is %v", tower)
			}
		}
	}
}

// A quantized view keeps its codes and its scales of F32. All else is cast.
func TestCodesAndScalesAreNotCast(t *testing.T) {
	c := opened(t, castSource())
	for dtype, d := range dtypes {
		plain := tensorsOf(t, dict(t, c, Options{Layout: LayoutHFFP8, DType: d}))
		var want []synth.Tensor
		codes := 0
		for _, x := range plain {
			switch {
			case x.DType == "F8_E4M3":
				codes++
			case !strings.HasSuffix(x.Name, "_scale_inv"):
				x = castTo(x, dtype)
			}
			want = append(want, x)
		}
		if codes == 0 {
			t.Fatal("nothing is quantized")
		}
		equal(t, dict(t, c, Options{Layout: LayoutHFFP8, DType: d, Cast: CastAll}), want)
	}
}

// A cast tensor is accounted for as used, one that has the dtype already as passed.
func TestCastTensorsAreUsed(t *testing.T) {
	p, err := NewPlan(opened(t, castSource()),
		Options{Layout: LayoutHF, DType: safetensors.F16, Cast: CastAll})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]Fate{"model.extra.f32": Used, "model.extra.f64": Used,
		"model.extra.f16": Passed, "model.extra.i64": Passed, "model.norm.weight": Used} {
		i := slices.IndexFunc(p.Account, func(a Account) bool { return a.Key == key })
		if i < 0 || p.Account[i].Fate != want {
			t.Errorf("%s: not %v", key, want)
		}
	}
}

// A native checkpoint without quantization becomes F32 throughout.
func TestPlainSourcesAreCastToo(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 2, Plain: true}))
	delete(s.Config, "quantization_config")
	c := opened(t, s)
	d := dict(t, c, Options{Layout: LayoutHF, DType: safetensors.F32, Cast: CastAll})
	for _, x := range s.HF("BF16") {
		l := mustTensor(t, d, x.Name)
		if w := castTo(x, "F32"); l.DType() != safetensors.F32 ||
			!slices.Equal(content(t, l), w.Data) {
			t.Errorf("%s: %s", x.Name, l.Recipe())
		}
	}
	if dtype := configOf(t, d.Plan)["torch_dtype"]; dtype != "float32" {
		t.Errorf("torch_dtype is %v", dtype)
	}
}
