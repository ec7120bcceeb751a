package adapter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// numberedParts makes one matrix of parts that are numbered from 0, in the order of their numbers.
type numberedParts struct {
	from, to string // ends of the keys of a part, with "*" for its number, and of the matrix
	count    string // the field of the configuration with the number of parts
}

// mostParts limits the number of parts, since memory is allocated for each.
const mostParts = 1 << 16

// part reads the number of a part, and what its key has before the end that parts share.
func (j numberedParts) part(key string) (head string, n int, ok bool) {
	before, after, _ := strings.Cut(j.from, "*")
	rest, ok := strings.CutSuffix(key, after)
	if !ok {
		return "", 0, false
	}
	i := strings.LastIndex(rest, before)
	if i < 0 {
		return "", 0, false
	}
	n, tail, ok := number(rest[i+len(before):])
	return rest[:i], n, ok && tail == ""
}

func (j numberedParts) do(p *planner) error {
	parts := map[string][]*weight{} // by what their keys have before
	for i := range p.weights {
		if head, _, ok := j.part(p.weights[i].hf); ok {
			parts[head] = append(parts[head], &p.weights[i])
		}
	}
	shown := map[string]bool{}
	return p.replace(func(w *weight) ([]weight, error) {
		head, _, ok := j.part(w.hf)
		switch {
		case !ok:
			return nil, nil
		case shown[head]:
			return []weight{}, nil
		}
		shown[head] = true
		one, err := j.join(p, head, parts[head])
		return []weight{one}, err
	})
}

// join joins the parts below head, of which none may be missing.
func (j numberedParts) join(p *planner, head string, parts []*weight) (one weight, err error) {
	at := func(w *weight) int {
		_, n, _ := j.part(w.hf)
		return n
	}
	slices.SortFunc(parts, func(a, b *weight) int { return cmp.Compare(at(a), at(b)) })
	for i, w := range parts {
		if at(w) != i {
			return one, fmt.Errorf("expected %s beside it", j.key(head, i))
		}
	}
	n, found, err := p.s.whole(j.count)
	if err != nil {
		return one, err
	}
	if found && n != len(parts) {
		return one, fmt.Errorf("the checkpoint has %d such tensors, but config.json has %s = %d",
			len(parts), j.count, n)
	}
	nodes, err := p.alike(parts)
	if err != nil {
		return one, err
	}
	node, err := expr.Concat(0, nodes...)
	if err != nil {
		return one, err
	}
	return p.made(head+j.to, node, parts...), nil
}

// key is the key of a part.
func (j numberedParts) key(head string, n int) string {
	return head + strings.Replace(j.from, "*", fmt.Sprint(n), 1)
}

func (j numberedParts) undo(p *planner) error {
	return p.replace(func(w *weight) ([]weight, error) {
		head, ok := strings.CutSuffix(w.hf, j.to)
		if !ok {
			return nil, nil
		}
		n, found, err := p.s.whole(j.count)
		if err != nil {
			return nil, err
		}
		if !found || n < 1 || n > mostParts || len(w.shape()) == 0 || (partRows(w, n)*int64(n-1) >= w.shape()[0]) {
			return nil, fmt.Errorf("shape %v: expected rows for as many parts as config.json has "+
				"in %s", w.shape(), j.count)
		}
		return j.cut(p, w, head, n)
	})
}

// partRows is the number of rows of each of n parts of a matrix but the last, which has the rest.
func partRows(w *weight, n int) int64 { return (w.shape()[0] + int64(n) - 1) / int64(n) }

// cut divides a matrix into n parts.
func (j numberedParts) cut(p *planner, w *weight, head string, n int) ([]weight, error) {
	rows := partRows(w, n)
	parts := make([]weight, n)
	for i := range parts {
		begin := int64(i) * rows
		one, err := expr.Slice(p.node(w), 0, begin, min(begin+rows, w.shape()[0]))
		if err != nil {
			return nil, err
		}
		parts[i] = p.made(j.key(head, i), one, w)
	}
	return parts, nil
}
