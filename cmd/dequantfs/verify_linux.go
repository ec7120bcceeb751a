package main

import (
	"fmt"
	"path/filepath"
)

// mountedSource gives the source of the mount at dir, or nothing if none of ours is there.
func mountedSource(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	m, found, err := topMount(abs)
	if err != nil || !found || m.fsType != fsType {
		return "", err
	}
	if !filepath.IsAbs(m.source) {
		return "", withHint(fmt.Errorf("%s: the mount does not say where its source is (%q)", dir, m.source), "say it with --source")
	}
	return m.source, nil
}
