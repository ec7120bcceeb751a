package export

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/dequantfs/dequantfs/fs"
)

// againstContent compares a file with the bytes of a tree.
func (v *verifier) againstContent(
	ctx context.Context, r FileRecord, file *os.File, content fs.ReaderAtContext,
) error {
	want := make([]byte, min(chunkSize, r.Size))
	var spots spots
	err := v.pieces(ctx, r, file, func(p []byte, off int64) error {
		w := want[:len(p)]
		if n, err := content.ReadAtContext(ctx, w, off); n < len(w) {
			return fmt.Errorf("%s at byte %d: %w",
				r.Name, off+int64(n), cmp.Or(err, io.ErrUnexpectedEOF))
		}
		if !bytes.Equal(p, w) {
			spots.find(r.Tensors, off, p, w)
		}
		return nil
	})
	for _, s := range spots {
		v.differ(r.Name, s.tensor, "%d bytes differ, the first at byte %d of the file",
			s.bytes, s.first)
	}
	if err == nil {
		v.checked(r)
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
