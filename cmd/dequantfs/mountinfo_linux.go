package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// fsType is how the kernel names our mounts.
const fsType = "fuse.dequantfs"

// mountEntry is one line of /proc/self/mountinfo.
type mountEntry struct {
	device     string // major:minor
	mountpoint string
	fsType     string
	source     string
}

// mounts lists the mounts of this namespace in the order they were made. It does
// not touch the mounts: one that hangs must not hang us.
func mounts() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []mountEntry
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m, ok := parseMountinfo(lines.Text()); ok {
			all = append(all, m)
		}
	}
	return all, lines.Err()
}

// parseMountinfo reads "36 35 98:0 /root /mountpoint options [optional…] - type source super".
func parseMountinfo(line string) (mountEntry, bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 6 || len(r) < 2 {
		return mountEntry{}, false
	}
	return mountEntry{device: l[2], mountpoint: unescapeMount(l[4]), fsType: r[0], source: unescapeMount(r[1])}, true
}

// unescapeMount undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescapeMount(s string) string {
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

// topMount is the uppermost mount at a mountpoint.
func topMount(mountpoint string) (top mountEntry, found bool, err error) {
	all, err := mounts()
	for _, m := range all {
		if m.mountpoint == mountpoint {
			top, found = m, true
		}
	}
	return top, found, err
}
