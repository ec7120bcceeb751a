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
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			c, err := Open(dir, OpenOptions{})
			if err != nil {
				b.Fatal(err)
			}
			if err := c.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open and plan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c, err := Open(dir, OpenOptions{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := NewPlan(c, Options{Layout: "hf"}); err != nil {
				b.Fatal(err)
			}
			if err := c.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	c, err := Open(dir, OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for _, layout := range []string{"native", "hf", "torchtitan"} {
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
