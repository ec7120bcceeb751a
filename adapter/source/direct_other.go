//go:build !linux

package source

// direct is nothing here.
type direct struct{}

func (d *direct) close() {}
