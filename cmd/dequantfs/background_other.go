//go:build !linux

package main

import (
	"errors"
	"io"
)

type process struct{ child bool }

func newProcess() *process { return new(process) }

func (p *process) ready() error { return nil }

func startBackground(io.Writer, string, ...string) error {
	return withHint(errors.New("mounting needs Linux and FUSE"), "ls, export and verify work here; export writes the same bytes that a mount would show")
}

func fuseMissing() error { return errors.New("it needs Linux") }
