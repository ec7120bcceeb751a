package adapter

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// without removes the tensors whose names match.
func without(c *synth.Checkpoint, pattern string) {
	re := regexp.MustCompile(pattern)
	matches := func(t synth.Tensor) bool { return re.MatchString(t.Name) }
	c.Tensors = slices.DeleteFunc(c.Tensors, matches)
}

// with adds a tensor of zeros.
func with(c *synth.Checkpoint, name, dtype string, shape ...int64) {
	c.Tensors = append(c.Tensors, synth.Tensor{Name: name, DType: dtype, Shape: shape})
}

// reshaped replaces a tensor by one of zeros.
func reshaped(c *synth.Checkpoint, name, dtype string, shape ...int64) {
	t := c.Find(name)
	*t = synth.Tensor{Name: name, DType: dtype, Shape: shape, Shard: t.Shard}
}

// Each source is wrong in one way; the message says where and what.
func TestWrongSourcesAreRefused(t *testing.T) {
	const expert = "model.layers.1.mlp.experts."
	const q = "model.layers.0.self_attn.q_a_proj.weight"
	for name, test := range map[string]struct {
		break_ func(*synth.Checkpoint)
		o      Options
		want   []string
	}{
		"scale without weight": {
			func(c *synth.Checkpoint) { without(c, "0.self_attn.q_a_proj.weight$") }, Options{},
			[]string{q + "_scale_inv", "without its weight", ".safetensors"},
		},
		"weight without scale": {
			func(c *synth.Checkpoint) { without(c, "0.self_attn.q_a_proj.weight_scale_inv$") }, Options{},
			[]string{q, "without its scale", ".safetensors"},
		},
		"grid of no known blocks": {
			func(c *synth.Checkpoint) { reshaped(c, expert+"0.gate_proj.weight_scale_inv", "F32", 2, 1) }, Options{},
			[]string{expert + "0.gate_proj.weight_scale_inv", expert + "0.gate_proj.weight", "[128 256]", "blocks of 128 × 128 [1 2]"},
		},
		"integer grid": {
			func(c *synth.Checkpoint) { reshaped(c, q+"_scale_inv", "I32", 1, 2) }, Options{},
			[]string{q + "_scale_inv", "I32", "expected F32"},
		},
		"two scales": {
			func(c *synth.Checkpoint) { with(c, q+"_scale", "F32", 1, 2) }, Options{},
			[]string{"second scale", q},
		},
		"two scales, one of them a name that parameters have too": {
			func(c *synth.Checkpoint) { with(c, strings.TrimSuffix(q, "weight")+"scale", "F32", 1, 2) }, Options{},
			[]string{"second scale", q},
		},
		"scale of a weight that is not FP8": {
			func(c *synth.Checkpoint) { with(c, "lm_head.weight_scale", "F32", 1) }, Options{},
			[]string{"lm_head.weight", "BF16", "expected F8_E4M3"},
		},
		"missing experts": {
			func(c *synth.Checkpoint) { without(c, `experts\.[123]\.`) }, Options{},
			[]string{"missing", expert + "1.gate_proj.weight, " + expert + "2.gate_proj.weight, " + expert + "3.gate_proj.weight, " + expert + "1.up_proj.weight", "and 4 more", "may be incomplete, or config.json that of another model"},
		},
		"missing experts under their own keys": {
			func(c *synth.Checkpoint) { without(c, `experts\.[123]\.`) }, Options{Layout: LayoutHF},
			[]string{"missing", expert + "1.gate_proj.weight", "and 4 more", "--exclude"},
		},
		"missing experts that are to be quantized": {
			func(c *synth.Checkpoint) { without(c, `experts\.2\.down_proj`) }, Options{Layout: LayoutHFFP8},
			[]string{"missing", expert + "2.down_proj.weight", "--exclude"},
		},
		"missing experts of the rank": {
			func(c *synth.Checkpoint) { without(c, `experts\.[12]\.down_proj`) }, Options{EP: EP{1, 2}},
			[]string{"rank 1 of 2", expert + "2.down_proj.weight"},
		},
		"experts beyond their number": {
			func(c *synth.Checkpoint) { with(c, expert+"4.up_proj.weight", "BF16", 128, 256) }, Options{Layout: "hf"},
			[]string{expert + "4.up_proj.weight", "n_routed_experts = 4"},
		},
		"an expert twice": {
			func(c *synth.Checkpoint) { with(c, expert+"01.up_proj.weight", "BF16", 128, 256) }, Options{},
			[]string{expert + "01.up_proj.weight", expert + "1.up_proj.weight", "remove one"},
		},
		"experts of other sizes": {
			func(c *synth.Checkpoint) {
				without(c, expert+"1.up_proj.weight_scale_inv")
				reshaped(c, expert+"1.up_proj.weight", "BF16", 64, 256)
			}, Options{},
			[]string{expert + "1.up_proj.weight", "shape [64 256]", expert + "0.up_proj.weight has [128 256]"},
		},
		"grouped and split": {
			func(c *synth.Checkpoint) { with(c, expert+"down_proj", "BF16", 4, 256, 128) }, Options{Layout: "hf"},
			[]string{expert + "down_proj", "layer 1", "grouped and also split", "remove one"},
		},
		"grouped experts of another number": {
			func(c *synth.Checkpoint) {
				without(c, `layers\.1\.mlp\.experts`)
				with(c, expert+"gate_up_proj", "BF16", 3, 256, 256)
			}, Options{},
			[]string{expert + "gate_up_proj", "holds 3 experts, expected 4"},
		},
		"grouped experts without a part": {
			func(c *synth.Checkpoint) {
				without(c, `layers\.1\.mlp\.experts`)
				with(c, expert+"gate_up_proj", "BF16", 4, 256, 256)
			}, Options{},
			[]string{"down projections of layer 1"},
		},
		"grouped experts that do not divide": {
			func(c *synth.Checkpoint) {
				without(c, `layers\.1\.mlp\.experts`)
				with(c, expert+"gate_up_proj", "BF16", 4, 255, 256)
			}, Options{Layout: "hf"},
			[]string{expert + "gate_up_proj", "does not divide"},
		},
		"packs": {
			func(c *synth.Checkpoint) { with(c, "model.layers.0.x.weight_packed", "I32", 8, 8) }, Options{Layout: "hf"},
			[]string{"model.layers.0.x.weight_packed", "compressed-tensors"},
		},
		"GPTQ": {
			func(c *synth.Checkpoint) { with(c, "model.layers.0.x.qweight", "I32", 8, 8) }, Options{Layout: "hf"},
			[]string{"model.layers.0.x.qweight", "GPTQ or AWQ"},
		},
		"gpt-oss": {
			func(c *synth.Checkpoint) { with(c, "model.layers.0.mlp.experts.down_proj_blocks", "U8", 8, 8) }, Options{Layout: "hf"},
			[]string{"down_proj_blocks", "MXFP4"},
		},
		"bitsandbytes": {
			func(c *synth.Checkpoint) { with(c, "model.layers.0.x.weight.absmax", "F32", 8) }, Options{Layout: "hf"},
			[]string{"absmax", "bitsandbytes"},
		},
		"bytes": {
			func(c *synth.Checkpoint) { with(c, "model.layers.0.x.weight", "U8", 8, 8) }, Options{Layout: "hf"},
			[]string{"model.layers.0.x.weight", "pack of bytes", `quant_method "fp8"`},
		},
		"groups where blocks are configured": {
			func(c *synth.Checkpoint) {
				with(c, "model.layers.0.x.weight", "F8_E4M3", 8, 64)
				with(c, "model.layers.0.x.weight_scale_inv", "U8", 8, 2)
			}, Options{Layout: "hf"},
			[]string{"model.layers.0.x.weight_scale_inv", "larger grid", "groups of 32 in a row"},
		},
		"other FP8": {
			func(c *synth.Checkpoint) { with(c, "model.layers.0.x.weight", "F8_E4M3FNUZ", 8, 64) }, Options{Layout: "hf"},
			[]string{"model.layers.0.x.weight", "FNUZ"},
		},
		"rank out of range": {
			func(*synth.Checkpoint) {}, Options{EP: EP{2, 2}},
			[]string{"rank 2 of 2"},
		},
		"unknown layout": {
			func(*synth.Checkpoint) {}, Options{Layout: "gguf"},
			[]string{`"gguf"`, "there are native, hf, split, transformers, torchtitan and hf-fp8"},
		},
		"layout that the family has not": {
			func(c *synth.Checkpoint) { c.Config["model_type"] = "deepseek_v32" }, Options{Layout: "torchtitan"},
			[]string{"deepseek_v32", "torchtitan", "it has native, hf, split, transformers and hf-fp8"},
		},
		"unknown family": {
			func(c *synth.Checkpoint) { c.Config["model_type"] = "novel" }, Options{Layout: "native"},
			[]string{`"novel" is not known, so it has no layout native`, "by n_routed_experts in config.json it may have experts", "it has hf, split and hf-fp8"},
		},
		"no family": {
			func(c *synth.Checkpoint) { delete(c.Config, "model_type") }, Options{Layout: "native"},
			[]string{"config.json has no model_type, which says what layout native is like", "--layout hf, which works for every model"},
		},
		"rank of an unknown family": {
			func(c *synth.Checkpoint) { c.Config["model_type"] = "novel" }, Options{Layout: "hf", EP: EP{0, 2}},
			[]string{`"novel"`, "leave --ep out"},
		},
		"dtype": {
			func(*synth.Checkpoint) {}, Options{DType: safetensors.I8},
			[]string{"I8", "BF16, F16 or F32"},
		},
		"mtp": {
			func(*synth.Checkpoint) {}, Options{MTP: "maybe"},
			[]string{`"maybe"`, "auto, keep or drop"},
		},
		"scales": {
			func(*synth.Checkpoint) {}, Options{Scales: "two"},
			[]string{`"two"`, "amax or ones"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := synth.DeepSeek(synth.Options{Layers: 2, Vocab: 8, DenseIntermediate: 8, Heads: 1})
			test.break_(s)
			p, err := NewPlan(opened(t, s), test.o)
			if err == nil {
				t.Fatalf("a plan of %d tensors, want an error", len(p.Tensors))
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q has more than one line", err)
			}
		})
	}
}

// A checkpoint without some of its experts is shown to a user who says which are to be left out.
// The others are as they are in the whole.
func TestMissingExpertsCanBeExcluded(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Experts: 4, Hidden: 64, ExpertIntermediate: 32}))
	without(s, `layers\.1\.mlp\.experts\.2\.(up|down)_proj`)
	c := opened(t, s)
	gone := regexp.MustCompile(`model\.layers\.1\.mlp\.experts\.2\.`)
	d := dict(t, c, Options{Layout: LayoutHF, Exclude: gone})
	equal(t, d, slices.DeleteFunc(s.HF("BF16"),
		func(x synth.Tensor) bool { return gone.MatchString(x.Name) }))
	if len(d.Plan.Notes) > 0 {
		t.Errorf("notes %q", d.Plan.Notes)
	}

	half := regexp.MustCompile(`model\.layers\.1\.mlp\.experts\.2\.up_proj`)
	_, err := NewPlan(c, Options{Layout: LayoutHF, Exclude: half})
	if err == nil || strings.Contains(err.Error(), "up_proj") ||
		!strings.Contains(err.Error(), "experts.2.down_proj.weight") {
		t.Errorf("error %v, want one about down_proj alone", err)
	}
	if _, err := NewPlan(c, Options{Layout: LayoutHF, EP: EP{0, 2}}); err != nil {
		t.Errorf("a rank that has all its experts: %v", err)
	}
}

// One shard of several may be shown alone. The experts of the others are noted, not refused, where
// each has a tensor of its own.
func TestMissingExpertsOfOneShardAreNoted(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Experts: 4, Hidden: 64, ExpertIntermediate: 32,
		Single: true}))
	without(s, `experts\.3\.`)
	dir := t.TempDir()
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	c := openedAt(t, filepath.Join(dir, "model.safetensors"))
	d := dict(t, c, Options{Layout: LayoutHF})
	equal(t, d, s.HF("BF16"))
	if len(d.Plan.Notes) != 1 || !strings.Contains(d.Plan.Notes[0], "experts.3.gate_proj.weight") {
		t.Errorf("notes %q, want one that names the first missing key", d.Plan.Notes)
	}
	if _, err := NewPlan(c, Options{Layout: LayoutNative}); err == nil ||
		!strings.Contains(err.Error(), "missing") {
		t.Errorf("grouped: error %v, want one about the missing experts", err)
	}
}

func TestUnknownFamilyStillHasHF(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Hidden: 64, ExpertIntermediate: 32}))
	s.Config["model_type"] = "novel"
	c := opened(t, s)
	if got := Layouts(c); !slices.Equal(got, []string{"hf"}) {
		t.Errorf("layouts %v, want hf alone", got)
	}
	equal(t, dict(t, c, Options{}), s.HF("BF16"))
}

func TestScalesOfActivationsAreDropped(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Hidden: 64, ExpertIntermediate: 32,
		ScaleSuffix: "_scale"}))
	want := s.HF("BF16")
	for _, end := range []string{"q_a_proj.input_scale", "q_a_proj.activation_scale", "k_scale",
		"v_scale", "k_proj.k_scale"} {
		with(s, "model.layers.0.self_attn."+end, "F32")
	}
	d := dict(t, opened(t, s), Options{Layout: "hf"})
	equal(t, d, want)
	dropped := 0
	for _, a := range d.Plan.Account {
		if a.Fate == Dropped {
			dropped++
		}
	}
	if dropped != 5 {
		t.Errorf("%d keys dropped, want 5", dropped)
	}

	// Without quantization such names are a model's own.
	s = synth.DeepSeek(small(synth.Options{Hidden: 64, ExpertIntermediate: 32, Plain: true}))
	delete(s.Config, "quantization_config")
	want = s.HF("BF16")
	with(s, "model.layers.0.self_attn.k_scale", "F32")
	want = append(want, synth.Tensor{Name: "model.layers.0.self_attn.k_scale", DType: "F32",
		Data: make([]byte, 4)})
	equal(t, dict(t, opened(t, s), Options{Layout: "hf"}), want)
}

// A config.json that claims very many experts is refused as fast as any other.
func TestMissingExpertsAreCountedNotListed(t *testing.T) {
	x := expertLayer{layerID: layerID{"model.", 1}, head: "model.layers.1."}
	x.split[up] = []*weight{{}, nil, {}}
	var m missingKeys
	x.missing(mlpExperts("n"), 0, 1<<30, &m)
	want := []string{
		"model.layers.1.mlp.experts.1.up_proj.weight", "model.layers.1.mlp.experts.3.up_proj.weight",
		"model.layers.1.mlp.experts.4.up_proj.weight", "model.layers.1.mlp.experts.5.up_proj.weight",
		"model.layers.1.mlp.experts.6.up_proj.weight",
	}
	if n := 1<<30 - 2 + 1<<30; m.n != n || !slices.Equal(m.first, want) {
		t.Errorf("%d missing, the first %v; want %d, the first %v", m.n, m.first, n, want)
	}
}
