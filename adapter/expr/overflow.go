package expr

import (
	"encoding/binary"

	"github.com/dequantfs/dequantfs/fp8"
)

// overflowed counts the infinities in rows of F16 values, if the environment has counters.
func (env *Env) overflowed(out fp8.Format, dst []byte, stride, rows, cols int) {
	if out != fp8.F16 || env == nil || env.Counters == nil {
		return
	}
	n := 0
	for r := range rows {
		n += infinities(dst[r*stride:][:2*cols])
	}
	if n > 0 {
		env.Counters.Infinite.Add(int64(n))
	}
}

// infinities counts infinities. It skips four values at a time if none has the largest exponent.
func infinities(b []byte) (n int) {
	const exponents, ones = 0x7c007c007c007c00, 0x0400040004000400
	for len(b) > 0 {
		if len(b) >= 8 {
			// Adding 1 to an exponent carries into the sign bit if all bits of the exponent are
			// set.
			if e := binary.LittleEndian.Uint64(b) & exponents; (e+ones)&0x8000800080008000 == 0 {
				b = b[8:]
				continue
			}
		}
		if binary.LittleEndian.Uint16(b)&0x7fff == 0x7c00 {
			n++
		}
		b = b[2:]
	}
	return n
}
