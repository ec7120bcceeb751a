package adapter

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// groupList is what a stored list says about the groups of rows or columns. Lists of all modules
// together are large, so only this is kept of each.
type groupList struct {
	least, most int32 // groups in it
	size        int64 // rows of a group, if groups follow each other; 0: they do not
	each        int64 // rows of a group, if all from 0 to most have as many; 0: they do not
}

// groupListOf examines a list of I32, the group of each row.
func groupListOf(raw []byte) groupList {
	var l groupList
	group := func(i int64) int32 { return int32(binary.LittleEndian.Uint32(raw[4*i:])) }
	n := int64(len(raw) / 4)
	for l.size < n && group(l.size) == 0 {
		l.size++
	}
	sequence := l.size > 0
	for i := range n {
		g := group(i)
		l.least, l.most = min(l.least, g), max(l.most, g)
		sequence = sequence && int64(g) == i/l.size
	}
	if !sequence {
		l.size = 0
	}
	if l.least == 0 && int64(l.most) < n {
		l.each = l.count(n, group)
	}
	return l
}

// check refuses a list that names other groups than the n that have scales.
func (l *groupList) check(list *Stored, n int64) error {
	for _, g := range []int32{l.least, l.most} {
		if g < 0 || int64(g) >= n {
			return fmt.Errorf("%s: %s: it names group %d: expected 0 to %d", list.Shard, list.Key,
				g, n-1)
		}
	}
	return nil
}

// count returns the rows of each group, if all groups have as many.
func (l *groupList) count(n int64, group func(i int64) int32) int64 {
	counts := make([]int64, l.most+1)
	for i := range n {
		counts[group(i)]++
	}
	if slices.Min(counts) != slices.Max(counts) {
		return 0
	}
	return counts[0]
}
