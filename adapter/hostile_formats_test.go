package adapter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// soundFormat is a small checkpoint of one format that is in order.
type soundFormat struct {
	config  string
	tensors []synth.Tensor
	side    map[string]string
}

// stock is a tensor of zeros.
func stock(name, dtype string, shape ...int64) synth.Tensor {
	return synth.Tensor{Name: name, DType: dtype, Shape: shape}
}

// stockNumbers is a vector of whole numbers, I32 or I64.
func stockNumbers(name, dtype string, values ...int64) synth.Tensor {
	t := stock(name, dtype, int64(len(values)))
	for _, v := range values {
		for k := range synth.Width(dtype) {
			t.Data = append(t.Data, byte(v>>(8*k)))
		}
	}
	return t
}

// stockText is a vector of bytes.
func stockText(name, data string) synth.Tensor {
	t := stock(name, "U8", int64(len(data)))
	t.Data = []byte(data)
	return t
}

// runsOf gives n numbers from 0 in runs of equal ones.
func runsOf(n, run int64) (values []int64) {
	for i := range n {
		values = append(values, i/run)
	}
	return values
}

const (
	ctInt4    = `{"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32}}}}`
	ctAsym    = `{"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": false, "strategy": "group", "group_size": 32, "actorder": "group"}}}}`
	ctInt8    = `{"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "symmetric": false, "strategy": "channel"}}}}`
	ctNVFP4   = `{"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}}}}`
	ctMXFP4   = `{"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}}}}`
	moNVFP4   = `{"quant_method": "modelopt", "quant_algo": "NVFP4"}`
	awqGemm   = `{"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": true}`
	gptqV1    = `{"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true, "sym": false, "checkpoint_format": "gptq"}`
	bnbNF4    = `{"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "uint8"}`
	bnbInt8   = `{"quant_method": "bitsandbytes", "load_in_8bit": true}`
	deepseek4 = `{"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}`
	quarkFP4  = `{"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32}}}`
)

// Weights have 8 rows and 64 columns, those of GPTQ 32 rows, those of AWQ 16.
const (
	hostileModule = "model.layers.0.mlp.up_proj"
	hostileStack  = "model.layers.0.mlp.experts.down_proj"
	deepExpert    = "layers.0.ffn.experts.0.w1"
	nf4State      = `{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8, 64]}`
	nestedState   = `{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8, 64], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.1}`
)

// soundFormats are built for each test, since a test breaks its own.
func soundFormats() map[string]soundFormat {
	const x, w = hostileModule, hostileModule + ".weight"
	order := stockNumbers(w+"_g_idx", "I32", runsOf(64, 32)...)
	return map[string]soundFormat{
		"INT4 pack": {config: ctInt4, tensors: []synth.Tensor{stock(w+"_packed", "I32", 8, 8),
			stock(w+"_scale", "BF16", 8, 2), stockNumbers(w+"_shape", "I64", 8, 64)}},
		"INT4 pack with zero points": {config: ctAsym, tensors: []synth.Tensor{
			stock(w+"_packed", "I32", 8, 8), stock(w+"_scale", "BF16", 8, 2),
			stockNumbers(w+"_shape", "I64", 8, 64), stock(w+"_zero_point", "I32", 1, 2), order}},
		"INT8": {config: ctInt8, tensors: []synth.Tensor{stock(w, "I8", 8, 64),
			stock(w+"_scale", "BF16", 8, 1), stock(w+"_zero_point", "I8", 8, 1)}},
		"NVFP4": {config: ctNVFP4, tensors: []synth.Tensor{stock(w+"_packed", "U8", 8, 32),
			stock(w+"_scale", "F8_E4M3", 8, 4), stock(w+"_global_scale", "F32", 1)}},
		"MXFP4": {config: ctMXFP4, tensors: []synth.Tensor{stock(w+"_packed", "U8", 8, 32),
			stock(w+"_scale", "U8", 8, 2)}},
		"gpt-oss": {config: `{"quant_method": "mxfp4"}`, tensors: []synth.Tensor{
			stock(hostileStack+"_blocks", "U8", 2, 8, 2, 16), stock(hostileStack+"_scales", "U8", 2, 8, 2)}},
		"AWQ": {config: awqGemm, tensors: []synth.Tensor{stock(x+".qweight", "I32", 64, 2),
			stock(x+".qzeros", "I32", 2, 2), stock(x+".scales", "F16", 2, 16)}},
		"GPTQ": {config: gptqV1, tensors: []synth.Tensor{stock(x+".qweight", "I32", 8, 32),
			stock(x+".qzeros", "I32", 2, 4), stock(x+".scales", "F16", 2, 32),
			stockNumbers(x+".g_idx", "I32", runsOf(64, 32)...)}},
		"NF4": {config: bnbNF4, tensors: []synth.Tensor{stock(w, "U8", 256, 1),
			stock(w+".absmax", "F32", 8), stock(w+".quant_map", "F32", 16),
			stockText(w+".quant_state.bitsandbytes__nf4", nf4State)}},
		"nested NF4": {config: bnbNF4, tensors: []synth.Tensor{stock(w, "U8", 256, 1),
			stock(w+".absmax", "U8", 8), stock(w+".quant_map", "F32", 16),
			stock(w+".nested_absmax", "F32", 1), stock(w+".nested_quant_map", "F32", 256),
			stockText(w+".quant_state.bitsandbytes__nf4", nestedState)}},
		"INT8 of bitsandbytes": {config: bnbInt8, tensors: []synth.Tensor{stock(w, "I8", 8, 64),
			stock(x+".SCB", "F32", 8), stock(x+".weight_format", "U8")}},
		"NVFP4 of ModelOpt": {config: moNVFP4, tensors: []synth.Tensor{stock(w, "U8", 8, 32),
			stock(w+"_scale", "F8_E4M3", 8, 4), stock(w+"_scale_2", "F32")}},
		"grouped NVFP4": {config: moNVFP4, tensors: []synth.Tensor{
			stock(hostileStack, "U8", 2, 16, 24), stock(hostileStack+"_weight_scale", "F8_E4M3", 2, 2, 24),
			stock(hostileStack+"_weight_scale_2", "F32")}},
		"DeepSeek-V4": {config: deepseek4, tensors: []synth.Tensor{
			stock(deepExpert+".weight", "I8", 8, 32), stock(deepExpert+".scale", "F8_E8M0", 8, 2)}},
		"Quark": {config: quarkFP4, tensors: []synth.Tensor{stock(w, "U8", 8, 32),
			stock(w+"_scale", "U8", 8, 2)}},
		"Mistral-Small-4": {config: `{"quant_method": "fp8", "weight_block_size": null}`,
			tensors: []synth.Tensor{stock(hostileStack, "F8_E4M3", 2, 8, 16),
				stock(hostileStack+"_scale_inv", "BF16", 2, 1, 1)}},
	}
}

// open opens the checkpoint.
func (s soundFormat) open(t *testing.T) *Checkpoint {
	t.Helper()
	c := &synth.Checkpoint{Config: configured(t, s.config), Tensors: s.tensors}
	if s.config == "" {
		c.Config = settings{}
	}
	c.Side = map[string][]byte{}
	for name, data := range s.side {
		c.Side[name] = []byte(data)
	}
	return opened(t, c)
}

// Without a defect, each of them opens. So what is refused below is refused for its defect.
func TestSoundCheckpointsOfEveryFormatOpen(t *testing.T) {
	for name, s := range soundFormats() {
		t.Run(name, func(t *testing.T) {
			d := dict(t, s.open(t), Options{Layout: LayoutHF})
			if d.Len() != 1 {
				t.Errorf("%d tensors, want 1", d.Len())
			}
			for l := range d.All() {
				content(t, l)
			}
		})
	}
}

// defect is one thing that is wrong with a sound checkpoint. want are parts of the message.
type defect struct {
	format, name string
	do           func(s *soundFormat)
	want         []string
}

// withoutEnding removes the tensor with an ending.
func withoutEnding(ending string) func(s *soundFormat) {
	return func(s *soundFormat) {
		s.tensors = slices.DeleteFunc(s.tensors, func(t synth.Tensor) bool {
			return strings.HasSuffix(t.Name, ending)
		})
	}
}

// retyped replaces the tensor with an ending by one of another dtype and shape.
func retyped(ending, dtype string, shape ...int64) func(s *soundFormat) {
	return func(s *soundFormat) { *s.find(ending) = stock(s.find(ending).Name, dtype, shape...) }
}

// renumbered replaces the tensor with an ending by a vector of numbers.
func renumbered(ending, dtype string, values ...int64) func(s *soundFormat) {
	return func(s *soundFormat) {
		*s.find(ending) = stockNumbers(s.find(ending).Name, dtype, values...)
	}
}

// restated replaces the state of the quantization.
func restated(data string) func(s *soundFormat) {
	return func(s *soundFormat) {
		*s.find("__nf4") = stockText(s.find("__nf4").Name, data)
	}
}

// reconfigured replaces text in the configuration.
func reconfigured(old, with string) func(s *soundFormat) {
	return func(s *soundFormat) {
		if !strings.Contains(s.config, old) {
			panic("no " + old + " in " + s.config)
		}
		s.config = strings.Replace(s.config, old, with, 1)
	}
}

// find is the tensor with an ending.
func (s *soundFormat) find(ending string) *synth.Tensor {
	i := slices.IndexFunc(s.tensors, func(t synth.Tensor) bool {
		return strings.HasSuffix(t.Name, ending)
	})
	return &s.tensors[i]
}

// butAt is a list of numbers with one of them changed.
func butAt(values []int64, at int, to int64) []int64 {
	values = slices.Clone(values)
	values[at] = to
	return values
}

var defects = slices.Concat([]defect{
	{"INT4 pack", "words too few", retyped("_packed", "I32", 8, 7), []string{"weight_packed", "[8 7]"}},
	{"INT4 pack", "words too many", retyped("_packed", "I32", 8, 9), []string{"weight_packed", "[8 9]"}},
	{"INT4 pack", "rows too few", retyped("_packed", "I32", 7, 8), []string{"weight_packed", "[7 8]"}},
	{"INT4 pack", "a vector of words", retyped("_packed", "I32", 64), []string{"weight_packed", "[64]"}},
	{"INT4 pack", "words of 64 bits", retyped("_packed", "I64", 8, 8), []string{"weight_packed", "I64"}},
	{"INT4 pack", "words of floats", retyped("_packed", "F32", 8, 8), []string{"weight_packed", "F32"}},
	{"INT4 pack", "a shape with other columns", renumbered("_shape", "I64", 8, 128), []string{"weight_packed", "[8 128]"}},
	{"INT4 pack", "a shape with other rows", renumbered("_shape", "I64", 9, 64), []string{"weight_shape", "9"}},
	{"INT4 pack", "a negative shape", renumbered("_shape", "I64", 8, -64), []string{"weight_shape", "-64"}},
	{"INT4 pack", "a huge shape", renumbered("_shape", "I64", 1<<40, 1<<40), []string{"weight_shape", "1099511627776"}},
	{"INT4 pack", "a shape whose product overflows", renumbered("_shape", "I64", 1<<62, 4), []string{"weight_shape"}},
	{"INT4 pack", "a shape of zeros", renumbered("_shape", "I64", 0, 0), []string{"weight_shape"}},
	{"INT4 pack", "a shape of one number", renumbered("_shape", "I64", 512), []string{"weight_shape", "[512]"}},
	{"INT4 pack", "a shape of three numbers", renumbered("_shape", "I64", 1, 8, 64), []string{"weight_shape", "[1 8 64]"}},
	{"INT4 pack", "a shape of floats", retyped("_shape", "F32", 2), []string{"weight_shape", "F32"}},
	{"INT4 pack", "groups that do not divide", retyped("_scale", "BF16", 8, 3), []string{"weight_scale", "[8 3]"}},
	{"INT4 pack", "scales for fewer rows", retyped("_scale", "BF16", 7, 2), []string{"weight_scale", "[7 2]"}},
	{"INT4 pack", "a vector of scales", retyped("_scale", "BF16", 16), []string{"weight_scale", "[16]"}},
	{"INT4 pack", "whole numbers as scales", retyped("_scale", "I32", 8, 2), []string{"weight_scale", "I32"}},
	{"INT4 pack", "no scales", withoutEnding("_scale"), []string{"weight_packed", "weight_scale"}},
	{"INT4 pack", "no words", withoutEnding("_packed"), []string{"weight_packed"}},
	{"INT4 pack", "five bits", func(s *soundFormat) {
		reconfigured(`"num_bits": 4`, `"num_bits": 5`)(s)
		retyped("_packed", "I32", 8, 10)(s)
	}, []string{"weight_packed", "5"}},
	{"INT4 pack", "three bits", func(s *soundFormat) {
		reconfigured(`"num_bits": 4`, `"num_bits": 3`)(s)
		retyped("_packed", "I32", 8, 6)(s)
	}, []string{"weight_packed", "3"}},
	{"INT4 pack with zero points", "zero points along the columns", retyped("_zero_point", "I32", 8, 1), []string{"weight_zero_point", "[8 1]"}},
	{"INT4 pack with zero points", "zero points of fewer groups", retyped("_zero_point", "I32", 1, 1), []string{"weight_zero_point", "[1 1]"}},
	{"INT4 pack with zero points", "zero points of 64 bits", retyped("_zero_point", "I64", 1, 2), []string{"weight_zero_point", "I64"}},
	{"INT4 pack with zero points", "no zero points", withoutEnding("_zero_point"), []string{"weight_packed", "weight_zero_point"}},
	{"INT4 pack with zero points", "a group beyond the last", renumbered("_g_idx", "I32", butAt(runsOf(64, 32), 63, 2)...), []string{"weight_g_idx", "2"}},
	{"INT4 pack with zero points", "a negative group", renumbered("_g_idx", "I32", butAt(runsOf(64, 32), 5, -2)...), []string{"weight_g_idx", "-2"}},
	{"INT4 pack with zero points", "a huge group", renumbered("_g_idx", "I32", butAt(runsOf(64, 32), 0, 1<<31-1)...), []string{"weight_g_idx", "2147483647"}},
	{"INT4 pack with zero points", "groups of fewer columns", renumbered("_g_idx", "I32", runsOf(63, 32)...), []string{"weight_g_idx", "[63]"}},
	{"INT4 pack with zero points", "groups as floats", retyped("_g_idx", "F32", 64), []string{"weight_g_idx", "F32"}},

	{"INT8", "scales for fewer rows", retyped("_scale", "BF16", 7, 1), []string{"weight_scale", "[7 1]"}},
	{"INT8", "whole numbers as scales", retyped("_scale", "I32", 8, 1), []string{"weight_scale", "I32"}},
	{"INT8", "no scales", withoutEnding("_scale"), []string{"up_proj.weight"}},
	{"INT8", "zero points for fewer rows", retyped("_zero_point", "I8", 7, 1), []string{"weight_zero_point", "[7 1]"}},
	{"INT8", "zero points as words", retyped("_zero_point", "I32", 8, 1), []string{"weight_zero_point", "I32"}},
	{"INT8", "no zero points", withoutEnding("_zero_point"), []string{"up_proj.weight", "weight_zero_point"}},
	{"INT8", "no codes", withoutEnding("weight"), []string{"weight_scale", "without its weight"}},

	{"NVFP4", "half a group", retyped("_packed", "U8", 8, 31), []string{"weight_packed", "[8 62]", "whole groups"}},
	{"NVFP4", "scales of fewer groups", retyped("weight_scale", "F8_E4M3", 8, 3), []string{"weight_scale", "[8 3]"}},
	{"NVFP4", "scales as bytes", retyped("weight_scale", "U8", 8, 4), []string{"weight_scale", "U8"}},
	{"NVFP4", "two global scales", retyped("_global_scale", "F32", 2), []string{"weight_global_scale", "[2]"}},
	{"NVFP4", "a whole global scale", retyped("_global_scale", "I32", 1), []string{"weight_global_scale", "I32"}},
	{"NVFP4", "no global scale", withoutEnding("_global_scale"), []string{"weight_packed"}},
	{"NVFP4", "no scales", withoutEnding("weight_scale"), []string{"weight_packed"}},
	{"NVFP4", "no codes", withoutEnding("_packed"), []string{"weight_packed"}},

	{"MXFP4", "scales of fewer groups", retyped("_scale", "U8", 8, 3), []string{"weight_scale", "[8 3]"}},
	{"MXFP4", "scales of fewer rows", retyped("_scale", "U8", 4, 2), []string{"weight_scale", "[4 2]"}},
	{"MXFP4", "half a group", retyped("_packed", "U8", 8, 31), []string{"weight_packed", "[8 62]", "whole groups"}},
	{"MXFP4", "scales as floats", retyped("_scale", "F32", 8, 2), []string{"weight_packed"}},
	{"MXFP4", "no scales", withoutEnding("_scale"), []string{"weight_packed"}},

	{"gpt-oss", "blocks of 15 bytes", retyped("_blocks", "U8", 2, 8, 2, 15), []string{"down_proj_blocks", "[2 8 2 15]", "whole groups", "16 bytes"}},
	{"gpt-oss", "blocks of three axes", retyped("_blocks", "U8", 2, 8, 32), []string{"down_proj_blocks", "[2 8 32]"}},
	{"gpt-oss", "scales of more blocks", retyped("_scales", "U8", 2, 8, 3), []string{"down_proj_scales", "[2 8 3]"}},
	{"gpt-oss", "scales of other experts", retyped("_scales", "U8", 3, 8, 2), []string{"down_proj_scales", "[3 8 2]"}},
	{"gpt-oss", "scales as floats", retyped("_scales", "F32", 2, 8, 2), []string{"down_proj_"}},
	{"gpt-oss", "no scales", withoutEnding("_scales"), []string{"down_proj_blocks"}},
	{"gpt-oss", "no blocks", withoutEnding("_blocks"), []string{"down_proj_scales"}},

	{"AWQ", "words of other columns", retyped(".qweight", "I32", 64, 3), []string{"qweight", "[64 3]"}},
	{"AWQ", "zero points of other columns", retyped(".qzeros", "I32", 2, 3), []string{"qzeros", "[2 3]"}},
	{"AWQ", "zero points of fewer groups", retyped(".qzeros", "I32", 1, 2), []string{"qzeros", "[1 2]"}},
	{"AWQ", "scales of more groups", retyped(".scales", "F16", 3, 16), []string{"scales", "[3 16]"}},
	{"AWQ", "whole numbers as scales", retyped(".scales", "I32", 2, 16), []string{"scales", "I32"}},
	{"AWQ", "bytes as words", retyped(".qweight", "U8", 64, 8), []string{"qweight", "U8"}},
	{"AWQ", "no zero points", withoutEnding(".qzeros"), []string{"qweight"}},
	{"AWQ", "no scales", withoutEnding(".scales"), []string{"qweight"}},
	{"AWQ", "no codes", withoutEnding(".qweight"), []string{"qzeros"}},
	{"AWQ", "eight bits", reconfigured(`"bits": 4`, `"bits": 8`), []string{"bits", "8"}},
	{"AWQ", "groups that contradict", reconfigured(`"group_size": 32`, `"group_size": 128`), []string{"scales", "128"}},
	{"AWQ", "another version", reconfigured("gemm", "gemv"), []string{"gemv"}},
	{"AWQ", "a version of a kernel", reconfigured("gemm", "marlin"), []string{"marlin"}},

	{"GPTQ", "words of half a group", retyped(".qweight", "I32", 7, 32), []string{"qweight", "[7 32]"}},
	{"GPTQ", "zero points of five bits", retyped(".qzeros", "I32", 2, 5), []string{"qzeros", "[2 5]"}},
	{"GPTQ", "zero points of fewer groups", retyped(".qzeros", "I32", 1, 4), []string{"qzeros", "[1 4]"}},
	{"GPTQ", "scales of other columns", retyped(".scales", "F16", 2, 31), []string{"scales", "[2 31]"}},
	{"GPTQ", "whole numbers as scales", retyped(".scales", "I32", 2, 32), []string{"scales", "I32"}},
	{"GPTQ", "a group beyond the last", renumbered(".g_idx", "I32", butAt(runsOf(64, 32), 63, 2)...), []string{"g_idx", "2"}},
	{"GPTQ", "a negative group", renumbered(".g_idx", "I32", butAt(runsOf(64, 32), 0, -1)...), []string{"g_idx", "-1"}},
	{"GPTQ", "groups of fewer columns", renumbered(".g_idx", "I32", runsOf(63, 32)...), []string{"g_idx", "[63]"}},
	{"GPTQ", "groups as floats", retyped(".g_idx", "F32", 64), []string{"g_idx", "F32"}},
	{"GPTQ", "no zero points", withoutEnding(".qzeros"), []string{"qweight"}},
	{"GPTQ", "no scales", withoutEnding(".scales"), []string{"qweight"}},
	{"GPTQ", "no codes", withoutEnding(".qweight"), []string{"qzeros"}},
	{"GPTQ", "five bits", func(s *soundFormat) {
		reconfigured(`"bits": 4`, `"bits": 5`)(s)
		retyped(".qweight", "I32", 10, 32)(s)
		retyped(".qzeros", "I32", 2, 5)(s)
	}, []string{"5"}},
	{"GPTQ", "the order of a kernel", reconfigured(`"checkpoint_format": "gptq"`, `"checkpoint_format": "marlin"`), []string{"marlin"}},
	{"GPTQ", "planes of bits", reconfigured(`"checkpoint_format": "gptq"`, `"checkpoint_format": "gptq_p"`), []string{"gptq_p"}},
	{"GPTQ", "an unknown version", reconfigured(`"checkpoint_format": "gptq"`, `"checkpoint_format": "gptq_v9"`), []string{"gptq_v9"}},
	{"GPTQ", "a version of a thousand letters", reconfigured(`"checkpoint_format": "gptq"`, `"checkpoint_format": "`+strings.Repeat("x", 1000)+`"`), []string{"checkpoint_format"}},
	{"GPTQ", "a method of a thousand letters", reconfigured(`"quant_method": "gptq"`, `"quant_method": "`+strings.Repeat("x", 1000)+`"`), []string{"quant_method"}},
	{"GPTQ", "no configuration", func(s *soundFormat) { s.config = "null" }, []string{"q"}},

	{"INT8 of bitsandbytes", "scales of fewer rows", retyped(".SCB", "F32", 7), []string{"SCB", "[7]"}},
	{"INT8 of bitsandbytes", "whole numbers as scales", retyped(".SCB", "I32", 8), []string{"SCB", "I32"}},
	{"INT8 of bitsandbytes", "no scales", withoutEnding(".SCB"), []string{"up_proj.weight"}},
	{"INT8 of bitsandbytes", "no codes", withoutEnding(".weight"), []string{"SCB"}},
	{"INT8 of bitsandbytes", "the order of a kernel", func(s *soundFormat) {
		s.find(".weight_format").Data = []byte{2}
	}, []string{"weight_format", "2"}},

	{"NVFP4 of ModelOpt", "half a group", retyped(".weight", "U8", 8, 31), []string{"up_proj.weight", "[8 62]", "whole groups"}},
	{"NVFP4 of ModelOpt", "scales of fewer groups", retyped("_scale", "F8_E4M3", 8, 3), []string{"weight_scale", "[8 3]"}},
	{"NVFP4 of ModelOpt", "other scales", retyped("_scale", "BF16", 8, 4), []string{"up_proj.weight"}},
	{"NVFP4 of ModelOpt", "two second scales", retyped("_scale_2", "F32", 2), []string{"weight_scale_2", "[2]"}},
	{"NVFP4 of ModelOpt", "a whole second scale", retyped("_scale_2", "I32"), []string{"weight_scale_2", "I32"}},
	{"NVFP4 of ModelOpt", "no second scale", withoutEnding("_scale_2"), []string{"up_proj.weight"}},
	{"NVFP4 of ModelOpt", "no scales", withoutEnding("_scale"), []string{"up_proj.weight"}},
	{"NVFP4 of ModelOpt", "no codes", withoutEnding(".weight"), []string{"weight_scale"}},
	{"NVFP4 of ModelOpt", "scales in the order of a kernel", retyped("_scale", "F8_E4M3", 512), []string{"weight_scale", "[512]"}},
	{"NVFP4 of ModelOpt", "scales of inputs", func(s *soundFormat) {
		s.tensors = append(s.tensors, stock(hostileModule+".pre_quant_scale", "BF16", 64))
	}, []string{"up_proj.", "AWQ"}},
	{"grouped NVFP4", "scales of neither axis", retyped("_weight_scale", "F8_E4M3", 2, 3, 24), []string{"down_proj_weight_scale", "[2 3 24]"}},
	{"grouped NVFP4", "second scales of other experts", retyped("_scale_2", "F32", 3), []string{"down_proj_weight_scale_2", "[3]"}},
	{"grouped NVFP4", "no second scale", withoutEnding("_scale_2"), []string{"down_proj"}},

	{"DeepSeek-V4", "scales of fewer groups", retyped(".scale", "F8_E8M0", 8, 3), []string{"w1", "[8 3]"}},
	{"DeepSeek-V4", "scales of fewer rows", retyped(".scale", "F8_E8M0", 4, 2), []string{"w1", "[4 2]"}},
	{"DeepSeek-V4", "no scales", withoutEnding(".scale"), []string{"w1.weight"}},
	{"DeepSeek-V4", "no codes", withoutEnding(".weight"), []string{"w1.scale"}},

	{"Quark", "scales of fewer groups", retyped("_scale", "U8", 8, 3), []string{"weight_scale", "[8 3]"}},
	{"Quark", "scales as floats", retyped("_scale", "F32", 8, 2), []string{"up_proj.weight"}},
	{"Quark", "integers by the configuration", reconfigured(`"dtype": "fp4"`, `"dtype": "int4"`), []string{"up_proj.weight", "int4"}},
	{"Quark", "no scales", withoutEnding("_scale"), []string{"up_proj.weight"}},

	{"Mistral-Small-4", "scales of other experts", retyped("_scale_inv", "BF16", 3, 1, 1), []string{"down_proj_scale_inv", "[3 1 1]"}},
	{"Mistral-Small-4", "no scales", withoutEnding("_scale_inv"), []string{"down_proj"}},
}, stateDefects())

// stateDefects are states of bitsandbytes that do not say how to read a weight.
func stateDefects() []defect {
	all := []defect{
		{"NF4", "codes too few", retyped(".weight", "U8", 255, 1), []string{"up_proj.weight", "[255 1]"}},
		{"NF4", "codes too many", retyped(".weight", "U8", 257, 1), []string{"up_proj.weight", "[257 1]"}},
		{"NF4", "codes as 64 bits", retyped(".weight", "I64", 32, 1), []string{"up_proj.weight", "I64"}},
		{"NF4", "scales too few", retyped(".absmax", "F32", 7), []string{"absmax", "[7]"}},
		{"NF4", "scales too many", retyped(".absmax", "F32", 9), []string{"absmax", "[9]"}},
		{"NF4", "scales as words", retyped(".absmax", "I32", 8), []string{"absmax", "I32"}},
		{"NF4", "scales that are codes", retyped(".absmax", "U8", 8), []string{"absmax"}},
		{"NF4", "a map of 15", retyped(".quant_map", "F32", 15), []string{"quant_map", "[15]"}},
		{"NF4", "a map of words", retyped(".quant_map", "I32", 16), []string{"quant_map", "I32"}},
		{"NF4", "no scales", withoutEnding(".absmax"), []string{"up_proj.weight"}},
		{"NF4", "no map", withoutEnding(".quant_map"), []string{"up_proj.weight"}},
		{"NF4", "no state", withoutEnding("__nf4"), []string{"up_proj.weight"}},
		{"NF4", "no codes", withoutEnding(".weight"), []string{"up_proj.weight"}},
		{"nested NF4", "a map of 255", retyped(".nested_quant_map", "F32", 255), []string{"nested_quant_map", "[255]"}},
		{"nested NF4", "scales of scales too many", retyped(".nested_absmax", "F32", 2), []string{"nested_absmax", "[2]"}},
		{"nested NF4", "scales of scales as words", retyped(".nested_absmax", "I32", 1), []string{"nested_absmax", "I32"}},
		{"nested NF4", "no map of scales", withoutEnding(".nested_quant_map"), []string{"up_proj.weight"}},
		{"nested NF4", "no scales of scales", withoutEnding(".nested_absmax"), []string{"up_proj.weight"}},
	}
	for old, news := range map[string][]string{
		`"blocksize": 64`: {`"blocksize": 0`, `"blocksize": -64`, `"blocksize": 1e300`,
			`"blocksize": 9223372036854775808`, `"blocksize": 64.5`, `"blocksize": "64"`,
			`"blocksize": null`, `"blocksize": [64]`, `"blocksize": 64, "blocksize": 128`,
			`"block": 64`, `"blocksize": 63`, `"blocksize": 128`, `"blocksize": NaN`},
		`"shape": [8, 64]`: {`"shape": [8, 63]`, `"shape": [-8, -64]`, `"shape": [8, 1e300]`,
			`"shape": [4294967296, 4294967296]`, `"shape": [9223372036854775807, 2]`,
			`"shape": [0, 64]`, `"shape": []`, `"shape": 512`, `"shape": "8, 64"`, `"shape": null`,
			`"shape": [8, "64"]`, `"shape": [8.5, 64]`, `"shape": [8, 64], "shape": [64, 8]`,
			`"size": [8, 64]`},
		nf4State: {``, `{`, `[]`, `null`, `"x"`, "\xff\xfe", nf4State + nf4State, nf4State + "\x00",
			strings.Repeat("[", 100_000), `{"quant_type": "nf4"}`},
	} {
		for _, text := range news {
			data := strings.Replace(nf4State, old, text, 1)
			all = append(all, defect{"NF4", fmt.Sprintf("a state of %.60q", text), restated(data),
				[]string{"quant_state"}})
		}
	}
	for old, news := range map[string][]string{
		`"nested_blocksize": 256`: {`"nested_blocksize": 0`, `"nested_blocksize": -1`,
			`"nested_blocksize": 1e300`, `"nested_blocksize": 4`, `"nested": 256`},
		`"nested_offset": 0.1`: {`"nested_offset": "0.1"`, `"nested_offset": null`,
			`"nested_offset": 0.1, "nested_offset": 0.2`, `"nested_offset": [0.1]`, `"offset": 0.1`},
	} {
		for _, text := range news {
			data := strings.Replace(nestedState, old, text, 1)
			all = append(all, defect{"nested NF4", fmt.Sprintf("a state of %q", text),
				restated(data), []string{"up_proj.weight"}})
		}
	}
	return all
}

// A checkpoint that lies about itself is refused when it is opened. The message is one line that
// names the file and the key.
func TestDefectsOfFormatsAreRefused(t *testing.T) {
	for _, d := range defects {
		t.Run(d.format+", "+d.name, func(t *testing.T) {
			s := soundFormats()[d.format]
			d.do(&s)
			for i := range s.tensors {
				s.tensors[i].Shard = i % 2
			}
			p, err := NewPlan(s.open(t), Options{Layout: LayoutHF})
			if err != nil {
				wantMessage(t, err.Error(), d.want)
				return
			}
			for _, x := range p.Tensors {
				t.Errorf("it shows %s %s %v", x.Name, x.Node.DType(), x.Node.Shape())
			}
		})
	}
}

// wantMessage checks that a message has its parts, a file and a key, on one line.
func wantMessage(t *testing.T, message string, want []string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(message, w) {
			t.Errorf("error %q does not say %q", message, w)
		}
	}
	named := slices.ContainsFunc([]string{".safetensors: ", "config.json: "}, func(s string) bool {
		return strings.Contains(message, s)
	})
	if !named || strings.ContainsAny(message, "\n\x00") || len(message) > 600 {
		t.Errorf("error %q: want one line that names a file", message)
	}
}
