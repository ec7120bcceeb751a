package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// size is a flag in bytes, written 512MiB or 16GiB (also 16GB, 4096).
type size int64

func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%q is not a size such as 512MiB or 16GiB", text)
	}
	*s = size(n)
	return nil
}

func (s *size) String() string {
	if *s == 0 {
		return "" // help then names no default
	}
	return formatSize(int64(*s))
}

func (s *size) Type() string { return "SIZE" }

// formatSize prints a size in the largest binary unit, with one decimal where it
// does not come out even: 512MiB, 1.4GiB, 100B.
func formatSize(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + "B"
	}
	unit, value := -1, float64(n)
	for value >= 1024 && unit < 5 {
		unit, value = unit+1, value/1024
	}
	return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0") + "KMGTPE"[unit:unit+1] + "iB"
}
