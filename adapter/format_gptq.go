package adapter

import (
	"fmt"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// isGPTQ reports whether the codes of a word belong to one column.
func (w *qweight) isGPTQ() bool { return w.packed() && w.codes.Shape[1] == w.scales.Shape[1] }

// gptqBits are the sizes of codes that are decoded.
var gptqBits = []int{2, 3, 4, 8}

// openGPTQ decodes codes whose words run down the columns.
func openGPTQ(o *opening) (decoder, error) {
	w := qweightOf(o.module)
	c, err := o.quantization.qweight(o.c)
	if err != nil {
		return nil, err
	}
	if err := c.expects(w, "GPTQ"); err != nil {
		return nil, err
	}
	if err := w.sizeGPTQ(); err != nil {
		return nil, err
	}
	s, err := c.schemeOf(o.name, w)
	if err != nil {
		return nil, err
	}
	size, err := w.groupSize(s)
	if err != nil {
		return nil, err
	}
	d := w.turned(size)
	d.Pack = expr.Pack{Bits: w.bits, Down: true}
	if d.Zeros, err = w.gptqZeros(c, s); err != nil {
		return nil, err
	}
	return d, w.regroup(o, d, s, size)
}

// sizeGPTQ finds the sizes. Zero points have as many bits as codes, and their words run along a row
// of scales, so the two widths give the bits.
func (w *qweight) sizeGPTQ() error {
	out := w.scales.Shape[1]
	bits := 32 * w.zeros.Shape[1] / out
	switch {
	case bits*out != 32*w.zeros.Shape[1], bits < 1, bits > 8:
		return fmt.Errorf("%s: %s: %s: the zero points of %d columns do not fit whole words",
			w.zeros.Shard, w.zeros.Key, w, out)
	case !slices.Contains(gptqBits, int(bits)):
		return fmt.Errorf("%s: %s: GPTQ in %d bits (%s) is not decoded: use a checkpoint in 2, 3, "+
			"4 or 8 bits, or in BF16", w.codes.Shard, w.codes.Key, bits, w)
	case 32*w.codes.Shape[0]%bits != 0:
		return fmt.Errorf("%s: %s: %s: %d words in a column do not hold whole codes of %d bits",
			w.codes.Shard, w.codes.Key, w, w.codes.Shape[0], bits)
	}
	w.size(int(bits), 32*w.codes.Shape[0]/bits, out)
	return nil
}

// gptqZeros returns the zero points. Those of symmetric codes are in the middle, whatever is
// stored, because published files of that kind store two different numbers and kernels read none.
func (w *qweight) gptqZeros(c *qweightConfig, s qweightScheme) (expr.Zeros, error) {
	if s.sym.from == "" {
		return expr.Zeros{}, fmt.Errorf("%s: %s: the configuration does not say whether zero "+
			"points count: add \"sym\": true or false to quantization_config in config.json",
			w.zeros.Shard, w.zeros.Key)
	}
	if s.sym.value {
		return expr.Zeros{Constant: 1 << (w.bits - 1)}, nil
	}
	order := c.order.value
	if order == "" {
		if c.undecided != "" {
			return expr.Zeros{}, fmt.Errorf("%s: %s: %s without packing_format does not say how "+
				"zero points are stored: add \"packing_format\" to quantization_config",
				w.zeros.Shard, w.zeros.Key, c.undecided)
		}
		order = "gptq"
	}
	return expr.Zeros{Source: &w.zeros.Source, Pack: expr.Pack{Bits: w.bits},
		Plus: qweightOrders[order].plus}, nil
}

// groupSize returns the number of rows under a scale.
func (w *qweight) groupSize(s qweightScheme) (int64, error) {
	switch {
	case w.groups == 1:
		return w.in, nil
	case s.group.from != "":
		return s.group.value, nil
	case w.in%w.groups == 0:
		return w.in / w.groups, nil
	case w.list != nil:
		return blocksIn(w.in, w.groups), nil // g_idx decides
	}
	return 0, fmt.Errorf("%s: %s: %d scales for %d rows, and no group_size in the configuration: "+
		"add it to quantization_config in config.json", w.scales.Shard, w.scales.Key, w.groups,
		w.in)
}

// regroup reads the list of groups. If it only says that groups follow each other, the weight does
// not need it.
func (w *qweight) regroup(o *opening, d *packedWeight, s qweightScheme, size int64) error {
	permutes := s.inOrder.from != "" && s.inOrder.value
	if w.list == nil {
		if permutes && w.groups > 1 {
			return fmt.Errorf("%s: %s: no %s.g_idx beside it, but %s: one of them is wrong",
				w.codes.Shard, w.codes.Key, o.name, s.inOrder.from)
		}
		return nil
	}
	l, err := w.groupList(o)
	inSequence, allZero := l.size == min(size, w.in), l.most == 0
	switch {
	case err != nil:
		return err
	case inSequence:
		return nil
	case allZero && (permutes || s.inOrder.from == ""):
		return fmt.Errorf("%s: %s: it puts all rows into group 0 of %d, but %s: one of them is "+
			"wrong", w.list.Shard, w.list.Key, w.groups, s.inOrder.said("desc_act"))
	case allZero: // as old programs wrote for groups in sequence
		return nil
	case s.inOrder.from != "" && !permutes:
		return fmt.Errorf("%s: %s: it puts rows into groups in another order, but %s: one of them "+
			"is wrong", w.list.Shard, w.list.Key, s.inOrder.from)
	}
	d.Groups = expr.Groups{Source: &w.list.Source}
	d.Scales.Block[0] = 0
	d.where = "groups in a listed order"
	return nil
}

// groupList returns the list of groups, and checks that each has a scale.
func (w *qweight) groupList(o *opening) (groupList, error) {
	if w.list.DType != safetensors.I32 || !slices.Equal(w.list.Shape, []int64{w.in}) {
		return groupList{}, fmt.Errorf("%s: %s: groups %s %v for %s %v in %d bits: "+
			"expected I32 [%d]", w.list.Shard, w.list.Key, w.list.DType, w.list.Shape,
			w.codes.Key, w.codes.Shape, w.bits, w.in)
	}
	l, err := o.list(w.list)
	if err != nil {
		return l, err
	}
	return l, l.check(w.list, w.groups)
}
