package adapter

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Limits to the tensors whose bytes are read when a checkpoint is opened. Shapes and descriptions
// are needed. Lists are only needed early, so those beyond their limits are left out: reads check
// them too.
const (
	maxShape  = 4 << 10  // bytes of a tensor that is needed
	maxShapes = 64 << 20 // bytes of all of them
	maxList   = 1 << 20  // bytes of a list
	maxLists  = 64 << 20 // bytes of all lists

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

// smallTensors are near each other in a file, in the order of their bytes.
type smallTensors []*Stored

// smallRuns returns the tensors to be read. tensors are by shard and then in data order.
func smallRuns(tensors []*Stored, table *formatTable) (runs []smallTensors, err error) {
	var shapes, lists int64
	for _, t := range tensors {
		if !table.read[t.Key[strings.LastIndexByte(t.Key, '.')+1:]] {
			continue
		}
		switch n := t.size(); {
		case n > maxList || n > maxShape && lists+n > maxLists:
			continue
		case n > maxShape:
			lists += n
		case shapes+n > maxShapes:
			return nil, fmt.Errorf("%s: %s: more than %d bytes of such tensors up to here: too "+
				"many for a checkpoint", t.Shard, t.Key, int64(maxShapes))
		default:
			shapes += n
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
