package mounts

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

// List lists the mounts of this mount namespace in the order in which they were made.
func List() ([]Entry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f)
}

// Top is the uppermost mount at a mountpoint, which is a path without links.
func Top(mountpoint string) (top Entry, found bool, err error) {
	all, err := List()
	for _, m := range all {
		if m.Mountpoint == mountpoint {
			top, found = m, true
		}
	}
	return top, found, err
}

// longestLine is more than a line of the table has: two paths, each at most 4 KiB and escaped.
const longestLine = 1 << 20

func read(table io.Reader) (all []Entry, err error) {
	lines := bufio.NewScanner(table)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		if m, ok := parse(lines.Text()); ok {
			all = append(all, m)
		}
	}
	return all, lines.Err()
}

// parse reads "36 35 98:0 /root /mountpoint options [optional…] - type source super".
func parse(line string) (Entry, bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 6 || len(r) < 2 {
		return Entry{}, false
	}
	return Entry{Device: l[2], Mountpoint: unescape(l[4]), Type: r[0], Source: unescape(r[1])}, true
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
