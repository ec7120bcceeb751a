package fp8

// BlockSize is the side of a block of weights that share a scale, as in DeepSeek-V3's checkpoints.
const BlockSize = 128

// CalculateScaleShape returns the shape of the grid of scales for a weight of rows × cols in blocks
// of block × block. The last row and column of blocks may be partial. It follows the reference's
// calculate_scale_shape. It panics if rows or cols is negative or block is not positive.
func CalculateScaleShape(rows, cols, block int) (gridRows, gridCols int) {
	if rows < 0 || cols < 0 || block <= 0 {
		panic("fp8: negative shape or block of no size")
	}
	return ceilDiv(rows, block), ceilDiv(cols, block)
}

// CreateScaleInvForWeight returns a grid of ones for a weight of rows × cols, row-major. It follows
// the reference's create_scale_inv_for_weight, which makes a placeholder to load into.
func CreateScaleInvForWeight(rows, cols, block int) []float32 {
	r, c := CalculateScaleShape(rows, cols, block)
	ones := make([]float32, r*c)
	for i := range ones {
		ones[i] = 1
	}
	return ones
}

func ceilDiv(a, b int) int { return a/b + min(a%b, 1) }
