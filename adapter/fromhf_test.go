package adapter

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// cut slices row-major bytes one element at a time.
func cut(b []byte, width int, shape []int64, axis int, lo, hi int64) []byte {
	inner := int64(width)
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	var out []byte
	for at := int64(0); at < int64(len(b)); at += shape[axis] * inner {
		out = append(out, b[at+lo*inner:at+hi*inner]...)
	}
	return out
}

func TestSlicesEqualSlicingTheWhole(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 3, Hidden: 150,
		ExpertIntermediate: 140}))
	d := dict(t, opened(t, s), Options{Layout: "native"})
	rng := rand.New(rand.NewPCG(5, 6))
	for _, name := range []string{
		"model.layers.1.mlp.experts.gate_and_up_projs", "model.layers.1.mlp.experts.down_projs",
		"model.layers.1.self_attn.o_proj.weight", "model.norm.weight",
	} {
		l, ok := d.Tensor(name)
		if !ok {
			t.Fatalf("%s: missing", name)
		}
		whole := content(t, l)
		for range 30 {
			part, want := l, whole
			for axis, n := range l.Shape() {
				lo := rng.Int64N(n)
				hi := lo + 1 + rng.Int64N(n-lo)
				var err error
				want = cut(want, 2, part.Shape(), axis, lo, hi)
				if part, err = part.Slice(axis, lo, hi); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(content(t, part), want) {
				t.Errorf("%s: %s differs from slicing the whole", name, part.Recipe())
			}
		}
		if len(l.Shape()) != 3 {
			continue
		}
		one, err := l.Index(2)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(one.Shape(), l.Shape()[1:]) ||
			!bytes.Equal(content(t, one), cut(whole, 2, l.Shape(), 0, 2, 3)) {
			t.Errorf("%s: expert 2 has shape %v or other bytes", name, one.Shape())
		}
	}
	l, _ := d.Tensor("lm_head.weight")
	for _, err := range []error{second(l.Slice(2, 0, 1)), second(l.Slice(0, 0, 1<<40)),
		second(l.Index(-1))} {
		if err == nil || !strings.Contains(err.Error(), "lm_head.weight") {
			t.Errorf("error %v, want one that names the tensor", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestReadAtIsThatOfReaders(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 3, Hidden: 30,
		ExpertIntermediate: 20}))
	d := dict(t, opened(t, s), Options{Layout: "native"})
	for l := range d.All() {
		got, err := io.ReadAll(io.NewSectionReader(l, 0, l.Size()+10))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, content(t, l)) {
			t.Errorf("%s: read by pieces differs", l.Name())
		}
		p := make([]byte, 4)
		if n, err := l.ReadAt(p, l.Size()-2); n != 2 || !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end: %d, %v", l.Name(), n, err)
		}
		if n, err := l.ReadAt(p, l.Size()); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%s: behind the end: %d, %v", l.Name(), n, err)
		}
		if _, err := l.ReadAt(p, -1); err == nil {
			t.Errorf("%s: before the beginning: no error", l.Name())
		}
	}
	if _, ok := d.Tensor("absent"); ok {
		t.Error("a tensor that is not there was found")
	}
}

func TestManyReadersAtOnce(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 6, Hidden: 70,
		ExpertIntermediate: 33}))
	d := dict(t, opened(t, s), Options{Layout: "native"})
	want := map[string][]byte{}
	for _, x := range s.Native("BF16", 0, 1) {
		want[x.Name] = x.Data
	}
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 1))
			for l := range d.All() {
				off := rng.Int64N(l.Size())
				p := bytes.Repeat([]byte{0xa5}, int(1+rng.Int64N(l.Size()-off)))
				if _, err := l.ReadAt(p, off); err != nil {
					t.Error(err)
				} else if !bytes.Equal(p, want[l.Name()][off:off+int64(len(p))]) {
					t.Errorf("%s: other bytes from %d", l.Name(), off)
				}
			}
		})
	}
	wg.Wait()
}

// counted counts the source bytes that a file gives.
type counted struct {
	expr.File
	n *int
}

func (c *counted) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	*c.n += len(p)
	return c.File.ReadAt(ctx, p, off)
}

func TestTransposedTensorsAreNotReadAgainForEachPiece(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 2, Hidden: 64,
		ExpertIntermediate: 64}))
	c := opened(t, s)
	read, files := 0, map[expr.File]*counted{}
	for _, x := range c.Tensors() {
		if files[x.File] == nil {
			files[x.File] = &counted{x.File, &read}
		}
		x.File = files[x.File]
	}
	d := dict(t, c, Options{Layout: "native"})
	l, _ := d.Tensor("model.layers.1.mlp.experts.gate_and_up_projs")
	r := io.NewSectionReader(l, 0, l.Size())
	for p := make([]byte, 100); ; {
		if _, err := r.Read(p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if codes := 2 * 2 * 64 * 64; read < codes || read > 2*codes {
		t.Errorf("%d source bytes read for %d codes", read, codes)
	}
}

func TestExpertsWithoutAGate(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 3, Hidden: 20,
		ExpertIntermediate: 12}))
	s.Config["hidden_act"] = "relu2"
	for _, withGate := range []bool{true, false} {
		if !withGate {
			without(s, `experts\.\d+\.gate_proj`)
		}
		c := opened(t, s)
		d := dict(t, c, Options{Layout: "native"})
		l, ok := d.Tensor("model.layers.1.mlp.experts.gate_and_up_projs")
		if !ok || !slices.Equal(l.Shape(), []int64{3, 20, 12}) {
			t.Fatalf("shape %v, want [3 20 12]", l.Shape())
		}
		got := content(t, l)
		for e := range int64(3) {
			up := content(t, mustTensor(t, dict(t, c, Options{Layout: "hf"}),
				"model.layers.1.mlp.experts."+string('0'+rune(e))+".up_proj.weight"))
			for i := range int64(20) {
				for j := range int64(12) {
					if !bytes.Equal(got[2*((e*20+i)*12+j):][:2], up[2*(j*20+i):][:2]) {
						t.Fatalf("expert %d: element %d, %d is not up's transposed", e, i, j)
					}
				}
			}
		}
		for _, a := range d.Plan.Account {
			if isGate := strings.Contains(a.Key, "experts.") &&
				strings.Contains(a.Key, ".gate_proj.") &&
				!strings.Contains(a.Key, "shared"); isGate != (a.Fate == Dropped) {
				t.Errorf("%+v", a)
			}
		}
		back := opened(t, regrouped(s, tensorsOf(t, d)))
		published := dict(t, back, Options{Layout: "hf"})
		if _, ok := published.Tensor("model.layers.1.mlp.experts.2.up_proj.weight"); !ok {
			t.Error("taken apart again: no up_proj")
		}
	}
}

func mustTensor(t *testing.T, d *StateDict, name string) *Lazy {
	t.Helper()
	l, ok := d.Tensor(name)
	if !ok {
		t.Fatalf("%s: missing", name)
	}
	return l
}

// The reference's adapter for Qwen3.5 slices grouped experts, so a rank without any
// has tensors of none; split ones leave nothing.
func TestRanksWithoutExperts(t *testing.T) {
	c := opened(t, synthetic(t, listed["qwen3_5_moe"].config, listed["qwen3_5_moe"].tensors))
	d := dict(t, c, Options{Layout: "native", EP: EP{2, 3}})
	l := mustTensor(t, d, "model.language_model.layers.0.mlp.experts.gate_and_up_projs")
	if !slices.Equal(l.Shape(), []int64{0, 6, 8}) || len(content(t, l)) != 0 {
		t.Errorf("shape %v, want [0 6 8]", l.Shape())
	}
	if _, ok := d.Tensor("mtp.layers.0.mlp.experts.down_projs"); ok {
		t.Error("a rank without experts has grouped tensors of split ones")
	}
}

func TestTwoKeysToOneNameAreRefused(t *testing.T) {
	s := synthetic(t, listed["hy_v3"].config, listed["hy_v3"].tensors)
	with(s, "model.layers.0.mlp.gate.weight", "BF16", 1, 8)
	_, err := NewPlan(opened(t, s), Options{Layout: "native"})
	for _, want := range []string{"model.layers.0.mlp.gate.weight",
		"model.layers.0.mlp.router.gate.weight", "layout native", "leave one"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}
