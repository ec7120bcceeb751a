package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newUmount() *cobra.Command {
	var lazy bool
	c := &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "unmount, and wait until the mount is gone",
		Long: "Unmount and wait until the mount is gone. What is still in use is refused, unless --lazy\n" +
			"detaches it: it leaves the tree at once, and files that are open are served until they are closed.",
		Example: "  dequantfs umount /mnt/v3",
		Args:    arity(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return umount(c.Context(), args[0], lazy)
		},
	}
	c.Flags().BoolVar(&lazy, "lazy", false, "detach now, serve open files until they are closed")
	return c
}

// umount unmounts one mountpoint.
func umount(ctx context.Context, path string, lazy bool) error {
	mountpoint, err := resolveMountpoint(path)
	if err != nil {
		return err
	}
	return detach(ctx, mountpoint, lazy)
}
