package export

import (
	"bytes"
	"context"
	"os"
)

// againstContent compares a file with the bytes of a tree.
func (v *verifier) againstContent(ctx context.Context, s *source, file *os.File) error {
	want := make([]byte, min(chunkSize, s.Size))
	var spots spots
	err := v.pieces(ctx, s.FileRecord, file, func(p []byte, off int64) error {
		if err := s.read(ctx, want[:len(p)], off); err != nil {
			return err
		}
		if !bytes.Equal(p, want[:len(p)]) {
			spots.find(s.Tensors, off, p, want)
		}
		return nil
	})
	for _, spot := range spots {
		v.differ(s.Name, spot.tensor, "%d bytes differ, the first at byte %d of the file",
			spot.bytes, spot.first)
	}
	if err == nil {
		v.checked(s.FileRecord)
	}
	return err
}

// spot is the wrong bytes of one tensor, or of a region outside all tensors.
type spot struct {
	tensor       string
	first, bytes int64
}

// spots are in the order of the file.
type spots []spot

// find adds the differences between got and want, which begin at byte off of the file.
func (s *spots) find(tensors []TensorRecord, off int64, got, want []byte) {
	for i := range got {
		if got[i] != want[i] {
			s.add(tensorAt(tensors, off+int64(i)), off+int64(i))
		}
	}
}

// add adds one wrong byte.
func (s *spots) add(tensor string, at int64) {
	if n := len(*s); n == 0 || (*s)[n-1].tensor != tensor {
		*s = append(*s, spot{tensor: tensor, first: at})
	}
	(*s)[len(*s)-1].bytes++
}
