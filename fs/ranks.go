package fs

import (
	"bytes"
	"slices"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// The files of an expert-parallel rank hold either experts or the rest. The rest is the same in
// every rank, so its files have one inode, and the kernel keeps their pages once. A file with
// experts precedes the rest, so the file that follows a shared file is shared, too.

// ownFirst puts the files with experts of the rank first. A file of the source that is now two is
// not a file of the source any more.
func ownFirst(shards []*shard) []*shard {
	var own, rest []*shard
	names := map[string]int{}
	for _, s := range shards {
		if s.ofRank {
			own = append(own, s)
		} else {
			rest = append(rest, s)
		}
		names[s.group]++
	}
	for _, s := range shards {
		if names[s.group] > 1 {
			s.group = ""
		}
	}
	return append(own, rest...)
}

// share adds a file that ranks may have in common. It is a hard link if another rank has the same.
func (b *builder) share(d *node, dir, name string, f *file) error {
	alike := b.ranks[string(f.header)]
	for _, other := range alike {
		if first := other.content.(*file); first.equals(f) {
			n := *other
			n.name = name
			first.links++
			return d.enter(dir, &n)
		}
	}
	err := b.file(d, dir, name, f, b.perm, time.Time{})
	b.ranks[string(f.header)] = append(alike, d.byName[name])
	return err
}

// equals reports whether two files certainly have the same bytes.
func (f *file) equals(other *file) bool {
	return bytes.Equal(f.header, other.header) && slices.Equal(f.ends, other.ends) &&
		slices.EqualFunc(f.segments[1:], other.segments[1:], func(a, b *segment) bool {
			return a.key == b.key && expr.Same(a.node, b.node)
		})
}

// follow notes that a file precedes next in a directory. If it precedes another file elsewhere, no
// file follows it.
func (f *file) follow(next *file) {
	if f == nil {
		return
	}
	if f.followed && f.next != next {
		next = nil
	}
	f.next, f.followed = next, true
}

// together returns the files of each view in their order. The files that several directories have
// are apart from those that only one has, since their reader may be of any rank.
func (f *FS) together() (all [][]*file) {
	dirs := map[*file]string{}
	var files []*file
	f.eachFile(func(dir, _ string, v *file) {
		if dirs[v] == "" {
			files = append(files, v)
		}
		dirs[v] += dir + "\x00"
	})
	at := map[string]int{}
	for _, v := range files {
		i, ok := at[dirs[v]]
		if !ok {
			i = len(all)
			at[dirs[v]], all = i, append(all, nil)
		}
		all[i] = append(all[i], v)
	}
	return all
}
