package adapter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// undecodedFormats are recognised by the endings of keys and refused by name.
var undecodedFormats = []*format{
	sign("NVFP4-CSF", ".weight_scale.nvfp4_csf_fixed"),
	sign("a pack with AWQ scales (ModelOpt)", ".pre_quant_scale"),
	sign("a pack with low-rank corrections (SVDQuant)", ".svdquant_lora_a", ".svdquant_lora_b"),
	loose(&format{name: "a weight with low-rank corrections (SDNQ)", codes: ".svd_up",
		parts: []string{".svd_down"}}),
	sign("a sparse pack (compressed-tensors)", ".weight.bitmask", ".weight.compressed"),
	loose(&format{name: "a sparse pack (compressed-tensors)", codes: ".compressed",
		parts: []string{".bitmask"}}),
	loose(&format{name: "a sparse pack (compressed-tensors)", codes: ".scale_packed",
		parts: []string{".weight_packed"}}),
	{
		name: "MXFP6 (compressed-tensors)", codes: ".weight_packed",
		parts: []string{".weight_scale"}, fits: sixBits,
	},
	loose(&format{name: "a pack of grouped experts", signs: []string{"_weight_packed", "_packed"},
		fits: func(m *module) bool {
			d := m.parts[0].DType
			return d == safetensors.I32 || d == safetensors.U8
		}}),
	loose(&format{name: "MXFP4 (OpenAI's own layout)", codes: ".blocks", parts: []string{".scales"},
		fits:    typed(".blocks", safetensors.U8, ".scales", safetensors.U8),
		instead: "use the model in the layout of transformers"}),
	kernelOrder,
	sign("EXL3", ".trellis", ".suh", ".svh"),
	loose(&format{name: "EXL2", codes: ".q_weight", parts: []string{".q_scale_max"}}),
	loose(&format{name: "AQLM (codebooks)", codes: ".codebooks", parts: []string{".codes"}}),
	sign("HQQ", ".W_q"),
	loose(&format{name: "EETQ", codes: ".weight", parts: []string{".weight_scales"},
		fits: typed(".weight", safetensors.I8)}),
	sign("torchao", ":_data", ":qdata", "._weight_qdata"),
}

// sixBits reports whether a group of 32 codes has 24 bytes.
func sixBits(m *module) bool {
	w, scale := m.part(".weight_packed"), m.part(".weight_scale")
	n := len(w.Shape)
	return w.DType == safetensors.U8 && isExponents(scale) && n > 0 && len(scale.Shape) == n &&
		w.Shape[n-1] > 0 && w.Shape[n-1]/24 == scale.Shape[n-1] && w.Shape[n-1]%24 == 0
}

// kernelOrder is ComfyUI's formats with groups of 32 or 16 in a row. Their scales are in the order
// in which a kernel reads them, and the shape does not show it. Only a description beside the
// weight or in the shard's metadata tells.
var kernelOrder = loose(&format{
	name: "scales in the order of a kernel (ComfyUI)", codes: ".weight",
	parts: []string{".weight_scale", ".comfy_quant"},
	fits: func(m *module) bool {
		scale := m.part(".weight_scale")
		return isExponents(scale) || scale.DType == safetensors.F8E4M3
	},
	instead: "use the model in FP8 with one scale per tensor, or in BF16",
})

// inKernelOrder reports whether a shard's metadata describes such weights.
func inKernelOrder(h *safetensors.Header) bool {
	layers := h.Metadata["_quantization_metadata"]
	return strings.Contains(layers, "mxfp8") || strings.Contains(layers, "nvfp4")
}

// undecodedTypes are recognised by the dtypes of a weight and its scale, and refused by name.
var undecodedTypes = []*format{
	{
		name: "MLX", codes: ".weight", parts: []string{".scales"}, optional: []string{".biases"},
		loose: true, fits: typed(".weight", safetensors.U32),
		instead: "use the checkpoint that it was made from",
	},
	{
		name: "INT8 without the scales of a known format", codes: ".weight",
		fits: typed(".weight", safetensors.I8),
		instead: "restore the shard with its weight_scale, or with its scale if it is FP4 of " +
			"DeepSeek-V4, or " + otherwise,
	},
	{
		name: "a pack of bytes without the scales of a known format", codes: ".weight",
		fits:    typed(".weight", safetensors.U8),
		instead: "restore the shards with the scales beside it, or " + otherwise,
	},
	coded("a pack of integers", safetensors.I32),
	coded("a pack of integers (MLX)", safetensors.U32),
	coded("FP4", safetensors.F4),
	coded("FP6", safetensors.F6E2M3),
	coded("FP6", safetensors.F6E3M2),
	coded("FP8 E4M3FNUZ", safetensors.F8E4M3FNUZ),
	coded("FP8 E5M2FNUZ", safetensors.F8E5M2FNUZ),
}

// sign is a format that any one of the endings identifies.
func sign(name string, endings ...string) *format {
	return &format{name: name, signs: endings}
}

// coded is a format that the dtype of a weight identifies.
func coded(name string, d safetensors.DType) *format {
	return &format{name: name, codes: ".weight", fits: typed(".weight", d)}
}

// typed returns a check that parts of a module have certain dtypes. pairs alternates endings and
// dtypes.
func typed(pairs ...any) func(*module) bool {
	return func(m *module) bool {
		for i := 0; i < len(pairs); i += 2 {
			t := m.part(pairs[i].(string))
			if t == nil || t.DType != pairs[i+1].(safetensors.DType) {
				return false
			}
		}
		return true
	}
}

// undecodedMethods are values of quant_method whose weights are never decoded.
var undecodedMethods = []string{
	"aqlm", "bitnet", "eetq", "exl2", "exl3", "fp_quant", "higgs", "hqq", "quanto", "quip", "sdnq",
	"spqr", "sinq", "torchao", "vptq",
}

const rotated = "the stored weights are rotated, and the model rotates them back while it runs: " +
	"use a checkpoint without rotation"

// refuseConfigured refuses what only config.json shows: methods without a visible sign in the
// tensors, and rotations that a loader must undo while the model runs.
func refuseConfigured(c *Checkpoint, q *quantization, s settings) error {
	o := s.object(quantizationFields...)
	if qweightMethods[q.method] != "" {
		if _, err := q.qweight(c); err != nil {
			return err
		}
	}
	switch {
	case slices.Contains(undecodedMethods, q.method):
		return fmt.Errorf("config.json: quant_method %q is not decoded: "+otherwise, q.method)
	case len(asObject(o["transform_config"])) > 0:
		return fmt.Errorf("config.json: transform_config: " + rotated)
	case s["online-rotate"] != nil:
		return fmt.Errorf("config.json: online-rotate: " + rotated)
	}
	return nil
}
