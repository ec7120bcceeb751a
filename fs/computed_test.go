package fs

import (
	"io"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// readAll reads every shard of a tree, by several readers at once.
func readAll(t *testing.T, f *FS, readers int) {
	t.Helper()
	names := shardsOf(t, f, ".")
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for _, name := range names {
				r, err := f.ReaderAt(name)
				if err == nil {
					_, err = r.ReadAt(make([]byte, r.Size()), 0)
				}
				if err != nil && err != io.EOF {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestComputedScalesAreComputedOnce(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Plain: true, Experts: 4})
	f := openViews(t, dir, Options{CacheSize: 1}, layout("", "hf-fp8", safetensors.BF16))
	readAll(t, f, 1)
	once := f.Stats().SourceBytes
	readAll(t, f, 1)
	if again := f.Stats().SourceBytes - once; again >= once*3/4 {
		t.Errorf("the first pass read %d bytes of the source, the second %d: it computed scales "+
			"again", once, again)
	}
	again := f.Stats().SourceBytes - once
	fresh := openViews(t, dir, Options{CacheSize: 1}, layout("", "hf-fp8", safetensors.BF16))
	readAll(t, fresh, 8)
	if got, want := fresh.Stats().SourceBytes, once+7*again; got > want {
		t.Errorf("eight readers at once read %d bytes of the source, %d suffice", got, want)
	}
}

func TestClosedFilesystemComputesNothing(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Plain: true, Experts: 2})
	f := openViews(t, dir, Options{}, layout("", "hf-fp8", safetensors.BF16))
	var scale *segment
	var of *file
	for _, name := range shardsOf(t, f, ".") {
		r, err := f.ReaderAt(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.(*file).segments[1:] {
			if strings.HasSuffix(s.key, "_scale_inv") {
				scale, of = s, r.(*file)
			}
		}
	}
	f.Close()
	s := f.session(t.Context(), of, 0, 1)
	if err := scale.node.ReadAt(s.read, make([]byte, scale.node.Size()), 0); err == nil {
		t.Error("a scale was computed after Close")
	}
}

func TestLostValuesAreCounted(t *testing.T) {
	c := synth.DeepSeek(synth.Options{Plain: true, Experts: 2})
	for i := range c.Tensors {
		if w := &c.Tensors[i]; strings.HasSuffix(w.Name, "o_proj.weight") && w.DType == "BF16" {
			w.Data[0], w.Data[1] = 0x80, 0x7f // infinity
		}
	}
	dir := t.TempDir()
	if err := c.Write(dir); err != nil {
		t.Fatal(err)
	}
	f := openViews(t, dir, Options{}, layout("", "hf-fp8", safetensors.BF16))
	readAll(t, f, 1)
	if n := f.Stats().Saturated; n == 0 {
		t.Error("infinities were quantized and nothing was counted")
	}

	big := synth.DeepSeek(synth.Options{Experts: 2})
	for i := range big.Tensors {
		if s := &big.Tensors[i]; strings.HasSuffix(s.Name, "_scale_inv") {
			bits := math.Float32bits(1e6)
			s.Data[0], s.Data[1], s.Data[2], s.Data[3] = byte(bits), byte(bits>>8), byte(bits>>16),
				byte(bits>>24)
		}
	}
	dir = t.TempDir()
	if err := big.Write(dir); err != nil {
		t.Fatal(err)
	}
	f = openViews(t, dir, Options{}, layout("", "hf", safetensors.F16))
	readAll(t, f, 1)
	if n := f.Stats().Infinite; n == 0 {
		t.Error("values overflowed F16 and nothing was counted")
	}
}

// packedFS is a tree with one transposed matrix of 4-bit codes, whose grid of scales is large.
func packedFS(t *testing.T, file expr.File, rows, cols int64) *FS {
	t.Helper()
	codes := &expr.Source{Key: "w", File: file, DType: safetensors.U8,
		Shape: []int64{rows, cols / 2}}
	scales := &expr.Source{Key: "s", File: file, Offset: rows * cols / 2, DType: safetensors.F8E8M0,
		Shape: []int64{rows, cols / 32}}
	n, err := expr.DequantizePacked(&expr.Packed{Codes: codes, Shape: []int64{rows, cols},
		Pack: expr.Pack{Bits: 4}, Out: safetensors.BF16,
		Scales: expr.Scales{Source: scales, Block: [2]int64{1, 32}}})
	if err == nil {
		n, err = expr.Transpose(n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return treeOf(t, Options{}, adapter.Tensor{Name: "w", Node: n, Group: "g"})
}

func TestALargeGridIsReadOnceForReadersAtOnce(t *testing.T) {
	const rows, cols = 1024, 2048
	size := int64(rows*cols/2 + rows*cols/32)
	f := packedFS(t, &memory{name: "source", size: size}, rows, cols)
	readAll(t, f, 8)
	if got := f.Stats().SourceBytes; got != size {
		t.Errorf("eight readers at once read %d bytes of a source of %d", got, size)
	}
}

// Rows of scales are read with the rows of codes. What belongs to all rows is read once.
func TestASecondScaleIsReadOnce(t *testing.T) {
	const rows, cols = 1024, 2048
	codes, scales := int64(rows*cols/2), int64(rows*cols/16)
	file := &memory{name: "source", size: codes + scales + 4}
	n, err := expr.DequantizePacked(&expr.Packed{
		Codes: &expr.Source{Key: "w", File: file, DType: safetensors.U8,
			Shape: []int64{rows, cols / 2}},
		Shape: []int64{rows, cols}, Pack: expr.Pack{Bits: 4}, Out: safetensors.BF16,
		Scales: expr.Scales{
			Source: &expr.Source{Key: "s", File: file, Offset: codes, DType: safetensors.F8E4M3,
				Shape: []int64{rows, cols / 16}},
			Block: [2]int64{1, 16},
			Second: &expr.Source{Key: "s2", File: file, Offset: codes + scales,
				DType: safetensors.F32},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f := treeOf(t, Options{}, adapter.Tensor{Name: "w", Node: n, Group: "g"})
	readSteps(t, f, 128<<10)
	if got := f.Stats().SourceBytes; got != file.size {
		t.Errorf("read %d bytes of a source of %d", got, file.size)
	}
}
