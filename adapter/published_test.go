package adapter

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// published is a folder as people have published it.
type published struct {
	texts map[string]string         // files of text
	files map[string][]synth.Tensor // .safetensors

	shown   []string // tensors of the view, as "key DTYPE [shape]", in the order of their keys
	dropped []string // keys that no view shows
	refused []string // parts of the message, where the folder is refused
}

// write writes the folder.
func (p published) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, tensors := range p.files {
		from := t.TempDir()
		if err := (&synth.Checkpoint{Single: true, Tensors: tensors}).Write(from); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(from, "model.safetensors"),
			filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range p.texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// quantizedBy gives a config.json with a quantization_config.
func quantizedBy(quantization string) map[string]string {
	return map[string]string{"config.json": `{"quantization_config": ` + quantization + `}`}
}

// inOneFile gives a folder with one file.
func inOneFile(tensors ...synth.Tensor) map[string][]synth.Tensor {
	return map[string][]synth.Tensor{"model.safetensors": tensors}
}

const plainGPTQ = `{"bits": 4, "group_size": 32, "desc_act": false, "sym": true, "damp_percent": 0.01}`

// stockGPTQ is a weight of 32 rows and 64 columns.
func stockGPTQ(module string) []synth.Tensor {
	return []synth.Tensor{stock(module+".qweight", "I32", 8, 32),
		stock(module+".qzeros", "I32", 2, 4), stock(module+".scales", "F16", 2, 32)}
}

// stockPack is a weight of 8 rows and 64 columns, as compressed-tensors stores it.
func stockPack(module string) []synth.Tensor {
	return []synth.Tensor{stock(module+".weight_packed", "I32", 8, 8),
		stock(module+".weight_scale", "BF16", 8, 2), stockNumbers(module+".weight_shape", "I64", 8, 64)}
}

// stockFP8 is a weight of 8 rows and 64 columns with one scale.
func stockFP8(module string) []synth.Tensor {
	return []synth.Tensor{stock(module+".weight", "F8_E4M3", 8, 64),
		stock(module+".weight_scale", "F32", 1)}
}

var publishedFolders = map[string]published{
	"experts of MXFP4 under a plain FP8 configuration": {
		texts: quantizedBy(`{"quant_method": "fp8", "weight_block_size": [128, 128]}`),
		files: map[string][]synth.Tensor{
			"model_pp0_ep0_shard0.safetensors": {
				stock("model.layers.0.mlp.experts.0.up_proj.weight", "U8", 8, 32),
				stock("model.layers.0.mlp.experts.0.up_proj.weight_scale", "U8", 8, 2)},
			"model_pp0_ep1_shard0.safetensors": {
				stock("model.layers.0.self_attn.o_proj.weight", "F8_E4M3", 130, 64),
				stock("model.layers.0.self_attn.o_proj.weight_scale_inv", "F32", 2, 1)},
		},
		shown: []string{"model.layers.0.mlp.experts.0.up_proj.weight BF16 [8 64]",
			"model.layers.0.self_attn.o_proj.weight BF16 [130 64]"},
	},
	"parameters that end in .scale": {
		texts: quantizedBy(deepseek4),
		files: inOneFile(stock("layers.0.attn_hc.scale", "F32", 3),
			stock("layers.0.ffn_hc.scale", "F32", 3),
			stock("layers.0.attn.wkv.weight", "F8_E4M3", 8, 8),
			stock("layers.0.attn.wkv.scale", "F8_E8M0", 1, 1)),
		shown: []string{"layers.0.attn.wkv.weight BF16 [8 8]", "layers.0.attn_hc.scale F32 [3]",
			"layers.0.ffn_hc.scale F32 [3]"},
	},
	"a bias for every layer": {
		texts: quantizedBy(plainGPTQ),
		files: inOneFile(append(stockGPTQ("model.layers.0.mlp.up_proj"),
			stock("model.layers.0.mlp.up_proj.bias", "F16", 32))...),
		shown: []string{"model.layers.0.mlp.up_proj.bias F16 [32]",
			"model.layers.0.mlp.up_proj.weight BF16 [32 64]"},
	},
	"one file of an odd name, configured beside config.json": {
		texts: map[string]string{"config.json": `{"torch_dtype": "float32"}`,
			"quantize_config.json": plainGPTQ},
		files: map[string][]synth.Tensor{"something-4bit-128g.no-act.order.safetensors": append(
			stockGPTQ("model.layers.0.mlp.up_proj"), stock("model.norm.weight", "F32", 4))},
		shown: []string{"model.layers.0.mlp.up_proj.weight BF16 [32 64]", "model.norm.weight F32 [4]"},
	},
	"rotated weights": {
		texts:   map[string]string{"config.json": `{"online-rotate": true, "quantization_config": ` + ctInt4 + `}`},
		files:   inOneFile(stockPack("model.layers.0.mlp.up_proj")...),
		refused: []string{"online-rotate", "rotated"},
	},
	"leftovers of caches and activations": {
		texts: quantizedBy(`{"quant_method": "modelopt", "quant_algo": "FP8"}`),
		files: inOneFile(append(append(stockFP8("model.layers.0.self_attn.k_proj"),
			stockFP8("model.layers.0.self_attn.v_proj")...),
			stock("model.layers.0.self_attn.k_proj.k_scale", "F32"),
			stock("model.layers.0.self_attn.v_proj.v_scale", "F32"),
			stock("model.layers.0.self_attn.k_proj.k_bias", "F32"),
			stock("model.layers.0.self_attn.v_proj.v_bias", "F32"),
			stock("model.layers.0.self_attn.kv_scale", "F32"),
			stock("model.layers.0.self_attn.k_proj.input_scale", "F32"))...),
		shown: []string{"model.layers.0.self_attn.k_proj.weight BF16 [8 64]",
			"model.layers.0.self_attn.v_proj.weight BF16 [8 64]"},
		dropped: []string{"k_proj.input_scale", "k_proj.k_bias", "k_proj.k_scale",
			"self_attn.kv_scale", "v_proj.v_bias", "v_proj.v_scale"},
	},
	"fake quantizers of Mistral": {
		texts: map[string]string{"params.json": `{"dim": 64, "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}}`},
		files: map[string][]synth.Tensor{"consolidated.safetensors": {
			stock("layers.0.attention.wq.weight", "F8_E4M3", 8, 64),
			stock("layers.0.attention.wq.qscale_weight", "BF16"),
			stock("layers.0.attention.wq.qscale_act", "BF16"),
			stock("layers.0.attention.q_fake_quantizer.qscale_act", "BF16"),
			stock("layers.0.attention.k_fake_quantizer.qscale_act", "BF16"),
			stock("layers.0.attention.v_fake_quantizer.qscale_act", "BF16"),
			stock("layers.0.attention.kv_fake_quantizer.qscale_act", "BF16")}},
		shown: []string{"layers.0.attention.wq.weight BF16 [8 64]"},
		dropped: []string{"k_fake_quantizer.qscale_act",
			"kv_fake_quantizer.qscale_act", "q_fake_quantizer.qscale_act",
			"v_fake_quantizer.qscale_act", "wq.qscale_act"},
	},
	"NVFP4 in another encoding": {
		texts: quantizedBy(`{"quant_method": "compressed-tensors", "weight_scale_encoding": "csf"}`),
		files: inOneFile(stock("model.layers.0.mlp.up_proj.weight_packed", "U8", 8, 32),
			stock("model.layers.0.mlp.up_proj.weight_scale.nvfp4_csf_fixed", "U8", 8, 4),
			stock("model.layers.0.mlp.up_proj.weight_scale.nvfp4_csf_exceptions", "U32", 2),
			stock("model.layers.0.mlp.up_proj.weight_global_scale", "F32", 1)),
		refused: []string{"model.layers.0.mlp.up_proj.weight", "NVFP4-CSF"},
	},
	"MLX": {
		texts: map[string]string{"config.json": `{
			"quantization": {"group_size": 64, "bits": 4, "model.layers.0.mlp.up_proj": {"bits": 8}},
			"quantization_config": {"group_size": 64, "bits": 4, "model.layers.0.mlp.up_proj": {"bits": 8}}}`},
		files: inOneFile(stock("model.layers.0.mlp.up_proj.weight", "U32", 8, 8),
			stock("model.layers.0.mlp.up_proj.scales", "BF16", 8, 1),
			stock("model.layers.0.mlp.up_proj.biases", "BF16", 8, 1)),
		refused: []string{"model.layers.0.mlp.up_proj.weight", "MLX"},
	},
	"FP4 as a dtype": {
		texts:   quantizedBy(moNVFP4),
		files:   inOneFile(stock("model.layers.0.mlp.up_proj.weight", "F4", 0, 64)),
		refused: []string{"model.layers.0.mlp.up_proj.weight", "FP4"},
	},
	"a global scale in BF16, and a group of another name": {
		texts: quantizedBy(strings.NewReplacer("group_0", "config_group_0", `"Linear"`,
			`"re:model[.]layers[.].*"`).Replace(ctNVFP4)),
		files: inOneFile(stock("model.layers.0.mlp.up_proj.weight_packed", "U8", 8, 32),
			stock("model.layers.0.mlp.up_proj.weight_scale", "F8_E4M3", 8, 4),
			stock("model.layers.0.mlp.up_proj.weight_global_scale", "BF16", 1)),
		shown: []string{"model.layers.0.mlp.up_proj.weight BF16 [8 64]"},
	},
	"an FP8 head beside INT4 layers": {
		texts: quantizedBy(ctInt4),
		files: map[string][]synth.Tensor{
			"model-00001-of-00001.safetensors": append(stockPack("model.layers.0.mlp.up_proj"),
				stock("lm_head.weight", "F8_E4M3", 11, 20),
				stock("lm_head.weight_scale", "BF16", 11, 1)),
			"model_mtp.safetensors": stockPack("mtp.layers.0.mlp.up_proj"),
		},
		shown: []string{"lm_head.weight BF16 [11 20]",
			"model.layers.0.mlp.up_proj.weight BF16 [8 64]",
			"mtp.layers.0.mlp.up_proj.weight BF16 [8 64]"},
	},
	"a pack of compressed-tensors by auto-round": {
		texts: quantizedBy(`{"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor", "bits": 4, "group_size": 32, "sym": true, "data_type": "int", "provider": "auto-round", "model_free": true}`),
		files: inOneFile(stockPack("model.layers.0.mlp.up_proj")...),
		shown: []string{"model.layers.0.mlp.up_proj.weight BF16 [8 64]"},
	},
	"FP8 by auto-round": {
		texts: quantizedBy(`{"quant_method": "auto-round", "packing_format": "auto_round:fp8", "bits": 8, "group_size": -1, "sym": true, "data_type": "fp"}`),
		files: inOneFile(stockFP8("model.layers.0.mlp.up_proj")...),
		shown: []string{"model.layers.0.mlp.up_proj.weight BF16 [8 64]"},
	},
	"FP8 by auto-round under a short name": {
		texts: quantizedBy(`{"quant_method": "auto-round", "packing_format": "fp8", "bits": 8, "sym": true, "data_type": "fp"}`),
		files: inOneFile(stockFP8("model.layers.0.mlp.up_proj")...),
		shown: []string{"model.layers.0.mlp.up_proj.weight BF16 [8 64]"},
	},
	"Mistral without scales of activations": {
		texts: map[string]string{"params.json": `{"dim": 64, "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "NO_SCALES"}}`},
		files: map[string][]synth.Tensor{"consolidated.safetensors": {
			stock("layers.0.attention.wq.weight", "F8_E4M3", 8, 64),
			stock("layers.0.attention.wq.qscale_weight", "BF16"), stock("norm.weight", "BF16", 64)}},
		shown: []string{"layers.0.attention.wq.weight BF16 [8 64]", "norm.weight BF16 [64]"},
	},
	"Mistral's layout with compressed-tensors": {
		texts: map[string]string{"params.json": `{"dim": 64, "quantization": ` + ctNVFP4 + `}`},
		files: map[string][]synth.Tensor{"consolidated-00001-of-00001.safetensors": {
			stock("layers.0.attention.wq.weight_packed", "U8", 8, 32),
			stock("layers.0.attention.wq.weight_scale", "F8_E4M3", 8, 4),
			stock("layers.0.attention.wq.weight_global_scale", "F32", 1)}},
		shown: []string{"layers.0.attention.wq.weight BF16 [8 64]"},
	},
}

// Folders hold things that no description of a format mentions. Each passes, is dropped, or is
// refused by name.
func TestPublishedFoldersAreShownAsTheirModelsAre(t *testing.T) {
	for name, p := range publishedFolders {
		t.Run(name, func(t *testing.T) {
			plan, err := planOf(t, p.write(t))
			if p.refused != nil {
				if err == nil {
					t.Fatal("a plan, want an error")
				}
				wantMessage(t, err.Error(), p.refused)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var shown, dropped []string
			for _, x := range plan.Tensors {
				shown = append(shown, fmt.Sprint(x.Name, " ", x.Node.DType(), " ", x.Node.Shape()))
			}
			for _, a := range plan.Account {
				if a.Fate == Dropped {
					dropped = append(dropped, lastParts(a.Key, 2))
				}
			}
			slices.Sort(shown)
			slices.Sort(dropped)
			if !slices.Equal(shown, p.shown) {
				t.Errorf("shown\n%q, want\n%q", shown, p.shown)
			}
			if !slices.Equal(dropped, p.dropped) {
				t.Errorf("dropped\n%q, want\n%q", dropped, p.dropped)
			}
		})
	}
}

// planOf opens a folder and plans the hf view in BF16.
func planOf(t *testing.T, dir string) (*Plan, error) {
	t.Helper()
	c, err := Open(t.Context(), dir, OpenOptions{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return NewPlan(c, Options{Layout: LayoutHF, DType: dtypes["BF16"]})
}

// lastParts gives the last n parts of a key.
func lastParts(key string, n int) string {
	parts := strings.Split(key, ".")
	return strings.Join(parts[max(len(parts)-n, 0):], ".")
}
