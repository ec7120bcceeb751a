//go:build !race

package fp8

// thinning divides how often tests of arithmetic try random values.
const thinning = 1
