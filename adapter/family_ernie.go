package adapter

import "strings"

// ernie is ERNIE 4.5 with experts.
var ernie = family{
	name:    "ernie4_5",
	types:   []string{"ernie4_5_moe"},
	experts: mlpExperts("moe_num_experts"),
	views: []view{
		{
			layout: LayoutNative, mtp: dropMTP,
			renames: []rename{{".mlp.moe_statics.e_score_correction_bias", ernieCorrection}},
			hooks:   hooks{reshape: ernieBias, restore: ernieBiasBack},
		},
		{layout: LayoutTransformers, renames: []rename{
			{
				from: ".mlp.moe_statics.e_score_correction_bias",
				to:   ".mlp.gate.moe_statics.e_score_correction_bias",
			},
		}},
	},
}

// ernieCorrection ends the key of the router's bias in the native layout.
const ernieCorrection = ".mlp.gate.e_score_correction_bias"

// ernieBias gives the router's bias one axis. Published checkpoints have [1, E].
func ernieBias(name string, shape []int64) []int64 {
	if strings.HasSuffix(name, ernieCorrection) && len(shape) == 2 && shape[0] == 1 {
		return shape[1:]
	}
	return nil
}

// ernieBiasBack undoes ernieBias.
func ernieBiasBack(name string, shape []int64) []int64 {
	if strings.HasSuffix(name, ernieCorrection) && len(shape) == 1 {
		return []int64{1, shape[0]}
	}
	return nil
}
