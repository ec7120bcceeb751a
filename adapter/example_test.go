package adapter_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"regexp"
	"strings"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// example writes a small DeepSeek-V3 checkpoint and opens it.
func example() (c *adapter.Checkpoint, done func()) {
	dir, err := os.MkdirTemp("", "checkpoint")
	if err != nil {
		log.Fatal(err)
	}
	if err := synth.DeepSeek(synth.Options{Layers: 2, Experts: 4}).Write(dir); err != nil {
		log.Fatal(err)
	}
	if c, err = adapter.Open(context.Background(), dir, adapter.OpenOptions{}); err != nil {
		log.Fatal(err)
	}
	return c, func() {
		_ = c.Close()
		_ = os.RemoveAll(dir)
	}
}

// An FP8 checkpoint as the reference's from_hf gives it, in BF16. Only the expert
// that is read is computed.
func ExampleFromHF() {
	c, done := example()
	defer done()

	state, err := adapter.FromHF(c, adapter.Options{Layout: "native"})
	if err != nil {
		log.Fatal(err)
	}
	experts, ok := state.Tensor("model.layers.1.mlp.experts.gate_and_up_projs")
	if !ok {
		log.Fatal("no experts")
	}
	fmt.Println(experts.DType(), experts.Shape())

	third, err := experts.Index(2)
	if err != nil {
		log.Fatal(err)
	}
	up, err := third.Slice(1, 128, 256) // behind the gate
	if err != nil {
		log.Fatal(err)
	}
	n, err := io.Copy(io.Discard, io.NewSectionReader(up, 0, up.Size()))
	fmt.Println(up.Shape(), n, err)
	// Output:
	// BF16 [4 256 256]
	// [256 128] 65536 <nil>
}

// The experts of one of two expert-parallel ranks, in F32, without the output head.
func ExampleNewPlan() {
	c, done := example()
	defer done()

	plan, err := adapter.NewPlan(c, adapter.Options{
		Layout:  "transformers",
		DType:   safetensors.F32,
		EP:      adapter.EP{Rank: 1, Size: 2},
		Exclude: regexp.MustCompile(`lm_head|model\.(embed|norm|layers\.0|layers\.1\.self_attn)`),
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range plan.Tensors {
		fmt.Println(t.Name, t.Node.DType(), t.Node.Shape())
	}
	// Output:
	// model.layers.1.mlp.gate.e_score_correction_bias F32 [4]
	// model.layers.1.input_layernorm.weight BF16 [256]
	// model.layers.1.mlp.gate.weight BF16 [4 256]
	// model.layers.1.post_attention_layernorm.weight BF16 [256]
	// model.layers.1.mlp.experts.gate_up_proj F32 [2 256 256]
	// model.layers.1.mlp.experts.down_proj F32 [2 256 128]
	// model.layers.1.mlp.shared_experts.down_proj.weight F32 [256 128]
	// model.layers.1.mlp.shared_experts.gate_proj.weight F32 [128 256]
	// model.layers.1.mlp.shared_experts.up_proj.weight F32 [128 256]
}

// A checkpoint quantized anew: to_hf with real scales.
func ExampleToHF() {
	c, done := example()
	defer done()

	state, err := adapter.ToHF(c, adapter.Options{Layout: "hf-fp8"})
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"model.layers.1.mlp.experts.3.up_proj.weight",
		"model.layers.1.mlp.experts.3.up_proj.weight_scale_inv", "lm_head.weight"} {
		t, _ := state.Tensor(name)
		fmt.Println(t.DType(), t.Shape())
	}
	// Output:
	// F8_E4M3 [128 256]
	// F32 [1 2]
	// BF16 [512 256]
}

// The reference's adapter by its own name.
func ExampleDeepSeekV3() {
	c, done := example()
	defer done()

	a, err := adapter.NewDeepSeekV3(c.Config, adapter.Options{EP: adapter.EP{Rank: 0, Size: 4}})
	if err != nil {
		log.Fatal(err)
	}
	state, err := a.FromHF(c)
	if err != nil {
		log.Fatal(err)
	}
	t, _ := state.Tensor("model.layers.1.mlp.experts.down_projs")
	fmt.Println(t.Shape())
	fmt.Println(strings.ReplaceAll(t.Recipe(), ", ", ",\n"))
	// Output:
	// [1 128 256]
	// stack(transpose(dequantize(model.layers.1.mlp.experts.0.down_proj.weight,
	// …_scale_inv,
	// 128×128,
	// bf16)))
}
