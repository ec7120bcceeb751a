package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holders names the processes that keep a mount busy, as far as this user may see them. They have
// an open or mapped file, their working directory or their root in the mount. It does not touch the
// mount.
func holders(mountpoint string) (names []string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		if opens(p, mountpoint) || hasMapped(p, mountpoint) {
			names = append(names, nameOf(p))
		}
	}
	return names
}

// nameOf names a process. This one keeps a mount busy only by a file that it was given.
func nameOf(process string) string {
	if filepath.Base(process) == strconv.Itoa(os.Getpid()) {
		return "a file that this command was started with"
	}
	comm, _ := os.ReadFile(process + "/comm")
	return fmt.Sprintf("%s (%s)", strings.TrimSpace(string(comm)), filepath.Base(process))
}

// opens reports whether a process has a descriptor, its working directory or its root in a mount.
func opens(process, mountpoint string) bool {
	links, _ := filepath.Glob(process + "/fd/*")
	for _, l := range append(links, process+"/cwd", process+"/root") {
		if leadsInto(l, mountpoint) {
			return true
		}
	}
	return false
}

// leadsInto reports whether a link of /proc leads into a mount.
func leadsInto(link, mountpoint string) bool {
	target, err := os.Readlink(link)
	return err == nil && (target == mountpoint || strings.HasPrefix(target, mountpoint+"/"))
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
