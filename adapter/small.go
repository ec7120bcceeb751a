package adapter

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Limits to the tensors whose bytes are read when a checkpoint is opened.
const (
	maxSmall  = 64 << 10 // bytes of one tensor; a longer one is left out
	maxSmalls = 64 << 20 // bytes of all of them

	smallGap = 4 << 10  // bytes between two tensors that are read together
	smallRun = 64 << 10 // bytes that one read may have beyond its first tensor
)

// readSmall reads the small tensors that formats name in their column read. A model has one for
// each of its weights, so neighbours are read together and several files at the same time.
func (c *Checkpoint) readSmall(ctx context.Context, table *formatTable) error {
	runs, err := smallRuns(c.tensors, table)
	if err != nil || len(runs) == 0 {
		return err
	}
	bufs := make([][]byte, len(runs))
	err = concurrently(len(runs), func(i int) (err error) {
		bufs[i], err = runs[i].read(ctx)
		return err
	})
	if err != nil {
		return err
	}
	c.small = map[*Stored][]byte{}
	for i, run := range runs {
		for _, t := range run {
			c.small[t], bufs[i] = bufs[i][:t.size()], bufs[i][t.size():]
		}
	}
	return nil
}

// smallRun is small tensors near each other in a file, in the order of their bytes.
type smallTensors []*Stored

// smallRuns returns the tensors to be read. tensors are by shard and then in data order.
func smallRuns(tensors []*Stored, table *formatTable) (runs []smallTensors, err error) {
	total := int64(0)
	for _, t := range tensors {
		if !table.read[t.Key[strings.LastIndexByte(t.Key, '.')+1:]] || t.size() > maxSmall {
			continue
		}
		if total += t.size(); total > maxSmalls {
			return nil, fmt.Errorf("%s: %s: more than %d bytes of such tensors up to here: too "+
				"many for a checkpoint", t.Shard, t.Key, int64(maxSmalls))
		}
		if n := len(runs); n > 0 && runs[n-1].reach(t) {
			runs[n-1] = append(runs[n-1], t)
		} else {
			runs = append(runs, smallTensors{t})
		}
	}
	return runs, nil
}

// reach reports whether the next tensor is read together with these.
func (s smallTensors) reach(t *Stored) bool {
	first, last := s[0], s[len(s)-1]
	return t.File == first.File && t.Offset-(last.Offset+last.size()) <= smallGap &&
		t.Offset-first.Offset <= smallRun
}

// read returns the bytes of the tensors, one after the other.
func (s smallTensors) read(ctx context.Context) ([]byte, error) {
	first, last := s[0], s[len(s)-1]
	span := make([]byte, last.Offset+last.size()-first.Offset)
	if n, err := first.File.ReadAt(ctx, span, first.Offset); n < len(span) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("%s: %s: %w", first.Shard, first.Key, err)
	}
	var all []byte
	for _, t := range s {
		at := t.Offset - first.Offset
		all = append(all, span[at:at+t.size()]...)
	}
	return all, nil
}

// size returns the bytes of a tensor, whose header has been checked.
func (t *Stored) size() int64 {
	n, err := safetensors.Size(t.DType, t.Shape)
	if err != nil {
		return 0
	}
	return n
}
