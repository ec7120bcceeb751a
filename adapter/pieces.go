package adapter

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// pieces maps a key to the offset of the shard's tensor in the whole tensor. A distributed save of
// torch writes a file per rank with that rank's piece of each tensor under the full key. The
// metadata of the header has the offsets. A piece must not pass for the tensor.
type pieces map[string][]int64

// piecesField is the field of a header's metadata that describes pieces.
const piecesField = "DCP_SHARDING_INFO"

// maxPieces is the most bytes of that field. A rank of the largest published checkpoint would write
// a third of it.
const maxPieces = 32 << 20

// consolidate is the remedy for pieces.
const consolidate = "consolidate them first (torch.distributed.checkpoint, " +
	"consolidate_safetensors_files)"

// piecesOf reads the offsets of the tensors of a shard. The text may be as long as a header, so
// only the offsets are kept.
func piecesOf(h *safetensors.Header) (pieces, error) {
	text := h.Metadata[piecesField]
	switch {
	case text == "":
		return nil, nil
	case len(text) > maxPieces:
		return nil, fmt.Errorf("metadata: %s: %d bytes: more than %d are not read",
			piecesField, len(text), maxPieces)
	}
	p := make(pieces, len(h.Tensors))
	for i := range h.Tensors {
		p[h.Tensors[i].Name] = nil
	}
	r := &jsonReader{text: []byte(text)}
	err := r.object(func(key string) error {
		offsets, err := r.savedOffsets()
		if _, ours := p[key]; ours {
			p[key] = offsets
		}
		return err
	})
	if r.peek(); err == nil && r.at < len(r.text) {
		err = r.unexpected()
	}
	if err != nil {
		return nil, fmt.Errorf("metadata: %s: %w", piecesField, err)
	}
	return p, nil
}

// savedOffsets reads the object of one tensor and returns its saved_offsets.
func (r *jsonReader) savedOffsets() (offsets []int64, err error) {
	err = r.object(func(key string) error {
		r.values = 0 // the limit applies to each member
		c, from := r.peek(), r.at
		if key != "saved_offsets" || c == 'n' {
			return r.check(0)
		}
		if c != '[' {
			err := r.check(0)
			return cmp.Or(err, fmt.Errorf("saved_offsets is %s: expected a list",
				shorten(string(r.text[from:r.at]))))
		}
		offsets = nil
		return r.each(func([]byte) error {
			n, err := r.integer()
			if offsets = append(offsets, n); len(offsets) > maxRank {
				return fmt.Errorf("more than %d saved_offsets", maxRank)
			}
			return err
		})
	})
	return offsets, err
}

// maxRank is the most dimensions of a tensor.
const maxRank = 64

// object reads an object and calls visit before each value. visit must read the value.
func (r *jsonReader) object(visit func(key string) error) error {
	if r.peek() != '{' {
		return r.unexpected()
	}
	return r.each(func(written []byte) error {
		key, err := unquote(written)
		if err != nil {
			return err
		}
		return visit(key)
	})
}

// integer reads a whole number.
func (r *jsonReader) integer() (int64, error) {
	r.peek()
	token, err := r.scalar()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(token), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a whole number", shorten(string(token)))
	}
	return n, nil
}

// check refuses a tensor that is not at the beginning of the whole tensor.
func (p pieces) check(key string) error {
	at := p[key]
	if !slices.ContainsFunc(at, func(n int64) bool { return n != 0 }) {
		return nil
	}
	return fmt.Errorf("it is a piece that begins at %d of the whole tensor, "+
		"written by one rank of a distributed save: %s", at, consolidate)
}
