// Command dequantfs mounts a quantized checkpoint as the dequantized,
// expert-merged checkpoint that training and research code wants to read.
//
// Results go to standard output; everything for people goes to standard error,
// one line each, as "dequantfs: …" in lower case without a full stop, followed by
// "dequantfs: hint: …" where it is known what to do. The exit status is 0 when
// the work is done, 1 when it failed, 2 when the command line is wrong.
//
// There is one file per subcommand. A subcommand is flags, one call into package
// fs or adapter, and text for people: whatever is worth testing without a
// terminal lives in those packages. The files that are not subcommands: view.go
// (the flags that say which checkpoint is shown), errors.go (exit status and
// hints), size.go (512MiB), background_*.go (the process behind a mount).
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	_ "github.com/dequantfs/dequantfs/cmd/dequantfs/startup" // before all that opens files
)

// commands makes the subcommands, in the order of the help text.
var commands = []func() *cobra.Command{
	newMount,
	newUmount,
	newStatus,
	newLs,
	newExport,
	newVerify,
	newBench,
	newDoctor,
	newDemo,
	newVersion,
	newMan,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, func() {
		signal.Ignore(syscall.SIGHUP) // which comes from the kernel and from the shell
		stop()                        // the second signal of another kind ends the process
	})
	os.Exit(run(ctx, arguments(os.Args), os.Stdin, os.Stdout, os.Stderr))
}

// endings are the signals that end the command's work. A terminal that goes away sends SIGHUP: that ends
// what is in front of it, unless nohup says otherwise, but not a mount in the background.
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

// run is the whole command; it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return report(stderr, root.ExecuteContext(ctx))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "dequantfs",
		Short: "show a quantized checkpoint as the dequantized one, computed as it is read",
		Long: "dequantfs mounts a quantized checkpoint (FP8 DeepSeek-V3 and its kin) and shows\n" +
			"the dequantized, expert-merged checkpoint, computed only where it is read.",
		Example: "  dequantfs demo\n" +
			"  dequantfs ls ~/models/DeepSeek-V3\n" +
			"  dequantfs mount ~/models/DeepSeek-V3 /mnt/v3\n" +
			"  dequantfs umount /mnt/v3",
		Args:          noSuchCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return wrongUsage(c, "a command is missing") },
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
	}
	root.SetUsageTemplate(usageTemplate(root.UsageTemplate()))
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return wrongUsage(c, "%v", err) })
	root.CompletionOptions.HiddenDefaultCmd = true
	cobra.EnableCommandSorting = false
	for _, command := range commands {
		root.AddCommand(command())
	}
	root.SetHelpCommand(newHelp())
	return root
}

// usageTemplate makes cobra's template fit a screen of 80 columns.
func usageTemplate(standard string) string {
	cobra.AddTemplateFunc("wrapped", func(c *cobra.Command) string { return c.LocalFlags().FlagUsagesWrapped(80) })
	cobra.AddTemplateFunc("topics", listTopics)
	more := "{{if .HasAvailableSubCommands}}\n\nUse "
	standard = strings.Replace(standard, more, "{{if not .HasParent}}\n\n{{topics}}{{else "+more[2:], 1)
	return strings.ReplaceAll(standard, ".LocalFlags.FlagUsages", "wrapped .")
}

// arguments gives the command line behind argv[0]. Installed as
// mount.fuse.dequantfs, the command is what mount(8) calls for an fstab line.
func arguments(argv []string) []string {
	if filepath.Base(argv[0]) == "mount.fuse.dequantfs" {
		return mountHelper(argv[1:])
	}
	return argv[1:]
}

// mountHelper turns what mount(8) passes (SOURCE MOUNTPOINT [-sfnv] [-o opts])
// into the mount command; -s, -f, -n and -v say nothing to us here.
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
