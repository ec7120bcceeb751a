//go:build !race

package expr

import (
	"context"
	"testing"
)

// With the race detector, sync.Pool drops buffers at random, so this test is built without it.
func TestReadsDoNotAllocate(t *testing.T) {
	m := newMaker(t, 1)
	expert := func() both { return m.merged(40, 56, bf16) }
	codes, scales := m.quantize(m.load(bf16, 150, 200), [2]int64{}, Amax)
	for name, n := range map[string]both{
		"load":             m.load(bf16, 40, 50),
		"load columns":     m.load(bf16, 40, 50).slice(1, 3, 30),
		"load transposed":  m.load(bf16, 40, 50).transpose(),
		"dequantize":       m.dequantize(quantized{block: blocks}, 200, 300),
		"dequantize slice": m.dequantize(quantized{block: blocks, scale: bf16, out: f32}, 200, 300).slice(1, 5, 250),
		"merged experts":   m.stack(expert(), expert(), expert()),
		"cast":             m.load(bf16, 40, 50).cast(f32),
		"swapped rows":     m.load(bf16, 40, 50).swapRows(5, 2),
		"swapped vector":   m.load(bf16, 400).swapRows(5, 20),
		"product":          m.load(bf16, 40, 50).product(m.load(bf16, 40)),
		"reshape":          m.load(bf16, 40, 50).reshape(50, 40).slice(1, 1, 30),
		"codes":            codes,
		"MXFP4":            m.packed(mxfp4, 40, 64),
		"MXFP4 transposed": m.packed(mxfp4, 40, 64).transpose(),
		"AWQ":              m.packed(awq, 64, 40).transpose(),
		"GPTQ":             m.packed(gptq(4, 0), 64, 32).transpose(),
		"GPTQ 3 bits":      m.packed(gptq(3, -1), 64, 32).transpose(),
		"scales":           scales,
	} {
		p := make([]byte, n.Size()-2)
		for which, env := range map[string]*testEnv{
			"no cache": {ctx: context.Background()},
			"cache":    {cache: everything{}},
		} {
			allocs := testing.AllocsPerRun(200, func() {
				if err := n.ReadAt(env.read(), p, 1); err != nil {
					t.Fatal(err)
				}
			})
			if allocs != 0 {
				t.Errorf("%s, %s: %v allocations for a read", name, which, allocs)
			}
		}
		yield := func(*Unit) bool { return true }
		if allocs := testing.AllocsPerRun(100,
			func() { n.Units(1, n.Size()-2, yield) }); allocs != 0 {
			t.Errorf("%s: %v allocations for the units", name, allocs)
		}
	}
}
