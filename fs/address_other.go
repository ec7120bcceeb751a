//go:build !linux

package fs

// addressSpace returns no limit.
func addressSpace() allowance { return allowance{bytes: noLimit} }
