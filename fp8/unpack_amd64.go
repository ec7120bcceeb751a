//go:build !purego

package fp8

// ordersOfEight are the positions of eight codes of 4 bits, from the lowest nibble, a byte each.
var ordersOfEight = [...]uint64{
	LowFirst:    0x0706050403020100,
	HighFirst:   0x0607040502030001,
	Interleaved: 0x0703060205010400,
}

func unpack(dst, src []byte, first, bits int, order Order) {
	if bits != 4 || using == generic {
		unpackGeneric(dst, src, first, bits, order)
		return
	}
	head := min(len(dst), -first&7)
	unpackGeneric(dst[:head], src, first, bits, order)
	dst, first = dst[head:], first+head
	if n := len(dst) &^ 31; n > 0 {
		unpackNibblesAVX2(&dst[0], &src[first/2], n, ordersOfEight[order])
		dst, first = dst[n:], first+n
	}
	unpackGeneric(dst, src, first, bits, order)
}

func unpackDown(dst, low, high []byte, word, shift, bits int) {
	n := len(dst) &^ 31
	if word == 1 || n == 0 || using == generic {
		unpackDownGeneric(dst, low, high, word, shift, bits)
		return
	}
	upper, left := &low[0], 32 // which shifts all bits out
	if high != nil {
		upper, left = &high[0], 32-shift
		high = high[4*n:]
	}
	unpackDownAVX2(&dst[0], &low[0], upper, n, shift, left, 1<<bits-1)
	unpackDownGeneric(dst[n:], low[4*n:], high, word, shift, bits)
}
