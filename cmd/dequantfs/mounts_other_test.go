//go:build !linux

package main

import "github.com/rogpeppe/go-internal/testscript"

func mountsBelow(string) ([]string, error) { return nil, nil }

func scriptUsed(*testscript.TestScript, bool, []string) {}
