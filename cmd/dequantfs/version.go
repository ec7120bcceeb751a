package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Version is set by release builds. Other builds use the build info.
var Version string

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "print the version",
		Example: "  dequantfs version",
		Args:    arity(0, 0),
		RunE:    runVersion,
	}
}

func runVersion(c *cobra.Command, _ []string) error {
	_, err := fmt.Fprintln(c.OutOrStdout(), versionLine())
	return err
}

// versionArguments leaves out a word after a leading --version. Such a command line prints the
// version, even if the word is a command.
func versionArguments(args []string) []string {
	if len(args) > 1 && slices.Contains([]string{"--version", "-v"}, args[0]) &&
		!strings.HasPrefix(args[1], "-") {
		return slices.Delete(slices.Clone(args), 1, 2)
	}
	return args
}

// addVersionFlag adds --version, which prints the version in place of what the command does.
// cobra's own flag prints another line, unless it has a template. A template makes the binary
// large, since it keeps every method.
func addVersionFlag(c *cobra.Command) {
	flags := c.Flags()
	asked := flags.BoolP("version", "v", false, "version for "+c.Name())
	// Nothing completes a command line with this flag, as with that of cobra.
	if err := flags.SetAnnotation("version", cobra.FlagSetByCobraAnnotation,
		[]string{"true"}); err != nil {
		panic(err) // the flag is there
	}
	args, run := c.Args, c.RunE
	c.Args = func(c *cobra.Command, rest []string) error {
		if *asked {
			return nil
		}
		return args(c, rest)
	}
	c.RunE = func(c *cobra.Command, rest []string) error {
		if *asked {
			return runVersion(c, rest)
		}
		return run(c, rest)
	}
}

// versionLine is the output of version and --version.
func versionLine() string {
	info, _ := debug.ReadBuildInfo()
	return fmt.Sprintf("dequantfs %s %s %s/%s", version(info), runtime.Version(), runtime.GOOS,
		runtime.GOARCH)
}

// version returns Version or, if it is empty, the module's version or the revision of the build.
func version(info *debug.BuildInfo) string {
	if Version != "" {
		return Version
	}
	if info == nil {
		return "(unknown)"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, modified := "(devel)", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+changes"
		}
	}
	return revision + modified
}
