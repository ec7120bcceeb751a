package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan makes the command that writes man pages, for makers of packages.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIRECTORY",
		Short: "write the man pages",
		Long: "Write the man pages into DIRECTORY: commands as *.1, help topics as *.7. A\n" +
			"package puts them into man1 and man7.",
		Example: "  dequantfs man pages",
		Hidden:  true,
		Args:    arity(1, 1),
		RunE:    runMan,
	}
}

func runMan(c *cobra.Command, args []string) error {
	if err := os.MkdirAll(args[0], 0o755); err != nil {
		return err
	}
	root := c.Root()
	root.DisableAutoGenTag = true
	never := time.Unix(0, 0).UTC() // so the pages do not depend on the date
	header := &doc.GenManHeader{
		Title: "DEQUANTFS", Section: "1", Source: "dequantfs", Manual: "dequantfs", Date: &never,
	}
	if err := doc.GenManTree(root, header, args[0]); err != nil {
		return err
	}
	for _, t := range topics() {
		name := filepath.Join(args[0], "dequantfs-"+t.name+".7")
		if err := os.WriteFile(name, topicMan(t), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// localLink is a Markdown link to another file, which leads nowhere in a man page.
var localLink = regexp.MustCompile(`\[([^\]]+)\]\([^:)]+\)`)

// topicMan makes the man page of a topic.
func topicMan(t topic) []byte {
	head := fmt.Sprintf("%% \"DEQUANTFS-%s\" \"7\" \"Jan 1970\" \"dequantfs\" \"dequantfs\"\n"+
		"# NAME\ndequantfs-%s - %s\n\n# DESCRIPTION\n", strings.ToUpper(t.name), t.name, t.short)
	return md2man.Render([]byte(head + localLink.ReplaceAllString(t.body, "$1")))
}
