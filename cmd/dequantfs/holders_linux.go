package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// holders names the processes that keep a mount busy, as far as this user may see them. They have
// an open or mapped file, their working directory or their root in the mount. It does not touch the
// mount.
func holders(mountpoint string) (names []string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		if opens(p, mountpoint) || hasMapped(p, mountpoint) {
			comm, _ := os.ReadFile(p + "/comm")
			names = append(names,
				fmt.Sprintf("%s (%s)", strings.TrimSpace(string(comm)), filepath.Base(p)))
		}
	}
	return names
}

// opens reports whether a process has a descriptor, its working directory or its root in a mount.
func opens(process, mountpoint string) bool {
	links, _ := filepath.Glob(process + "/fd/*")
	for _, l := range append(links, process+"/cwd", process+"/root") {
		target, err := os.Readlink(l)
		if err == nil && (target == mountpoint || strings.HasPrefix(target, mountpoint+"/")) {
			return true
		}
	}
	return false
}

// hasMapped reports whether a process has mapped a file of a mount. A mapping keeps the mount busy
// after the file was closed. Loaders of safetensors close the file and keep the mapping.
func hasMapped(process, mountpoint string) bool {
	table, err := os.ReadFile(process + "/maps")
	if err != nil {
		return false
	}
	// A line is "address permissions offset device inode   path", the path with \n as \012.
	path := " " + strings.ReplaceAll(mountpoint, "\n", `\012`) + "/"
	return bytes.Contains(table, []byte(path))
}
