package expr

import (
	"testing"

	"github.com/dequantfs/dequantfs/fp8"
)

// packedExperts are weights of full size: one projection of an expert of gpt-oss, of Kimi-K2, and
// of models in AWQ and GPTQ.
func packedExperts(b *testing.B, d *disk) map[string]Node {
	at := func(key string, dtype int64, shape ...int64) *Source {
		s := &Source{Key: key, File: d, Shape: shape}
		switch dtype {
		case 1:
			s.DType = u8
		case 2:
			s.DType = f16
		default:
			s.DType = i32
		}
		return s
	}
	rows, cols := int64(inter), int64(hidden)
	kinds := map[string]*Packed{
		"MXFP4": {Codes: at("c", 1, rows, cols/2), Values: &e2m1,
			Scales: Scales{Source: at("s", 1, rows, cols/32), Block: [2]int64{1, 32}}},
		"INT4": {Codes: at("c", 4, rows, cols/8), Zeros: Zeros{Constant: 8},
			Scales: Scales{Source: at("s", 2, rows, cols/32), Block: [2]int64{1, 32}}},
		"AWQ": {Codes: at("c", 4, rows, cols/8), Pack: Pack{Order: fp8.Interleaved},
			Scales: Scales{Source: at("s", 2, rows/128, cols), Block: [2]int64{128, 1}},
			Zeros: Zeros{Source: at("z", 4, rows/128, cols/8),
				Pack: Pack{Bits: 4, Order: fp8.Interleaved}}},
		"GPTQ": {Codes: at("c", 4, rows/8, cols), Pack: Pack{Down: true},
			Scales: Scales{Source: at("s", 2, rows/128, cols), Block: [2]int64{128, 1}},
			Zeros:  Zeros{Source: at("z", 4, rows/128, cols/8), Pack: Pack{Bits: 4}, Plus: 1}},
	}
	nodes := map[string]Node{}
	for name, p := range kinds {
		p.Pack.Bits, p.Shape, p.Out = 4, []int64{rows, cols}, bf16
		n := must(b)(DequantizePacked(p))
		nodes[name], nodes[name+"-transposed"] = n, must(b)(Transpose(n))
	}
	return nodes
}

// BenchmarkPacked reads packed weights in requests of 1 MiB. "copy" is the speed of memory.
func BenchmarkPacked(b *testing.B) {
	d := newDisk(b, inter*hidden+1<<20)
	b.Run("copy", benchmarkCopy)
	for name, n := range packedExperts(b, d) {
		b.Run(name, func(b *testing.B) { benchmarkReads(b, n, 1<<20) })
	}
}

// BenchmarkPackedFill fills the unit of a transposed weight.
func BenchmarkPackedFill(b *testing.B) {
	d := newDisk(b, inter*hidden+1<<20)
	for name, n := range packedExperts(b, d) {
		n.Units(0, 1, func(u *Unit) bool {
			b.Run(name, func(b *testing.B) {
				dst := make([]byte, u.Size())
				b.SetBytes(n.Size())
				for b.Loop() {
					if err := u.Fill(nil, dst); err != nil {
						b.Fatal(err)
					}
				}
			})
			return false
		})
	}
}
