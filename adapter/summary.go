package adapter

import (
	"cmp"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Count is the number of weights that are stored in the same way.
type Count struct {
	Weights int
	Format  string            // such as "FP8"; empty: not quantized
	Where   string            // the partition, such as "blocks of 128 × 128"; empty: not quantized
	Scales  safetensors.DType // of the scales; Invalid: there are none
}

// Summary counts the weights of a checkpoint by format, partition and dtype of the scales. The most
// frequent come first, and tensors that are not quantized come last. It fails as [NewPlan] does for
// weights that cannot be decoded.
func Summary(c *Checkpoint) ([]Count, error) {
	s := c.Config.fields()
	p, err := c.pair(s, familyOf(s))
	return summarize(p.weights), err
}

func summarize(weights []weight) []Count {
	counts := map[Count]int{}
	for i := range weights {
		var k Count
		if w := &weights[i]; w.decoder != nil {
			k.Format = w.format.name
			k.Where, k.Scales = w.decoder.describe()
		}
		counts[k]++
	}
	all := make([]Count, 0, len(counts))
	for k, n := range counts {
		k.Weights = n
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b Count) int {
		return cmp.Or(lastIfEmpty(a.Format, b.Format), cmp.Compare(b.Weights, a.Weights),
			cmp.Compare(a.Format, b.Format), cmp.Compare(a.Where, b.Where),
			cmp.Compare(a.Scales, b.Scales))
	})
	return all
}

// lastIfEmpty orders an empty string after all others, which are equal to it.
func lastIfEmpty(a, b string) int {
	return cmp.Compare(min(len(b), 1), min(len(a), 1))
}
