//go:build !linux

package adapter

// direct is nothing here.
type direct struct{}

func (d *direct) close() {}
