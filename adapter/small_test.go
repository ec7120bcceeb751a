package adapter

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// countingFile counts reads.
type countingFile struct {
	source.File
	reads *atomic.Int64
}

func (f countingFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	f.reads.Add(1)
	return f.File.ReadAt(ctx, p, off)
}

// smallIn opens a checkpoint of one shard, and reads its small tensors again with a count.
func smallIn(t *testing.T, tensors ...synth.Tensor) (c *Checkpoint, reads int) {
	t.Helper()
	var count atomic.Int64
	c = opened(t, &synth.Checkpoint{Config: map[string]any{}, Single: true, Tensors: tensors})
	for _, x := range c.tensors {
		x.File = countingFile{x.File, &count}
	}
	c.small = nil
	if err := c.readSmall(t.Context(), knownFormats); err != nil {
		t.Fatal(err)
	}
	return c, int(count.Load())
}

// Neighbours are read together, and each tensor gets its own bytes.
func TestSmallTensorsAreReadWithTheirNeighbours(t *testing.T) {
	filler := func(i int, bytes int64) synth.Tensor {
		return stock(fmt.Sprintf("f%d.weight_packed", i), "I64", bytes/8)
	}
	shape := func(i int) synth.Tensor {
		return stockNumbers(fmt.Sprintf("f%d.weight_shape", i), "I64", int64(i), 1<<40)
	}
	var near []synth.Tensor
	for i := range 5000 {
		near = append(near, shape(i))
	}
	for name, test := range map[string]struct {
		tensors []synth.Tensor
		reads   int
	}{
		"none":                 {[]synth.Tensor{filler(0, 16)}, 0},
		"one":                  {[]synth.Tensor{filler(0, 16), shape(1)}, 1},
		"with a small gap":     {[]synth.Tensor{shape(0), filler(1, 4096), shape(2)}, 1},
		"with a large gap":     {[]synth.Tensor{shape(0), filler(1, 4104), shape(2)}, 2},
		"80,000 bytes of them": {near, 2},
	} {
		c, reads := smallIn(t, test.tensors...)
		if reads != test.reads {
			t.Errorf("%s: %d reads, want %d", name, reads, test.reads)
		}
		for _, x := range test.tensors {
			got, ok := c.small[c.byKey[x.Name]]
			if strings.HasSuffix(x.Name, "_shape") != ok || ok && !bytes.Equal(got, x.Data) {
				t.Errorf("%s: %s: %x, want %x", name, x.Name, got, x.Data)
			}
		}
	}
}

// Long tensors are left out, so that opening reads little.
func TestTensorsBeyondTheLimitsAreNotRead(t *testing.T) {
	var tensors []*Stored
	add := func(key string, n int64) {
		tensors = append(tensors, stored(key, safetensors.I32, n))
	}
	add("a.weight_g_idx", maxList/4)
	add("a.weight_g_idx_not", maxList/4)
	add("b.weight_g_idx", maxList/4+1)
	add("c.weight_shape", maxSmall/4)
	add("d.weight_shape", maxSmall/4+1)
	runs, err := smallRuns(tensors, knownFormats)
	var read []string
	for _, run := range runs {
		for _, x := range run {
			read = append(read, x.Key)
		}
	}
	if err != nil || !slices.Equal(read, []string{"a.weight_g_idx", "c.weight_shape"}) {
		t.Errorf("read %v, error %v", read, err)
	}

	tensors = nil
	for i := range int64(maxAllSmall/maxSmall + 1) {
		add(fmt.Sprintf("c%d.weight_shape", i), maxSmall/4)
	}
	if _, err := smallRuns(tensors, knownFormats); err == nil ||
		!strings.Contains(err.Error(), "too many") {
		t.Errorf("error %v", err)
	}
}

// A shard that ends before its small tensors is an error that names both.
func TestASmallTensorThatCannotBeReadIsAnError(t *testing.T) {
	c, _ := smallIn(t, stockNumbers("x.weight_shape", "I64", 3, 64))
	c.byKey["x.weight_shape"].Offset += 8
	err := c.readSmall(t.Context(), knownFormats)
	if err == nil || !strings.Contains(err.Error(), "model.safetensors: x.weight_shape: ") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.readSmall(ctx, knownFormats); err == nil {
		t.Error("no error after the context has ended")
	}
}

func TestNumbersOfSmallTensorsAreSigned(t *testing.T) {
	for _, dtype := range []string{"I32", "I64"} {
		c, _ := smallIn(t, stockNumbers("x.weight_shape", dtype, 3, -2, 1<<31-1))
		o := &opening{c: c}
		got, ok := o.numbers(c.byKey["x.weight_shape"])
		if !ok || fmt.Sprint(got) != "[3 -2 2147483647]" {
			t.Errorf("%s: %v, read %t", dtype, got, ok)
		}
	}
	o := &opening{c: &Checkpoint{}}
	if _, ok := o.numbers(stored("x.weight_g_idx", safetensors.I32, 9)); ok {
		t.Error("numbers of a tensor that was not read")
	}
}

// Opening 100,000 packs reads the shape of each.
func BenchmarkSmallTensors(b *testing.B) {
	const n = 100_000
	s := &synth.Checkpoint{Config: map[string]any{}, Single: true}
	for i := range n {
		data := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 3), 64)
		s.Tensors = append(s.Tensors, stock(fmt.Sprintf("m.%d.weight_packed", i), "I32", 1250),
			synth.Tensor{Name: fmt.Sprintf("m.%d.weight_shape", i), DType: "I32",
				Shape: []int64{2}, Data: data})
	}
	c := opened(b, s)
	for b.Loop() {
		if err := c.readSmall(b.Context(), knownFormats); err != nil || len(c.small) != n {
			b.Fatal(len(c.small), err)
		}
	}
}
