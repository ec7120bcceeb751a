package adapter

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// pieces is where the tensors of a shard begin in the whole ones, by key. A distributed save
// of torch writes a file for each rank, with that rank's piece of each tensor under the
// tensor's key, and says so in the metadata of the header. A piece is not the tensor.
type pieces map[string][]int64

// piecesField is the member of a header's metadata that tells of pieces.
const piecesField = "DCP_SHARDING_INFO"

// consolidate is what to do about pieces.
const consolidate = "consolidate them first (torch.distributed.checkpoint, consolidate_safetensors_files)"

// piecesOf reads where the tensors of a shard begin.
func piecesOf(h *safetensors.Header) (pieces, error) {
	text := h.Metadata[piecesField]
	if text == "" {
		return nil, nil
	}
	var info map[string]struct {
		SavedOffsets []int64 `json:"saved_offsets"`
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		return nil, fmt.Errorf("metadata: %s: %w", piecesField, err)
	}
	p := make(pieces, len(info))
	for key, i := range info {
		p[key] = i.SavedOffsets
	}
	return p, nil
}

// check refuses a tensor that does not begin where the whole tensor does.
func (p pieces) check(key string) error {
	at := p[key]
	if !slices.ContainsFunc(at, func(n int64) bool { return n != 0 }) {
		return nil
	}
	return fmt.Errorf("it is a piece that begins at %d of the whole, as a rank of a distributed save writes it: %s", at, consolidate)
}
