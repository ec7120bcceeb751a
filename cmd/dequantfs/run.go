package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// mountVariable is the environment variable that has the path of the view.
const mountVariable = "DEQUANTFS_MOUNT"

func newRun() *cobra.Command {
	var r runFlags
	c := &cobra.Command{
		Use:   "run SOURCE [flags] -- COMMAND {}",
		Short: "mount a checkpoint while a command runs",
		Long: "Mount a view, run COMMAND, and unmount. In its arguments {} is replaced\n" +
			"by the path of the view, which is also in " + mountVariable + ". The exit\n" +
			"status is that of COMMAND. It needs neither root nor fusermount3 where the\n" +
			"kernel lets users make user namespaces. It takes the other flags of dequantfs\n" +
			"mount, too.",
		Example: "  dequantfs run ~/models/DeepSeek-V3 -- ls -l {}\n" +
			"  dequantfs run ~/models/DeepSeek-V3 -- sh -c 'cat $" + mountVariable +
			"/config.json'",
		Args: hasCommand,
		RunE: func(c *cobra.Command, args []string) error { return r.run(c, args[0], args[1:]) },
	}
	r.mount.view.register(c)
	r.mount.register(c)
	c.Flags().StringVar(&r.at, "at", "", "mount at `DIR` (default a new temporary folder)")
	c.Flags().StringVar(&r.replace, "replace", "{}", "replaced by the path, '': nothing is")
	for _, rare := range []string{"allow-other", "uid", "gid", "mode", "metrics", "log-file",
		"read-ahead"} {
		_ = c.Flags().MarkHidden(rare) // mount shows them; it fails only for an unknown flag
	}
	return c
}

// runFlags are the flags of the run command.
type runFlags struct {
	mount       mountFlags
	at, replace string
	inNamespace bool // this process is in namespaces of its own
}

// hasCommand refuses arguments other than SOURCE -- COMMAND [ARG…].
func hasCommand(c *cobra.Command, args []string) error {
	problem := ""
	switch before := c.ArgsLenAtDash(); {
	case before == 0 || len(args) == 0:
		problem = "SOURCE is missing"
	case len(args) == 1:
		problem = "COMMAND is missing"
	case before < 0:
		problem = "-- is missing before the command"
	case before > 1:
		problem = "there is more than SOURCE before --"
	default:
		return noneEmpty(c, args[:1])
	}
	return usageError{withHint(errors.New(problem),
		"usage: dequantfs run SOURCE [flags] -- COMMAND [ARG…]")}
}

// commandAt returns the command for a view at a path.
func (r *runFlags) commandAt(command []string, path string) []string {
	at := make([]string, len(command))
	for i, arg := range command {
		if at[i] = arg; r.replace != "" {
			at[i] = strings.ReplaceAll(arg, r.replace, path)
		}
	}
	return at
}

// environmentAt returns the environment of the command.
func environmentAt(path string) []string { return append(os.Environ(), mountVariable+"="+path) }
