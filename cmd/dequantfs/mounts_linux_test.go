package main

import (
	"errors"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// mountsBelow lists our mounts at dir and below.
func mountsBelow(dir string) (below []string, err error) {
	all, err := mounts()
	for _, m := range all {
		if m.fsType == fsType && (m.mountpoint == dir || strings.HasPrefix(m.mountpoint, dir+"/")) {
			below = append(below, m.mountpoint)
		}
	}
	return below, err
}

// scriptUsed waits until a process uses a mount: used MOUNTPOINT.
func scriptUsed(ts *testscript.TestScript, neg bool, args []string) {
	eventually(ts.Fatalf, func() error {
		if len(users(ts.MkAbs(args[0]))) == 0 {
			return errors.New("nobody uses " + args[0])
		}
		return nil
	})
}
