package adapter

import (
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// BenchmarkFullSize opens and plans a checkpoint of DeepSeek-V3's full size: 91,991
// tensors in 163 shards.
func BenchmarkFullSize(b *testing.B) {
	dir := b.TempDir()
	if _, err := synth.WriteFull(dir); err != nil {
		b.Fatal(err)
	}
	benchmarkPlans(b, dir)
}

// BenchmarkKimiK3 opens and plans checkpoints in the shape of Kimi-K3: with 384 experts, and with
// the published sizes.
func BenchmarkKimiK3(b *testing.B) {
	for name, o := range map[string]synth.KimiK3Options{
		"61 layers of 384 experts": {Layers: 61, Experts: 384},
		"93 layers of 896 experts": {},
	} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			if err := synth.KimiK3(o).Write(dir); err != nil {
				b.Fatal(err)
			}
			benchmarkPlans(b, dir)
		})
	}
}

// benchmarkPlans opens a checkpoint and plans all its layouts.
func benchmarkPlans(b *testing.B, dir string) {
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			c := mustOpen(b, dir)
			b.StopTimer()
			mustClose(b, c)
			b.StartTimer()
		}
	})
	b.Run("first plan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			c := mustOpen(b, dir)
			b.StartTimer()
			if _, err := NewPlan(c, Options{Layout: "hf"}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			mustClose(b, c)
			b.StartTimer()
		}
	})
	c := mustOpen(b, dir)
	defer mustClose(b, c)
	for _, layout := range Layouts(c) {
		b.Run(layout, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := NewPlan(c, Options{Layout: layout}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func mustOpen(b *testing.B, dir string) *Checkpoint {
	c, err := Open(b.Context(), dir, OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func mustClose(b *testing.B, c *Checkpoint) {
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
}
