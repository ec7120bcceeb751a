package main

import (
	"os"

	"github.com/dequantfs/dequantfs/fs/pagecache"
)

// residentPages counts the pages of a range of a file that are in the page cache, and all of its
// pages. The range begins on a page. Measurements use it to check that a file was cold.
func residentPages(f *os.File, off, n int64) (resident, pages int, err error) {
	bytes, err := pagecache.Resident(f, pagecache.Range{Off: off, Len: n})
	size := int64(os.Getpagesize())
	return int((bytes + size - 1) / size), int((n + size - 1) / size), err
}
