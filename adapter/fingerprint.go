package adapter

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Bounds of the data that a fingerprint samples.
const (
	sampledTensors = 256
	sampleBytes    = 64
)

// Fingerprint identifies a checkpoint without reading all of it. It is the SHA-256 of the key,
// dtype and shape of every stored tensor, and of 64 bytes from the middle of about 256 of them. It
// does not depend on the place of the checkpoint or on how tensors are spread over files.
func (c *Checkpoint) Fingerprint() (string, error) {
	tensors := slices.Clone(c.Tensors())
	slices.SortFunc(tensors, func(a, b *Stored) int { return cmp.Compare(a.Key, b.Key) })
	h := sha256.New()
	step := max(1, len(tensors)/sampledTensors)
	for i, t := range tensors {
		fmt.Fprintf(h, "%q %s %d\n", t.Key, t.DType, t.Shape)
		if i%step != 0 {
			continue
		}
		if err := t.sample(h); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sample adds bytes from the middle of a tensor to a hash.
func (t *Stored) sample(h hash.Hash) error {
	size, err := safetensors.Size(t.DType, t.Shape)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Key, err)
	}
	p := make([]byte, min(sampleBytes, size))
	if n, err := t.File.ReadAt(context.Background(), p,
		t.Offset+(size-int64(len(p)))/2); n < len(p) {
		return fmt.Errorf("%s: %s: %w", t.File.Name(), t.Key, err)
	}
	h.Write(p)
	return nil
}
