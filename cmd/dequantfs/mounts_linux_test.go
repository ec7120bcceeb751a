package main

import (
	"errors"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dequantfs/dequantfs/fs/mounts"
)

// mountsBelow lists the mounted checkpoints at dir and below.
func mountsBelow(dir string) (below []string, err error) {
	all, err := mounts.List()
	for _, m := range all {
		inside := m.Mountpoint == dir || strings.HasPrefix(m.Mountpoint, dir+"/")
		if m.Type == mounts.Type && inside {
			below = append(below, m.Mountpoint)
		}
	}
	return below, err
}

// scriptUsed waits until a process uses a mount: used MOUNTPOINT.
func scriptUsed(ts *testscript.TestScript, neg bool, args []string) {
	eventually(ts.Fatalf, func() error {
		if len(holders(ts.MkAbs(args[0]))) == 0 {
			return errors.New("no process uses " + args[0])
		}
		return nil
	})
}
