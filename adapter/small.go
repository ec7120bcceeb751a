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
	maxList   = 4 << 20  // bytes of a list of groups

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
	all := make([][]smallContent, len(runs))
	err = concurrently(len(runs), func(i int) (err error) {
		all[i], err = runs[i].read(ctx, table)
		return err
	})
	if err != nil {
		return err
	}
	c.small, c.lists = map[*Stored][]byte{}, map[*Stored]groupList{}
	for i, run := range runs {
		for j, t := range run {
			if x := all[i][j]; x.bytes != nil {
				c.small[t] = x.bytes
			} else {
				c.lists[t] = x.list
			}
		}
	}
	return nil
}

// smallContent is what is kept of a small tensor: its bytes, or what they say as a list of groups.
type smallContent struct {
	bytes []byte
	list  groupList
}

// smallRuns returns the tensors to be read. tensors are by shard and then in data order.
func smallRuns(tensors []*Stored, table *formatTable) (runs []smallTensors, err error) {
	total := int64(0)
	for _, t := range tensors {
		last := t.Key[strings.LastIndexByte(t.Key, '.')+1:]
		switch {
		case table.lists[last] && t.DType == safetensors.I32 && t.size() <= maxList:
		case !table.read[last] || t.size() > maxSmall:
			continue
		default:
			total += t.size()
		}
		if total > maxSmalls {
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

// smallRun is small tensors near each other in a file, in the order of their bytes.
type smallTensors []*Stored

// reach reports whether the next tensor is read together with these.
func (s smallTensors) reach(t *Stored) bool {
	first, last := s[0], s[len(s)-1]
	return t.File == first.File && t.Offset-(last.Offset+last.size()) <= smallGap &&
		t.Offset-first.Offset <= smallRun
}

// read returns what is kept of the tensors.
func (s smallTensors) read(ctx context.Context, table *formatTable) ([]smallContent, error) {
	first, last := s[0], s[len(s)-1]
	span := make([]byte, last.Offset+last.size()-first.Offset)
	if n, err := first.File.ReadAt(ctx, span, first.Offset); n < len(span) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("%s: %s: %w", first.Shard, first.Key, err)
	}
	all := make([]smallContent, len(s))
	for i, t := range s {
		raw := span[t.Offset-first.Offset:][:t.size()]
		if table.lists[t.Key[strings.LastIndexByte(t.Key, '.')+1:]] {
			all[i].list = groupListOf(raw)
		} else {
			all[i].bytes = append([]byte{}, raw...)
		}
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
