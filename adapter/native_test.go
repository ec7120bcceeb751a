package adapter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// The goldens are what from_hf of the reference's adapters made of small checkpoints. Those of the
// families are compared in package fs.
func TestNativeEqualsTheAdapters(t *testing.T) {
	paths, err := filepath.Glob("../testdata/golden/formats/*/expected.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d goldens, error %v", len(paths), err)
	}
	tried := 0
	for _, path := range paths {
		if !hasNative(t, path) {
			continue
		}
		tried++
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			d := dict(t, openedAt(t, filepath.Dir(path)), Options{Layout: LayoutNative,
				DType: safetensors.BF16})
			equalNative(t, d, path)
		})
	}
	if tried < 24 {
		t.Errorf("%d goldens with a layout native, want more", tried)
	}
}

// hasNative reports whether a golden gives the layout native.
func hasNative(t *testing.T, path string) bool {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(raw, []byte(`"native": {`))
}

// equalNative compares a view in BF16 with the layout native of an expected.json.
func equalNative(t *testing.T, d *StateDict, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Native map[string]struct {
			Shape               []int64
			DType, SHA256, BF16 string
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	if d.Len() != len(golden.Native) || d.Len() == 0 {
		t.Errorf("%d tensors, want %d", d.Len(), len(golden.Native))
	}
	for name, want := range golden.Native {
		got, ok := d.Tensor(name)
		if !ok {
			t.Errorf("%s: missing", name)
			continue
		}
		if want.DType == "" {
			want.DType, want.SHA256 = "BF16", want.BF16
		}
		sum := sha256.Sum256(content(t, got))
		if hex.EncodeToString(sum[:]) != want.SHA256 || got.DType().String() != want.DType ||
			!slices.Equal(got.Shape(), want.Shape) {
			t.Errorf("%s: %s %v, or other bytes than the adapter's: want %s %v", name,
				got.DType(), got.Shape(), want.DType, want.Shape)
		}
	}
}

// randomListed is a listed source with random bytes.
func randomListed(t *testing.T, name string) *synth.Checkpoint {
	t.Helper()
	s := synthetic(t, listed[name].config, listed[name].tensors)
	rng := rand.New(rand.NewPCG(11, 12))
	for i := range s.Tensors {
		x := &s.Tensors[i]
		x.Data = synth.Random(rng, x.DType, x.Shape)
	}
	return s
}

// expertKey is the key of one projection of one expert, as families call it.
var expertKey = regexp.MustCompile(
	`\.experts\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight$`)

// stackedByHand makes a grouped tensor of the layout native from the tensors of the layout hf that
// go into it, number by number.
func stackedByHand(name string, from []synth.Tensor) synth.Tensor {
	var experts [roles][]synth.Tensor
	for _, x := range from {
		m := expertKey.FindStringSubmatch(x.Name)
		e, _ := strconv.Atoi(m[1])
		r := map[string]role{"gate_proj": gate, "w1": gate, "up_proj": up, "w3": up}[m[2]]
		if m[2] == "down_proj" || m[2] == "w2" {
			r = down
		}
		for len(experts[r]) <= e {
			experts[r] = append(experts[r], synth.Tensor{})
		}
		experts[r][e] = x
	}
	parts := experts[gate : up+1]
	if len(experts[down]) > 0 {
		parts = experts[down:]
	}
	last := parts[len(parts)-1]
	out := synth.Tensor{Name: name, DType: from[0].DType,
		Shape: []int64{int64(len(last)), last[0].Shape[1], 0}}
	for _, p := range parts {
		if len(p) > 0 {
			out.Shape[2] += p[0].Shape[0]
		}
	}
	width := int64(len(last[0].Data)) / (last[0].Shape[0] * last[0].Shape[1])
	for e := range last {
		for column := range last[0].Shape[1] {
			for _, p := range parts {
				if len(p) == 0 {
					continue
				}
				for row := range p[e].Shape[0] {
					at := (row*p[e].Shape[1] + column) * width
					out.Data = append(out.Data, p[e].Data[at:at+width]...)
				}
			}
		}
	}
	return out
}

// Experts of every family are stacked as by hand, in every dtype. Other tensors have the values of
// layout hf.
func TestNativeExpertsEqualStackingByHand(t *testing.T) {
	for _, name := range []string{"kimi_k25", "kimi_k3", "deepseek_v4", "deepseek_v41",
		"minimax_m3", "minimax_m3_vl", "nemotron_v3"} {
		t.Run(name, func(t *testing.T) {
			c := opened(t, randomListed(t, name))
			for dtype, d := range dtypes {
				native := dict(t, c, Options{Layout: LayoutNative, DType: d})
				hf := dict(t, c, Options{Layout: LayoutHF, DType: d})
				from := map[string][]synth.Tensor{}
				for _, a := range native.Plan.Account {
					if l, ok := hf.Tensor(a.Key); ok && len(a.Into) > 0 {
						from[a.Into[0]] = append(from[a.Into[0]], synth.Tensor{Name: a.Key,
							DType: l.DType().String(), Shape: l.Shape(), Data: content(t, l)})
					}
				}
				groups := 0
				for l := range native.All() {
					if !strings.HasSuffix(l.Name(), "_projs") {
						continue
					}
					groups++
					want := stackedByHand(l.Name(), inDType(from[l.Name()], dtype))
					if l.DType() != d || !slices.Equal(l.Shape(), want.Shape) ||
						!bytes.Equal(content(t, l), want.Data) {
						t.Errorf("%s: %s %v, or other bytes, want %s %v", l.Name(), l.DType(),
							l.Shape(), dtype, want.Shape)
					}
				}
				if groups < 2 {
					t.Errorf("%d groups, want more", groups)
				}
			}
		})
	}
}

// inDType converts BF16 tensors, number by number.
func inDType(ts []synth.Tensor, dtype string) []synth.Tensor {
	for i, x := range ts {
		if x.DType == dtype {
			continue
		}
		var data []byte
		for j := range len(x.Data) / 2 {
			data = append(data, synth.Round(dtype, number32(x, int64(j)))...)
		}
		ts[i].DType, ts[i].Data = dtype, data
	}
	return ts
}

// A missing expert is named, in prediction layers too. A missing group is named by its layer.
func TestMissingExpertsOfEveryFamilyAreNamed(t *testing.T) {
	for name, keys := range map[string][]string{
		"kimi_k25":      {"language_model.model.layers.1.mlp.experts.1.up_proj.weight"},
		"kimi_k3":       {"language_model.model.layers.1.block_sparse_moe.experts.0.w3.weight"},
		"deepseek_v4":   {"layers.1.ffn.experts.1.w1.weight", "mtp.0.ffn.experts.0.w2.weight"},
		"deepseek_v41":  {"layers.0.ffn.experts.1.w1.weight"},
		"minimax_m3":    {"model.mtp.layers.0.transformer_layer.block_sparse_moe.experts.1.w2.weight"},
		"minimax_m3_vl": {"language_model.model.layers.0.block_sparse_moe.experts.0.w1.weight"},
		"nemotron_v3":   {"backbone.layers.1.mixer.experts.1.up_proj.weight", "mtp.layers.0.mixer.experts.1.down_proj.weight"},
	} {
		for _, key := range keys {
			s := randomListed(t, name)
			without(s, "^"+regexp.QuoteMeta(key)+"$")
			for _, layout := range []string{LayoutNative, LayoutHF} {
				if _, err := NewPlan(opened(t, s), Options{Layout: layout}); err == nil ||
					!strings.Contains(err.Error(), key) {
					t.Errorf("%s, %s without %s: error %v", name, layout, key, err)
				}
			}
		}
	}
	for name, group := range map[string]string{"gpt_oss": "gate_up_proj", "mistral4": "down_proj"} {
		s := randomListed(t, name)
		without(s, `experts\.`+group+"$")
		if _, err := NewPlan(opened(t, s), Options{Layout: LayoutNative}); err == nil ||
			!strings.Contains(err.Error(), "layer 0") {
			t.Errorf("%s without %s: error %v", name, group, err)
		}
	}
}

func TestWrongSourcesOfTheFamiliesAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		family string
		spoil  func(*synth.Checkpoint)
		want   []string
	}{
		"fewer decays than heads": {"kimi_k3", func(c *synth.Checkpoint) {
			reshaped(c, "language_model.model.layers.0.self_attn.A_log", "F32", 2)
		}, []string{"layers.0.self_attn.A_log", "[2]", "3 values or more", ".safetensors"}},
		"no number of heads": {"kimi_k3", func(c *synth.Checkpoint) {
			delete(c.Config["text_config"].(map[string]any), "linear_attn_config")
		}, []string{"layers.0.self_attn.A_log", "linear_attn_config", "num_heads"}},
		"no number of experts for the zeros": {"mistral4_vl", func(c *synth.Checkpoint) {
			delete(c.Config["text_config"].(map[string]any), "n_routed_experts")
		}, []string{"layers.1.mlp.gate.weight", "n_routed_experts", "e_score_correction_bias"}},
		"a bias for another number of experts": {"gpt_oss", func(c *synth.Checkpoint) {
			reshaped(c, "model.layers.0.mlp.experts.down_proj_bias", "BF16", 3, 6)
		}, []string{"experts.down_proj_bias", "[3 6]", "2 experts"}},
		"a bias without axes": {"gpt_oss", func(c *synth.Checkpoint) {
			reshaped(c, "model.layers.0.mlp.experts.down_proj_bias", "BF16")
		}, []string{"experts.down_proj_bias", "[]"}},
		"groups of another number of experts": {"gpt_oss", func(c *synth.Checkpoint) {
			reshaped(c, "model.layers.0.mlp.experts.down_proj", "BF16", 3, 4, 6)
		}, []string{"experts.down_proj", "[3 4 6]", "expected 2"}},
		"groups with two axes": {"gpt_oss", func(c *synth.Checkpoint) {
			reshaped(c, "model.layers.0.mlp.experts.down_proj", "BF16", 8, 6)
		}, []string{"experts.down_proj", "three axes"}},
		"a number of prediction layers that is none": {"deepseek_v4", func(c *synth.Checkpoint) {
			c.Config["num_nextn_predict_layers"] = "two"
		}, []string{"num_nextn_predict_layers", "two"}},
	} {
		s := randomListed(t, test.family)
		test.spoil(s)
		_, err := NewPlan(opened(t, s), Options{Layout: LayoutNative})
		for _, w := range test.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: error %v does not say %q", name, err, w)
			}
		}
	}
}

// A grouped tensor that is read by small pieces reads its source once, in every format. One expert
// reads its own part.
func TestGroupedExpertsOfEveryFormatAreReadOnce(t *testing.T) {
	for _, name := range []string{"gpt_oss", "kimi_k25_int4", "kimi_k3", "deepseek_v4_fp4",
		"deepseek_v41", "minimax_m3", "mistral4", "modelopt_mixed"} {
		t.Run(name, func(t *testing.T) {
			c := openedAt(t, filepath.Join("../testdata/golden/formats", name))
			read, files := 0, map[expr.File]*counted{}
			for _, x := range c.Tensors() {
				if files[x.File] == nil {
					files[x.File] = &counted{x.File, &read}
				}
				x.File = files[x.File]
			}
			d := dict(t, c, Options{Layout: LayoutNative, DType: safetensors.BF16})
			for l := range d.All() {
				if !strings.HasSuffix(l.Name(), "_projs") {
					continue
				}
				stored := 0
				for i, a := range d.Plan.Account {
					if x := c.Tensors()[i]; slices.Contains(a.Into, l.Name()) {
						size, err := safetensors.Size(x.DType, x.Shape)
						if err != nil {
							t.Fatal(err)
						}
						stored += int(size)
					}
				}
				read = 0
				one, err := l.Index(1)
				if err != nil {
					t.Fatal(err)
				}
				want := content(t, one)
				if read > stored/2+16 || read == 0 {
					t.Errorf("%s: one expert of two read %d bytes of %d", l.Name(), read, stored)
				}
				read, d.Env = 0, &recentUnits{}
				l = mustTensor(t, d, l.Name())
				var got []byte
				for off := int64(0); off < l.Size(); off += 100 {
					p := make([]byte, min(100, l.Size()-off))
					if _, err := l.ReadAt(p, off); err != nil {
						t.Fatal(err)
					}
					got = append(got, p...)
				}
				if read > stored {
					t.Errorf("%s: %d bytes read of %d", l.Name(), read, stored)
				}
				if !bytes.Equal(got[len(got)/2:], want) {
					t.Errorf("%s: expert 1 alone has other bytes", l.Name())
				}
			}
		})
	}
}

// A native vector is filled up to a multiple of 128 with zeros, unless it has such a size already.
func TestVectorsAreFilledUpAsPublished(t *testing.T) {
	for size, want := range map[int64]int64{1: 128, 127: 128, 128: 128, 129: 256, 256: 256} {
		s := synthetic(t, listed["kimi_k3"].config, fmt.Sprintf(`
			model.layers.0.self_attn._fp32_params.A_log F32 %d
			model.layers.1.mlp.experts.gate_and_up_projs BF16 2 8 8
			model.layers.1.mlp.experts.down_projs BF16 2 4 8`, size))
		s.Tensors[0].Data = bytes.Repeat([]byte{1}, int(4*size))
		l := mustTensor(t, dict(t, opened(t, s), Options{Layout: LayoutHF}),
			"language_model.model.layers.0.self_attn.A_log")
		full := append(bytes.Clone(s.Tensors[0].Data), make([]byte, 4*(want-size))...)
		if !slices.Equal(l.Shape(), []int64{want}) || !bytes.Equal(content(t, l), full) {
			t.Errorf("%d values become %v, want %d and zeros behind", size, l.Shape(), want)
		}
	}
}

// Grouped experts that are not quantized keep their dtype in the families whose adapter only turns
// or renames them. Every floating tensor of Kimi K2.5 has the dtype of the view.
func TestDTypesAreThoseOfTheAdapters(t *testing.T) {
	for _, test := range []struct{ family, name, dtype string }{
		{"gpt_oss", "model.layers.0.mlp.experts.gate_and_up_projs", "BF16"},
		{"gpt_oss", "model.layers.0.mlp.experts.down_projs", "BF16"},
		{"mistral4", "model.layers.0.mlp.experts.down_projs", "BF16"},
		{"mistral4_vl", "model.language_model.model.layers.1.mlp.experts.gate_and_up_projs", "F32"},
		{"mistral4_vl", "model.language_model.model.layers.1.mlp.experts.down_projs", "F32"},
		{"kimi_k25", "model.language_model.lm_head.weight", "F32"},
		{"kimi_k25", "model.vision_tower.patch_embed.proj.weight", "F32"},
		{"kimi_k3", "lm_head.weight", "BF16"},
		{"kimi_k3", "model.layers.0.self_attn._fp32_params.dt_bias", "F32"},
	} {
		d := dict(t, opened(t, randomListed(t, test.family)), Options{Layout: LayoutNative,
			DType: safetensors.F32})
		if got := mustTensor(t, d, test.name).DType().String(); got != test.dtype {
			t.Errorf("%s: %s is %s, want %s", test.family, test.name, got, test.dtype)
		}
	}
	d := dict(t, opened(t, randomListed(t, "kimi_k25")), Options{Layout: LayoutNative})
	for l := range d.All() {
		if l.DType() != safetensors.BF16 {
			t.Errorf("kimi_k25: %s is %s", l.Name(), l.DType())
		}
	}
}

// The zeros of a router's bias have the dtype of the view if every floating tensor has.
func TestZerosAreCastWithAllOthers(t *testing.T) {
	c := opened(t, randomListed(t, "mistral4_vl"))
	const name = "model.language_model.model.layers.1.mlp.gate.e_score_correction_bias"
	for cast, want := range map[string]safetensors.DType{CastComputed: safetensors.F32,
		CastAll: safetensors.F16} {
		l := mustTensor(t, dict(t, c, Options{Layout: LayoutNative, Cast: cast,
			DType: safetensors.F16}), name)
		if l.DType() != want || !bytes.Equal(content(t, l), make([]byte, l.Size())) {
			t.Errorf("cast %s: %s is %s %x, want zeros of %s", cast, name, l.DType(),
				content(t, l), want)
		}
	}
	c = opened(t, randomListed(t, "mistral4"))
	l := mustTensor(t, dict(t, c, Options{Layout: LayoutNative}),
		"model.layers.0.mlp.gate.e_score_correction_bias")
	if strings.HasPrefix(l.Recipe(), "zeros") {
		t.Errorf("%s is %s, though the source has it", l.Name(), l.Recipe())
	}
}

// predictionModels are configurations with the number of prediction layers left open.
var predictionModels = map[string]string{
	"v4":       `{"model_type": "deepseek_v4", "num_hidden_layers": 2, "num_nextn_predict_layers": %d}`,
	"m3":       `{"model_type": "minimax_m3", "num_hidden_layers": 2, "num_mtp_modules": %d}`,
	"nemotron": `{"model_type": "nemotron_h", "num_hidden_layers": 2, "num_nextn_predict_layers": %d}`,
}

// Which prediction layers are shown, and what they are called.
func TestPredictionLayersOfTheFamilies(t *testing.T) {
	for _, test := range []struct {
		model           string
		count           int
		mtp, keys, want string // names without ".weight"
	}{
		{"v4", 1, MTPAuto, "mtp.0.attn_norm mtp.1.attn_norm", "mtp.layers.0.input_layernorm"},
		{"v4", 0, MTPAuto, "norm mtp.0.attn_norm", "model.norm"},
		{"v4", 0, MTPKeep, "mtp.0.attn_norm", "mtp.layers.0.input_layernorm"},
		{"v4", 1, MTPDrop, "norm mtp.0.attn_norm layers.2.attn_norm", "model.norm"},
		{"v4", 1, MTPAuto, "layers.2.attn_norm layers.3.ffn_norm", "mtp.layers.0.input_layernorm"},
		{"v4", 1, MTPAuto, "model.layers.2.attn.wq model.layers.2.enorm",
			"mtp.layers.0.enorm mtp.layers.0.self_attn.wq"},
		{"v4", 1, MTPAuto, "model.layers.1.attn.wq", "model.layers.1.attn.wq"},
		{"v4", 0, MTPAuto, "layers.2.attn_norm", "model.layers.2.input_layernorm"},
		{"v4", 2, MTPAuto, "mtp.0.norm mtp.1.norm", "mtp.layers.0.norm mtp.layers.1.norm"},
		{"m3", 1, MTPAuto, "model.mtp.layers.0.eh_proj", "model.mtp.layers.0.eh_proj"},
		{"m3", 1, MTPAuto, "model.mtp.layers.5.transformer_layer.self_attn.index_q",
			"model.mtp.layers.5.transformer_layer.self_attn.indexer.index_q"},
		{"m3", 0, MTPAuto, "model.norm model.mtp.layers.0.eh_proj", "model.norm"},
		{"m3", 0, MTPAuto, "model.norm model.layers.2.x", "model.norm model.layers.2.x"},
		{"m3", 0, MTPKeep, "model.mtp.layers.0.eh_proj", "model.mtp.layers.0.eh_proj"},
		{"m3", 1, MTPDrop, "model.norm model.mtp.layers.0.eh_proj", "model.norm"},
		{"nemotron", 3, MTPAuto, "backbone.layers.1.norm backbone.layers.2.norm mtp.layers.0.norm",
			"model.layers.1.norm mtp.layers.0.norm"},
		{"nemotron", 3, MTPKeep, "backbone.layers.2.norm mtp.layers.0.norm",
			"model.layers.2.norm mtp.layers.0.norm"},
		{"nemotron", 3, MTPDrop, "lm_head backbone.layers.2.norm mtp.layers.0.norm", "lm_head"},
		{"nemotron", 0, MTPAuto, "model.embedding model.norm_f", "model.embed_tokens model.norm"},
	} {
		c := synthetic(t, fmt.Sprintf(predictionModels[test.model], test.count),
			strings.ReplaceAll(test.keys+" ", " ", ".weight BF16 4\n"))
		d := dict(t, opened(t, c), Options{Layout: LayoutNative, MTP: test.mtp})
		var got []string
		for l := range d.All() {
			got = append(got, strings.TrimSuffix(l.Name(), ".weight"))
		}
		slices.Sort(got)
		want := strings.Fields(test.want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %v", test, got)
		}
		none := bytes.Contains(d.Plan.Config, []byte(`": 0`))
		if none && strings.Contains(test.want, "mtp.") && test.count > 0 {
			t.Errorf("%+v: the view has prediction layers, config.json has none", test)
		}
	}
}
