package adapter

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// AWQ and GPTQ store the transposed weight under the same names: qweight, qzeros, scales. The
// shapes tell them apart, and they give the number of bits. The configuration says the rest.
var qweightFormats = []*format{
	{
		name: "AWQ", codes: ".qweight", parts: []string{".qzeros"}, optional: []string{".scales"},
		fits: func(m *module) bool { return qweightOf(m).isAWQ() }, open: openAWQ,
	},
	{
		name: "GPTQ", codes: ".qweight", parts: []string{".qzeros"},
		optional: []string{".scales", ".g_idx"}, lists: []string{".g_idx"},
		fits: func(m *module) bool { return qweightOf(m).isGPTQ() }, open: openGPTQ,
	},
	{
		name: "GPTQ or AWQ", codes: ".qweight", parts: []string{".qzeros", ".scales"},
		signs: []string{".qweight", ".qzeros", ".g_idx"}, optional: []string{".g_idx"},
		loose: true, open: refuseQweight,
	},
}

// qweight is the tensors of a weight that is packed into words of 32 bits.
type qweight struct {
	codes, zeros, scales, list *Stored // any may be nil

	bits    int
	in, out int64 // rows and columns of the codes, as stored
	groups  int64 // of rows
}

// qweightOf returns the tensors of a module.
func qweightOf(m *module) *qweight {
	return &qweight{codes: m.part(".qweight"), zeros: m.part(".qzeros"), scales: m.part(".scales"),
		list: m.part(".g_idx")}
}

// packed reports whether the tensors are those of packed matrices with a zero point for each scale.
func (w *qweight) packed() bool {
	return isWords(w.codes) && isWords(w.zeros) && isMatrix(w.scales) &&
		floating(w.scales.DType) && w.scales.Shape[0] == w.zeros.Shape[0]
}

func isMatrix(t *Stored) bool {
	return t != nil && len(t.Shape) == 2 && t.Shape[0] > 0 && t.Shape[1] > 0
}

func isWords(t *Stored) bool { return isMatrix(t) && t.DType == safetensors.I32 }

// String lists the tensors for messages.
func (w *qweight) String() string {
	text := ""
	for _, t := range []struct {
		name string
		*Stored
	}{{"qweight", w.codes}, {"qzeros", w.zeros}, {"scales", w.scales}} {
		if text != "" {
			text += ", "
		}
		if t.Stored == nil {
			text += "no " + t.name
			continue
		}
		text += fmt.Sprintf("%s %s %v", t.name, t.DType, t.Shape)
	}
	return text
}

// size sets the sizes.
func (w *qweight) size(bits int, in, out int64) {
	w.bits, w.in, w.out, w.groups = bits, in, out, w.scales.Shape[0]
}

// refuseQweight refuses packs in other orders.
func refuseQweight(o *opening) (decoder, error) {
	w := qweightOf(o.module)
	c, err := o.quantization.qweight(o.c)
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s: %s: %s is not decoded%s: %s have the shapes of neither GPTQ nor "+
		"AWQ: %s", w.codes.Shard, w.codes.Key, o.row.name, c.asSaid(), w, otherQweight)
}

// turned makes the decoder of a weight whose groups have size rows.
func (w *qweight) turned(size int64) *packedWeight {
	d := &packedWeight{where: partition{block: [2]int64{1, size}}.String(), turned: true}
	if w.groups == 1 {
		size, d.where = 0, rowPartition.String()
	}
	d.Codes, d.Shape = &w.codes.Source, []int64{w.in, w.out}
	d.Scales = expr.Scales{Source: &w.scales.Source, Block: [2]int64{size, 1}}
	return d
}
