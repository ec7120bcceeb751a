package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// size is a flag in bytes, such as 512MiB or 16GiB.
type size int64

func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	switch {
	case err != nil || n > math.MaxInt64:
		return fmt.Errorf("%q is not a size such as 512MiB or 16GiB", text)
	case n > 0 && strings.IndexFunc(text, isLetter) < 0:
		return fmt.Errorf("%q has no unit: write %[2]sB for bytes, or %[2]sMiB", text,
			strings.TrimSpace(text))
	}
	*s = size(n)
	return nil
}

func isLetter(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' }

// String returns the exact size, because flags are passed on to other processes as text.
func (s *size) String() string {
	if *s == 0 {
		return "" // help then names no default
	}
	text := formatSize(int64(*s))
	if n, err := humanize.ParseBytes(text); err != nil || n != uint64(*s) {
		return strconv.FormatInt(int64(*s), 10) + "B"
	}
	return text
}

func (s *size) Type() string { return "SIZE" }

// cacheSize is the flag --cache-size. Without it, the size depends on the machine. With 0 nothing
// is kept.
type cacheSize struct {
	size
	given bool
}

func (c *cacheSize) Set(text string) error {
	c.given = true
	return c.size.Set(text)
}

func (c *cacheSize) String() string {
	if c.given && c.size == 0 {
		return "0"
	}
	return c.size.String()
}

// option returns the size for fs.Options, where 0 means the default.
func (c *cacheSize) option() int64 {
	if c.given && c.size == 0 {
		return -1
	}
	return int64(c.size)
}

// formatSize prints a size in the largest binary unit, with one decimal if needed: 512MiB, 1.4GiB,
// 100B.
func formatSize(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + "B"
	}
	unit, value := -1, float64(n)
	for value >= 1024 && unit < 5 {
		unit, value = unit+1, value/1024
	}
	return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64),
		".0") + "KMGTPE"[unit:unit+1] + "iB"
}
