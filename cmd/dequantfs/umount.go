package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/fs"
)

func newUmount() *cobra.Command {
	var lazy, all bool
	c := &cobra.Command{
		Use:     "umount MOUNTPOINT | --all",
		Aliases: []string{"unmount"},
		Short:   "unmount, and wait until the mount is gone",
		Long: "Unmount and wait until the mount is gone. A mount in use is refused. With --lazy\n" +
			"it is detached: it leaves the tree at once, and open files are served until they\n" +
			"are closed.",
		Example: "  dequantfs umount /mnt/v3\n  dequantfs umount --all",
		Args:    arity(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return wrongUsage(c, "a mountpoint and --all exclude each other")
			case all:
				return umountAll(c.Context(), lazy)
			}
			if err := arity(1, 1)(c, args); err != nil {
				return err
			}
			return umount(c.Context(), args[0], lazy)
		},
	}
	c.Flags().BoolVar(&lazy, "lazy", false, "detach now, serve open files until they are closed")
	c.Flags().BoolVar(&all, "all", false, "all mounts of this user")
	return c
}

// umountAll unmounts every mount of this user. If one is in use, the others are still unmounted.
func umountAll(ctx context.Context, lazy bool) error {
	all, err := states(ctx)
	for _, m := range all {
		if !m.served() && !m.elsewhere() {
			err = errors.Join(err, detach(ctx, m.Mountpoint, lazy))
		}
	}
	return err
}

// listMounts is the hint for a mountpoint without a mount.
const listMounts = "dequantfs status lists the mounts"

// umount unmounts one mountpoint.
func umount(ctx context.Context, path string, lazy bool) error {
	mountpoint, err := fs.ResolveMountpoint(path)
	if err != nil {
		return err
	}
	return detach(ctx, mountpoint, lazy)
}
