//go:build !linux

package inmemory

// roomy finds nothing: other systems have no such folder that every user may write to.
func roomy() string { return "" }
