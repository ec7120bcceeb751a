//go:build !linux

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newBench() *cobra.Command {
	return &cobra.Command{
		Use:   "bench SOURCE",
		Short: "measure what this machine reaches (on Linux only)",
		Args:  arity(1, 1),
		RunE:  func(*cobra.Command, []string) error { return errors.New("bench needs Linux") },
	}
}
