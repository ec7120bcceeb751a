//go:build !amd64 || purego

package fp8

// pin does nothing, since there is one set.
func pin(bool) {}
