//go:build !linux

package fs

// addressSpace is not limited.
func addressSpace() allowance { return allowance{bytes: noLimit} }
