// Command dequantfs mounts a quantized checkpoint as the dequantized, expert-merged checkpoint that
// training and research code reads.
//
// Results go to standard output. Messages go to standard error, one line each, as "dequantfs: …" in
// lower case without a full stop. If a fix is known, "dequantfs: hint: …" follows. The exit status
// is 0 for success, 1 for failure, 2 for a wrong command line, and 130 after an interruption.
//
// There is one file per subcommand. A subcommand is flags, one call into package fs or adapter, and
// messages. Code that can be tested without a terminal is in those packages.
//
// Other files: source.go opens SOURCE, view.go has the view flags, layouts.go the layouts,
// errors.go and hints.go the messages and the exit status, size.go sizes such as 512MiB,
// background_*.go the process behind a mount, state*.go the mounts of this user.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	_ "github.com/dequantfs/dequantfs/cmd/dequantfs/startup" // before packages that open files
)

// commands makes the subcommands, in the order of the help text.
var commands = []func() *cobra.Command{
	newMount,
	newUmount,
	newRun,
	newWarm,
	newServe,
	newStatus,
	newLs,
	newExport,
	newVerify,
	newBench,
	newCache,
	newDoctor,
	newDemo,
	newVersion,
	newMan,
}

func main() {
	log.SetOutput(io.Discard) // the HTTP client would print what a server sends unasked
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, func() {
		signal.Ignore(syscall.SIGHUP) // it comes from the kernel and from the shell
		stop()                        // a second signal of another kind ends the process
	})
	os.Exit(run(ctx, arguments(os.Args), os.Stdin, os.Stdout, os.Stderr))
}

// endings are the signals that end the command. SIGHUP comes when a terminal closes. It ends a
// command in the foreground, unless nohup ignores it, but not a mount in the background.
func endings() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM}
	switch {
	case inBackground():
		signal.Ignore(syscall.SIGHUP)
	case !signal.Ignored(syscall.SIGHUP):
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// run runs the command and returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(versionArguments(args))
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return report(stderr, root.ExecuteContext(ctx))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "dequantfs",
		Short: "show a quantized checkpoint as the dequantized one, computed as it is read",
		Long:  "dequantfs shows a quantized checkpoint as the dequantized one, computed on read.",
		Example: "  dequantfs mount ~/models/DeepSeek-V3 /mnt/v3\n" +
			"  dequantfs umount /mnt/v3",
		Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error {
			return wrongUsage(c, "a command is missing")
		},
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: similarity,
	}
	addVersionFlag(root)
	root.SetUsageFunc(usage)
	root.SetFlagErrorFunc(wrongFlag)
	root.CompletionOptions.HiddenDefaultCmd = true
	cobra.EnableCommandSorting = false
	for _, command := range commands {
		root.AddCommand(command())
	}
	root.SetHelpCommand(newHelp())
	hideEverywhere(root)
	return root
}

// withUnit puts the way out into the message about a time without a unit.
func withUnit(text string) string {
	before, _, found := strings.Cut(text, ": time: missing unit in duration ")
	if !found {
		return text
	}
	return before + ": it has no unit: write 30s or 5m"
}

// hideEverywhere hides the flags that every command has, because a help text is one screen.
func hideEverywhere(c *cobra.Command) {
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	for _, name := range []string{"help", "version"} {
		if f := c.Flags().Lookup(name); f != nil {
			f.Hidden = true
		}
	}
	for _, sub := range c.Commands() {
		hideEverywhere(sub)
	}
}

// arguments returns the command line after argv[0]. If it is installed as mount.fuse.dequantfs,
// mount(8) calls the command for a line of fstab.
func arguments(argv []string) []string {
	if filepath.Base(argv[0]) == "mount.fuse.dequantfs" {
		return mountHelper(argv[1:])
	}
	return argv[1:]
}

// mountHelper turns the arguments of mount(8), SOURCE MOUNTPOINT [-sfnv] [-o opts], into those of
// the mount command. The other flags of mount(8) have no effect.
func mountHelper(argv []string) []string {
	args := []string{"mount"}
	for i := 0; i < len(argv); i++ {
		switch a := argv[i]; {
		case a == "-o" && i+1 < len(argv):
			args = append(args, "-o", argv[i+1])
			i++
		case a == "-t" || a == "-N":
			i++
		case len(a) > 1 && a[0] == '-':
		default:
			args = append(args, a)
		}
	}
	return args
}
