// Package pagecache says what of a file the kernel has in memory, and brings files there.
//
// The kernel keeps what was read of a file in its page cache, for all readers. Warm fills it with
// many requests at once, before a loader comes that reads one file after the other. Resident says
// how much is there.
package pagecache

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Range is a part of a file, in bytes.
type Range struct{ Off, Len int64 }

// File is a file, or the parts of it that are wanted.
type File struct {
	Name   string
	Ranges []Range // whole pages in order, see Pages
}

// Size returns how many bytes of the file are wanted.
func (f *File) Size() (n int64) {
	for _, r := range f.Ranges {
		n += r.Len
	}
	return n
}

// Pages returns the pages of a file of size bytes that hold the given parts, each page once. The
// last page ends with the file.
func Pages(size int64, parts ...Range) (pages []Range) {
	page := int64(os.Getpagesize())
	parts = slices.SortedFunc(slices.Values(parts), func(a, b Range) int {
		return cmp.Compare(a.Off, b.Off)
	})
	for _, p := range parts {
		begin := p.Off / page * page
		end := min((p.Off+p.Len+page-1)/page*page, size)
		if p.Len <= 0 || begin >= end {
			continue
		}
		last := len(pages) - 1
		if last < 0 || pages[last].Off+pages[last].Len < begin {
			pages = append(pages, Range{begin, end - begin})
		} else if l := &pages[last]; end > l.Off+l.Len {
			l.Len = end - l.Off
		}
	}
	return pages
}

// ErrSecret says that the kernel does not tell this user what of a file is in memory.
var ErrSecret = errors.New("the kernel tells only the owner of a file, and root, what is in memory")

// ErrNotKept says that the bytes of a file were read but did not stay in memory.
var ErrNotKept = errors.New("what is read of it does not stay in memory")

// ErrEvicted says that the kernel drops from memory what was brought there.
var ErrEvicted = errors.New("the kernel drops again what was brought into memory")

// FullError says that memory has no room for more.
type FullError struct {
	By string // the limit: a cgroup's file, or the machine
}

// Error names the limit.
func (e *FullError) Error() string {
	return fmt.Sprintf("memory is full: %s has no room for more", e.By)
}

// Held is how much of a file is in memory.
type Held struct {
	Name   string
	Wanted int64 // bytes
	InMem  int64 // bytes of them that are in memory
}
