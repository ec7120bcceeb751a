package adapter_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// small writes a tiny checkpoint of DeepSeek-V3's form.
func small() (dir string, remove func()) {
	base, err := os.MkdirTemp("", "checkpoint")
	if err != nil {
		log.Fatal(err)
	}
	dir = filepath.Join(base, "small")
	if err := synth.DeepSeek(synth.Options{Layers: 2, Experts: 2, Shards: 2}).Write(dir); err != nil {
		log.Fatal(err)
	}
	return dir, func() { _ = os.RemoveAll(base) }
}

func ExampleOpen() {
	dir, remove := small()
	defer remove()

	c, err := adapter.Open(dir, adapter.OpenOptions{}) // or a file, or "org/name@revision"
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	fmt.Println(c.Config.ModelType, "in", len(c.Shards()), "shards")
	t, _ := c.Tensor("model.layers.1.mlp.experts.0.up_proj.weight")
	fmt.Println(t.DType, t.Shape)
	// Output:
	// deepseek_v3 in 2 shards
	// F8_E4M3 [128 256]
}

func ExampleOpen_incomplete() {
	dir, remove := small()
	defer remove()
	shards, _ := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	_ = os.Remove(shards[1])

	_, err := adapter.Open(dir, adapter.OpenOptions{})
	fmt.Println(err.Error()[len(dir)+2:])
	// Output:
	// model-00002-of-000002.safetensors: missing
}

func ExampleNewPlan() {
	dir, remove := small()
	defer remove()
	c, err := adapter.Open(dir, adapter.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	p, err := adapter.NewPlan(c, adapter.Options{Layout: "native"})
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range p.Tensors {
		if len(t.Node.Shape()) == 3 {
			fmt.Println(t.Name, t.Node.DType(), t.Node.Shape())
		}
	}
	// Output:
	// model.layers.1.mlp.experts.gate_and_up_projs BF16 [2 256 256]
	// model.layers.1.mlp.experts.down_projs BF16 [2 128 256]
}

func ExampleErrChanged() {
	dir, remove := small()
	defer remove()
	c, err := adapter.Open(dir, adapter.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	shard := filepath.Join(dir, c.Shards()[0])
	if err := os.Truncate(shard, 100); err != nil {
		log.Fatal(err)
	}
	t := c.Tensors()[0]
	_, err = t.File.ReadAt(make([]byte, 16), t.Offset)
	fmt.Println(errors.Is(err, adapter.ErrChanged), errors.Is(err, fs.ErrClosed))
	// Output: true false
}
