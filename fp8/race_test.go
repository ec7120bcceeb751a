//go:build race

package fp8

// thinning divides the number of random values in tests of arithmetic. The race detector makes them
// ten times as slow and finds nothing in them.
const thinning = 20
