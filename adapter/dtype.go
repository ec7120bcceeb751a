package adapter

import (
	"cmp"
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// The tensors that [Options].DType is for, as [Options] and --cast name them.
const (
	CastComputed = "computed" // dequantized and merged ones; others pass as they are
	CastAll      = "all"      // every floating one
)

// dtypeFields are the fields of a configuration that give the dtype of its model. If both do, the
// first counts, as in transformers.
var dtypeFields = []string{"dtype", "torch_dtype"}

// torchName is the name of a dtype in configurations.
var torchName = map[safetensors.DType]string{
	safetensors.BF16: "bfloat16", safetensors.F16: "float16", safetensors.F32: "float32",
}

// chooseDType sets the dtype of the view. If the options leave it open, it is that of the
// configuration.
func (p *planner) chooseDType() error {
	if p.o.DType == safetensors.Invalid {
		p.o.DType = p.s.dtype()
	}
	if torchName[p.o.DType] == "" {
		return fmt.Errorf("dtype %s: a view has BF16, F16 or F32", p.o.DType)
	}
	p.dtype = p.o.DType
	return nil
}

// DType returns the dtype of a view whose options leave it open. It is the one that the
// configuration names, or BF16 if named is false.
func (c *Config) DType() (d safetensors.DType, named bool) {
	d = c.fields().namedDType()
	return cmp.Or(d, safetensors.BF16), d != safetensors.Invalid
}

// dtype returns the dtype that the configuration gives. A configuration that names none, or another
// one than views have, means BF16.
func (s settings) dtype() safetensors.DType { return cmp.Or(s.namedDType(), safetensors.BF16) }

// namedDType returns the dtype that the configuration names, or else that of the language model
// inside. Invalid: it names none that views have.
func (s settings) namedDType() safetensors.DType {
	for _, l := range s.levels() {
		for _, field := range dtypeFields {
			for d, name := range torchName {
				if l[field] == name {
					return d
				}
			}
		}
	}
	return safetensors.Invalid
}
