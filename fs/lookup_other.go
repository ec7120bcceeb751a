//go:build !linux

package fs

// lookUp looks at nothing: there are no mounts.
func lookUp([]string, func(int) bool) {}
