package export

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// isShard reports whether a name is that of a safetensors file.
func isShard(name string) bool { return strings.HasSuffix(name, ".safetensors") }

// tensorsOf lists the tensors of a file. Only safetensors files have tensors.
func tensorsOf(name string, r io.ReaderAt, size int64) ([]TensorRecord, error) {
	if !isShard(name) {
		return nil, nil
	}
	h, err := safetensors.ReadHeader(r, size)
	if err != nil {
		return nil, err
	}
	list := make([]TensorRecord, len(h.Tensors))
	for i, t := range h.Tensors {
		list[i] = TensorRecord{
			Name: t.Name, DType: t.DType.String(), Shape: t.Shape,
			Begin: h.DataOffset + t.Begin, End: h.DataOffset + t.End,
		}
	}
	return list, nil
}

// dataOffset returns where the data of a safetensors file begins according to its first bytes. If
// these are missing, it returns 0.
func dataOffset(f io.ReaderAt) int64 {
	var length [8]byte
	if n, _ := f.ReadAt(length[:], 0); n < len(length) {
		return 0
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > math.MaxInt64-8 {
		return 0
	}
	return 8 + int64(n)
}

// dataOffset returns where the first tensor begins.
func (f *FileRecord) dataOffset() int64 {
	if len(f.Tensors) == 0 {
		return f.Size
	}
	return f.Tensors[0].Begin
}

// disagree returns the first tensor in which a record and the header of its file differ.
func (f *FileRecord) disagree(header []TensorRecord) (tensor, problem string) {
	for i := range max(len(f.Tensors), len(header)) {
		switch {
		case i == len(f.Tensors):
			return header[i].Name, "is in the header of the file, but not in the manifest"
		case i == len(header):
			return f.Tensors[i].Name, "is in the manifest, but not in the header of the file"
		case !sameTensor(&f.Tensors[i], &header[i]):
			return f.Tensors[i].Name, fmt.Sprintf("is %v in the manifest, but %v in the header "+
				"of the file", &f.Tensors[i], &header[i])
		}
	}
	return "", ""
}

func sameTensor(a, b *TensorRecord) bool {
	return a.Name == b.Name && a.DType == b.DType && a.Begin == b.Begin && a.End == b.End &&
		slices.Equal(a.Shape, b.Shape)
}

// String describes a tensor and its place.
func (t *TensorRecord) String() string {
	return fmt.Sprintf("%.200q, %s of shape %v, bytes %d to %d",
		t.Name, t.DType, t.Shape, t.Begin, t.End)
}

// tensorAt returns the name of the tensor that a byte belongs to, or nothing.
func tensorAt(tensors []TensorRecord, at int64) string {
	i, _ := slices.BinarySearchFunc(tensors, at, func(t TensorRecord, at int64) int {
		if t.End <= at {
			return -1
		}
		return 1
	})
	if i < len(tensors) && tensors[i].Begin <= at {
		return tensors[i].Name
	}
	return ""
}
