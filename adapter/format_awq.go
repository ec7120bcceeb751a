package adapter

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fp8"
)

// gemm is the only order of AWQ that is decoded. Other kernels have other orders.
const gemm = "gemm"

// isAWQ reports whether the codes of a word belong to one row: each word of zero points is beside
// eight scales and above one word of codes.
func (w *qweight) isAWQ() bool {
	return w.packed() && w.list == nil && w.codes.Shape[1] == w.zeros.Shape[1] &&
		w.scales.Shape[1] == 8*w.zeros.Shape[1]
}

// openAWQ decodes codes of 4 bits. Codes and zero points are in the same order, and the zero points
// are as stored.
func openAWQ(o *opening) (decoder, error) {
	w := qweightOf(o.module)
	w.size(4, w.codes.Shape[0], w.scales.Shape[1])
	c, err := o.quantization.qweight(o.c)
	if err != nil {
		return nil, err
	}
	if err := c.expects(w, "AWQ"); err != nil {
		return nil, err
	}
	s, err := c.schemeOf(o.name, w)
	if err != nil {
		return nil, err
	}
	if s.zeroPoint.from != "" && !s.zeroPoint.value {
		return nil, fmt.Errorf("%s: %s: zero points exist, but %s: one of them is wrong",
			w.zeros.Shard, w.zeros.Key, s.zeroPoint.from)
	}
	size, err := w.groupSize(s)
	if err != nil {
		return nil, err
	}
	d := w.turned(size)
	d.Pack = expr.Pack{Bits: 4, Order: fp8.Interleaved}
	d.Zeros = expr.Zeros{Source: &w.zeros.Source, Pack: d.Pack}
	return d, nil
}
