package adapter

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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
	step := max(1, len(tensors)/sampledTensors)
	samples := make([][]byte, (len(tensors)+step-1)/step)
	err := concurrently(len(samples), c.pace.heads, func(i int) (err error) {
		samples[i], err = c.sample(tensors[i*step])
		return err
	})
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for i, t := range tensors {
		fmt.Fprintf(h, "%q %s %d\n", t.Key, t.DType, t.Shape)
		if i%step == 0 {
			h.Write(samples[i/step])
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sample returns bytes from the middle of a tensor.
func (c *Checkpoint) sample(t *Stored) ([]byte, error) {
	size, err := safetensors.Size(t.DType, t.Shape)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Key, err)
	}
	f, done, err := c.reopened(t.File)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.File.Name(), err)
	}
	defer done()
	p := make([]byte, min(sampleBytes, size))
	if n, err := f.ReadAt(context.Background(), p, t.Offset+(size-int64(len(p)))/2); n < len(p) {
		return nil, fmt.Errorf("%s: %s: %w", t.File.Name(), t.Key, err)
	}
	return p, nil
}
