package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan is for those who make packages.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIRECTORY",
		Short:   "write the man pages",
		Example: "  dequantfs man /usr/local/share/man/man1",
		Hidden:  true,
		Args:    arity(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := c.Root()
			root.DisableAutoGenTag = true
			never := time.Unix(0, 0).UTC() // the same pages whenever they are made
			return doc.GenManTree(root, &doc.GenManHeader{Title: "DEQUANTFS", Section: "1", Source: "dequantfs", Manual: "dequantfs", Date: &never}, args[0])
		},
	}
}
