package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

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
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), versionLine())
			return err
		},
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
