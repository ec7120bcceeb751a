//go:build race

package adapter_test

// racing says that the race detector takes part, which multiplies time and memory.
const racing = true
