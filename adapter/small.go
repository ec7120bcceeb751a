package adapter

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Limits to the tensors whose bytes are read when a checkpoint is opened. Longer ones are left out.
const (
	maxSmall    = 4 << 10  // bytes of a tensor that is kept
	maxAllSmall = 64 << 20 // bytes of all of them
	maxList     = 1 << 20  // bytes of a list, which is not kept

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
	kept := make([]keptTensors, len(runs))
	err = concurrently(len(runs), c.pace.small, func(i int) (err error) {
		kept[i], err = runs[i].read(ctx, table)
		return err
	})
	if err != nil {
		return err
	}
	c.small, c.lists = map[*Stored][]byte{}, map[*Stored]groupList{}
	for _, k := range kept {
		maps.Copy(c.small, k.bytes)
		maps.Copy(c.lists, k.lists)
	}
	return nil
}

// keptTensors is the result of reading tensors: their bytes, or what they say as lists of groups.
type keptTensors struct {
	bytes map[*Stored][]byte
	lists map[*Stored]groupList
}

// smallTensors are near each other in a file, in the order of their bytes.
type smallTensors []*Stored

// smallRuns returns the tensors to be read. tensors are by shard and then in data order.
func smallRuns(tensors []*Stored, table *formatTable) (runs []smallTensors, err error) {
	kept := int64(0)
	for _, t := range tensors {
		n := t.size()
		switch last := lastPart(t.Key); {
		case table.lists[last] && n <= maxList:
		case table.read[last] && n <= maxSmall:
			if kept += n; kept > maxAllSmall {
				return nil, fmt.Errorf("%s: %s: more than %d bytes of such tensors up to here: "+
					"too many for a checkpoint", t.Shard, t.Key, int64(maxAllSmall))
			}
		default:
			continue
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

// read reads the tensors and returns what is kept of them.
func (s smallTensors) read(ctx context.Context, table *formatTable) (k keptTensors, err error) {
	first, last := s[0], s[len(s)-1]
	span := make([]byte, last.Offset+last.size()-first.Offset)
	if n, err := first.File.ReadAt(ctx, span, first.Offset); n < len(span) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return k, fmt.Errorf("%s: %s: %w", first.Shard, first.Key, err)
	}
	k = keptTensors{map[*Stored][]byte{}, map[*Stored]groupList{}}
	for _, t := range s {
		raw := span[t.Offset-first.Offset:][:t.size()]
		if table.lists[lastPart(t.Key)] {
			k.lists[t] = groupListOf(raw)
		} else {
			k.bytes[t] = slices.Clone(raw)
		}
	}
	return k, nil
}

// lastPart returns the text after the last dot of a key.
func lastPart(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// size returns the bytes of a tensor, whose header has been checked.
func (t *Stored) size() int64 {
	n, err := safetensors.Size(t.DType, t.Shape)
	if err != nil {
		return 0
	}
	return n
}
