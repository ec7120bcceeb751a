package adapter

import (
	"fmt"
	"slices"
	"strings"
)

// bucket holds the tensors of one file group.
type bucket struct {
	group   string
	order   [2]int // sorts the groups
	tensors []Tensor
}

// destination is where a tensor goes: into a bucket, as one of the rank or as one of all ranks.
type destination struct {
	*bucket
	ofRank bool
}

// destination is where a tensor goes that is made of w.
func (p *planner) destination(w *weight, at place) destination {
	return destination{p.bucket(w, at), p.isOfRank(at)}
}

// bucket is the file group of a tensor made of w.
func (p *planner) bucket(w *weight, at place) *bucket {
	switch {
	case p.layout.apart():
		return p.group(w.Shard, [2]int{})
	case at.layer >= 0 && p.isModels(at.prefix):
		return p.group(fmt.Sprintf("layer-%05d", at.layer), [2]int{1, at.layer})
	case at.layer >= 0 && strings.HasPrefix(at.prefix, predictionPrefix):
		return p.group(fmt.Sprintf("mtp-layer-%05d", at.layer), [2]int{2, at.layer})
	}
	return p.group("rest-00000", [2]int{})
}

// isModels reports whether layers with a prefix are the model's own, of which each has its files.
func (p *planner) isModels(prefix string) bool {
	if language[prefix] {
		return true
	}
	k := p.family.expertKeys()
	return k != nil && slices.Contains(k.prefixes, prefix) &&
		!slices.ContainsFunc(predictionPrefixes, func(mtp string) bool {
			return strings.HasPrefix(prefix, mtp)
		})
}

// group gives the file group of a name, making it the first time.
func (p *planner) group(name string, order [2]int) *bucket {
	b := p.buckets[name]
	if b == nil {
		b = &bucket{group: name, order: order}
		p.buckets[name] = b
	}
	return b
}

// ordered gives the tensors by file group. These are the source's shards in their order, or the
// tensors outside of layers and then the layers.
func (p *planner) ordered() []Tensor {
	rank := map[string]int{}
	for i, s := range p.c.Shards() {
		rank[s] = i
	}
	all, n := make([]*bucket, 0, len(p.buckets)), 0
	for _, b := range p.buckets {
		if p.layout.apart() {
			b.order[1] = rank[b.group]
		}
		all, n = append(all, b), n+len(b.tensors)
	}
	slices.SortFunc(all, func(a, b *bucket) int { return slices.Compare(a.order[:], b.order[:]) })
	tensors := make([]Tensor, 0, n)
	for _, b := range all {
		tensors = append(tensors, b.tensors...)
	}
	return tensors
}
