package adapter

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// DeepSeekV3 is the reference's DeepSeekV3StateDictAdapter: it goes from published
// checkpoints of the DeepSeek-V3 architecture (R1, V3.1, Kimi-K2, Moonlight, also
// V3.2) to AutoModel's native ones and back.
type DeepSeekV3 struct {
	config *Config
	o      Options
}

// NewDeepSeekV3 makes the adapter for a configuration. Of the options, DType is the
// reference's dtype (BF16 if it is Invalid, where the reference's default is F32), EP
// its device mesh, and Exclude its exclude_key_regex; Layout is not looked at.
func NewDeepSeekV3(config *Config, o Options) (*DeepSeekV3, error) {
	s, err := config.settings()
	if err != nil {
		return nil, err
	}
	if f := rowOf(s); f == nil || f.name != "deepseek_v3" && f.name != "deepseek_v32" {
		return nil, fmt.Errorf("config.json: model_type %q is not DeepSeek-V3's: see FromHF for other families", s.modelType())
	}
	return &DeepSeekV3{config, o}, nil
}

// FromHF is from_hf: FP8 weights dequantized, experts merged.
func (a *DeepSeekV3) FromHF(c *Checkpoint) (*StateDict, error) {
	o := a.o
	o.Layout = LayoutNative
	return FromHF(c, o)
}

// ToHF is to_hf: experts apart again, and with quantization FP8 weights with scales
// of one, as the reference writes them to have something to load into. For real
// scales see the package's ToHF.
func (a *DeepSeekV3) ToHF(c *Checkpoint, quantization bool) (*StateDict, error) {
	return ToHF(c, a.backward(quantization))
}

// ConvertSingleTensorToHF is convert_single_tensor_to_hf.
func (a *DeepSeekV3) ConvertSingleTensorToHF(name string, n expr.Node, quantization bool) ([]Tensor, error) {
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
