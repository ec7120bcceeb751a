//go:build !linux

package units

const hugePage = 2 << 20

func mapMemory(n int64) []byte { return make([]byte, n) }

func unmapMemory([]byte) {}
