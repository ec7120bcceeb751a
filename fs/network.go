package fs

import "github.com/dequantfs/dequantfs/adapter/source"

// traffic returns what was transferred from the source, or nil if it is not over a network.
func (f *FS) traffic() *source.Traffic {
	if f.checkpoint == nil {
		return nil
	}
	if t, ok := f.checkpoint.Traffic(); ok {
		return &t
	}
	return nil
}

// networkMemory returns the memory for the bytes of a source over a network.
func (f *FS) networkMemory() int64 {
	if t := f.traffic(); t != nil {
		return t.MemoryLimit
	}
	return 0
}
