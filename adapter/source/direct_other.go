//go:build !linux

package source

// direct is empty, since only Linux has direct reads.
type direct struct{}

func (d *direct) close() {}
