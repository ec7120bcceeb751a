//go:build !race

package fp8

// thinning divides the number of random values in tests of arithmetic.
const thinning = 1
