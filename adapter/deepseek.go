package adapter

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// DeepSeekV3 is the reference's DeepSeekV3StateDictAdapter. It converts published checkpoints of
// the DeepSeek-V3 architecture (R1, V3.1, Kimi-K2, Moonlight, also V3.2) to AutoModel's native
// ones, and back.
type DeepSeekV3 struct {
	config *Config
	o      Options
}

// NewDeepSeekV3 makes the adapter for a configuration. Of the options, DType is the reference's
// dtype, EP its device mesh, and Exclude its exclude_key_regex. An Invalid DType means that of the
// configuration; the reference's default is F32. Layout is ignored.
func NewDeepSeekV3(config *Config, o Options) (*DeepSeekV3, error) {
	s, err := config.settings()
	if err != nil {
		return nil, err
	}
	if f := rowOf(s); f == nil || f.name != "deepseek_v3" && f.name != "deepseek_v32" {
		return nil, fmt.Errorf("config.json: model_type %q is not DeepSeek-V3's: see FromHF for "+
			"other families", s.modelType())
	}
	return &DeepSeekV3{config, o}, nil
}

// FromHF is from_hf: FP8 weights dequantized, experts merged.
func (a *DeepSeekV3) FromHF(c *Checkpoint) (*StateDict, error) {
	o := a.o
	o.Layout = LayoutNative
	return FromHF(c, o)
}

// ToHF is to_hf: experts apart again. With quantization, weights are FP8 with scales of one, which
// the reference writes to load a checkpoint into them. For real scales see the package's ToHF.
func (a *DeepSeekV3) ToHF(c *Checkpoint, quantization bool) (*StateDict, error) {
	return ToHF(c, a.backward(quantization))
}

// ConvertSingleTensorToHF is convert_single_tensor_to_hf.
func (a *DeepSeekV3) ConvertSingleTensorToHF(
	name string, n expr.Node, quantization bool,
) ([]Tensor, error) {
	return ConvertTensorToHF(a.config, name, n, a.backward(quantization))
}

func (a *DeepSeekV3) backward(quantization bool) Options {
	o := a.o
	o.Layout = LayoutHF
	if quantization {
		o.Layout, o.Scales = LayoutHFFP8, ScalesOnes
	}
	return o
}
