//go:build race

package fp8

// thinning divides how often tests of arithmetic try random values: the race detector makes each ten times as slow, and finds nothing in them.
const thinning = 20
