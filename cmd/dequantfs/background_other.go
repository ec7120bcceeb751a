//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/dequantfs/dequantfs/fs"
)

type process struct{ child bool }

func newProcess() *process { return new(process) }

func inBackground() bool { return false }

func (p *process) ready() error { return nil }

func startBackground(context.Context, *os.File, io.Writer, string, ...string) error {
	return withHint(errors.New("mounting needs Linux and FUSE"),
		"ls, serve, export and verify work here; serve and export give the bytes that a mount "+
			"would show")
}

const nonblock = 0

func isWithoutReader(error) bool { return false }

func fuseMissing() error { return errors.New("it needs Linux") }

func defaultLog(string) (string, error) { return "", nil }

func notify(string) error { return nil }

type control struct{}

func (*control) Close() error { return nil }

func register(record, func() fs.Stats) (*control, error) { return new(control), nil }

func states(context.Context) ([]mountState, error) { return nil, nil }

func examineMachine(context.Context) []finding {
	return []finding{better("system",
		"mounting needs Linux and FUSE; ls, export and verify work here", "")}
}

func examineDisk(string) []finding { return nil }

func ended(int) bool { return false }

func (r *record) foreign() bool { return false }

func mayAllowOther() bool { return true }
