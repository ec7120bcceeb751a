package expr

import (
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
)

// File is a file with source bytes.
type File = source.File

// Source is a stored tensor: a range of bytes of a file.
type Source struct {
	Key    string // its name in the checkpoint
	File   source.File
	Offset int64 // of its first byte in File
	DType  safetensors.DType
	Shape  []int64
}
