//go:build !linux

package main

import (
	"context"
	"errors"
)

func detach(context.Context, string, bool) error {
	return errors.New("mounting needs Linux and FUSE: there is nothing to unmount here")
}

func (r *record) elsewhere() bool { return false }
