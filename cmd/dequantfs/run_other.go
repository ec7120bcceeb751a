//go:build !linux

package main

import "github.com/spf13/cobra"

func (r *runFlags) run(c *cobra.Command, source string, command []string) error {
	return startBackground(c.Context(), nil, c.ErrOrStderr(), "")
}
