//go:build !linux

package adapter

// grant is for mounts, which are on Linux only.
func (f *sourceFile) grant(*mountTable) grant { return grant{path: f.name, mode: f.Mode()} }

type mountTable struct{}
