//go:build !linux

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newWarm() *cobra.Command {
	return &cobra.Command{
		Use:   "warm MOUNTPOINT | FOLDER | FILE...",
		Short: "bring files into memory (on Linux only)",
		Args:  arity(1, 1<<20),
		RunE:  func(*cobra.Command, []string) error { return errors.New("warm needs Linux") },
	}
}
