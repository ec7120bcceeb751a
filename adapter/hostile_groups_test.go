package adapter

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Tensors without elements let a small file claim very many experts or parts. They are refused
// before memory is allocated for each.
func TestNumbersOfPartsThatCannotBeRightAreRefused(t *testing.T) {
	layer := func(n string, count string) string {
		path := "model.language_model.layers." + n + ".mlp.experts."
		return path + "gate_up_proj BF16 " + count + " 0 4\n" + path + "down_proj BF16 " + count +
			" 4 0\n"
	}
	var many strings.Builder
	for _, n := range strings.Split("0 1 2 3 4 5 6 7 8 9 10 11", " ") {
		many.WriteString(layer(n, "65536"))
	}
	const text = "more experts than are planned"
	wantRefused(t, synthetic(t, `{"model_type": "qwen3_5_moe"}`, layer("0", "200000000")),
		LayoutSplit, "layers.0.mlp.experts.", "[200000000 ", text)
	wantRefused(t, synthetic(t, `{"model_type": "qwen3_5_moe"}`, many.String()), LayoutSplit, text)
	wantRefused(t, synthetic(t, `{"model_type": "qwen4_exp", "split_ngram_parts": 200000000}`,
		"model.layers.0.ple.ple_embedding.ngram_embedding.weight BF16 200000000 0"), LayoutHF,
		"ngram_embedding.weight", "split_ngram_parts", "give --layout transformers")
}

// The account of a group that is taken apart takes time in proportion to the number of its experts.
func TestManyExpertsOfAGroupAreTakenApartInTime(t *testing.T) {
	c := opened(t, synthetic(t, `{"model_type": "mixtral"}`,
		"model.layers.0.mlp.experts.gate_up_proj BF16 65536 0 4\n"+
			"model.layers.0.mlp.experts.down_proj BF16 65536 4 0"))
	begun := time.Now()
	d := dict(t, c, Options{Layout: LayoutHF})
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("the plan took %v", took)
	}
	if n := len(d.Plan.Account[0].Into) + len(d.Plan.Account[1].Into); n != 3*65536 ||
		d.Len() != n {
		t.Errorf("%d tensors, of which the account has %d, want %d", d.Len(), n, 3*65536)
	}
}

// Scales for another number of experts than there are belong to another model, also where the
// experts are apart.
func TestScalesOfOtherExpertsAreRefused(t *testing.T) {
	const layer = "model.language_model.layers.0."
	wantRefused(t, synthetic(t, `{"model_type": "gemma4", "num_experts": 2}`,
		layer+"experts.{0,1}.{gate_proj,up_proj}.weight BF16 4 6\n"+
			layer+"experts.{0,1}.down_proj.weight BF16 6 4\n"+
			layer+"router.per_expert_scale F32 3"), LayoutNative,
		"experts.0.down_proj.weight", layer+"router.per_expert_scale", "[3]", "2 experts")
}

// One shard of a checkpoint in layout transformers may hold keys without queries. Their rows stay
// as they are.
func TestKeysWithoutQueriesKeepTheirOrder(t *testing.T) {
	const key = "model.vision_tower.layers.0.attn.k_proj.weight"
	c := filled(t, `{"model_type": "kimi_k25", "vision_config": {"vt_num_attention_heads": 2}}`,
		key+" BF16 16 2")
	wantTensor(t, dict(t, opened(t, c), Options{Layout: LayoutTransformers}), c.Tensors[0])
}

// A dense row does not make a model dense that may have experts, and neither does an unknown name.
func TestDenseRowsMayNotHaveExperts(t *testing.T) {
	for config, want := range map[string]string{
		`{"model_type": "llama", "num_local_experts": 8}`:                "by num_local_experts",
		`{"model_type": "qwen3", "architectures": ["QwenMoEForCausal"]}`: "by architectures",
		`{"model_type": "novel_moe"}`:                                    "by model_type",
		`{"model_type": "novel", "parts": {"model_type": "qwen3_moe"}}`:  "by parts.model_type",
	} {
		c := synthetic(t, config, "model.norm.weight BF16 8")
		if slices.Contains(Layouts(opened(t, c)), LayoutNative) {
			t.Errorf("%s: has layout native", config)
		}
		wantRefused(t, c, LayoutNative, "has no layout native", want)
	}
}
