package adapter

import (
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// foreign are endings of keys that only formats have which are recognised and not decoded.
var foreign = []struct{ suffix, format string }{
	{".weight_packed", "a pack of compressed-tensors (INT4, NVFP4 or MXFP4)"},
	{".weight_global_scale", "NVFP4 (compressed-tensors)"},
	{".weight_scale_2", "NVFP4 (ModelOpt)"},
	{".weight_zero_point", "an integer format with zero points (compressed-tensors)"},
	{".weight_shape", "a pack of compressed-tensors (INT4)"},
	{".weight_g_idx", "a pack of compressed-tensors (INT4)"},
	{".pre_quant_scale", "AWQ (ModelOpt)"},
	{".qweight", "GPTQ or AWQ"},
	{".qzeros", "GPTQ or AWQ"},
	{".g_idx", "GPTQ"},
	{".absmax", "bitsandbytes"},
	{".quant_map", "bitsandbytes"},
	{".nested_absmax", "bitsandbytes"},
	{".quant_state.bitsandbytes__nf4", "bitsandbytes NF4"},
	{".quant_state.bitsandbytes__fp4", "bitsandbytes FP4"},
	{".SCB", "bitsandbytes INT8"},
	{".trellis", "EXL3"},
	{".suh", "EXL3"},
	{".svh", "EXL3"},
	{".scale_weight", "ComfyUI scaled FP8"},
	{".W_q", "HQQ"},
}

// foreignMethods are values of quant_method whose weights are never FP8 with scales.
var foreignMethods = []string{
	"aqlm", "auto-round", "awq", "bitnet", "bitsandbytes", "eetq", "exl2", "exl3", "fp_quant", "gptq", "higgs", "hqq",
	"mxfp4", "quanto", "quip", "spqr", "sinq", "torchao", "vptq",
}

// packs are formats told by the dtypes of a weight and its scale.
var packs = []struct {
	weight, scale safetensors.DType
	format        string
}{
	{safetensors.I8, safetensors.F8E8M0, "FP4 of DeepSeek-V4"},
	{safetensors.I8, safetensors.Invalid, "INT8"},
	{safetensors.U8, safetensors.F8E4M3, "NVFP4"},
	{safetensors.U8, safetensors.U8, "MXFP4"},
	{safetensors.U8, safetensors.Invalid, "a pack of bytes (BitNet, bitsandbytes or MXFP4)"},
	{safetensors.I32, safetensors.Invalid, "a pack of integers"},
	{safetensors.F4, safetensors.Invalid, "FP4"},
	{safetensors.F6E2M3, safetensors.Invalid, "FP6"},
	{safetensors.F6E3M2, safetensors.Invalid, "FP6"},
	{safetensors.F8E4M3FNUZ, safetensors.Invalid, "FP8 E4M3FNUZ"},
	{safetensors.F8E5M2FNUZ, safetensors.Invalid, "FP8 E5M2FNUZ"},
}

// foreignFormat names the format of a tensor that we know of and do not decode.
// The scale may be nil.
func foreignFormat(t, scale *Stored) (string, bool) {
	if t.DType == safetensors.U8 && (strings.HasSuffix(t.Key, "_blocks") || strings.HasSuffix(t.Key, "_scales")) {
		return "MXFP4 (gpt-oss)", true
	}
	for _, f := range foreign {
		if strings.HasSuffix(t.Key, f.suffix) {
			return f.format, true
		}
	}
	if !strings.HasSuffix(t.Key, ".weight") && scale == nil && t.DType != safetensors.F4 {
		return "", false
	}
	for _, p := range packs {
		if t.DType == p.weight && (p.scale == safetensors.Invalid || scale != nil && scale.DType == p.scale) {
			return p.format, true
		}
	}
	return "", false
}
