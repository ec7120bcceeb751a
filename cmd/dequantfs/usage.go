package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// usageWidth is the width that the usage of flags is wrapped at.
const usageWidth = 80

// usage prints how a command is used. It does what cobra's template does, for a screen of 80
// columns and with the help topics. A template would make the binary large, since it keeps every
// method.
func usage(c *cobra.Command) error {
	flags := c.LocalFlags() // which merges those of the parents
	blocks := []string{usageLines(c)}
	if len(c.Aliases) > 0 {
		blocks = append(blocks, "Aliases:\n  "+c.NameAndAliases())
	}
	if c.HasExample() {
		blocks = append(blocks, "Examples:\n"+c.Example)
	}
	if c.HasAvailableSubCommands() {
		blocks = append(blocks, "Available Commands:"+subcommands(c))
	}
	if flags.HasAvailableFlags() {
		blocks = append(blocks, "Flags:\n"+
			strings.TrimRight(flags.FlagUsagesWrapped(usageWidth), "\n"))
	}
	switch {
	case !c.HasParent():
		blocks = append(blocks, listTopics())
	case c.HasAvailableSubCommands():
		blocks = append(blocks, fmt.Sprintf(
			"Use \"%s [command] --help\" for more information about a command.", c.CommandPath()))
	}
	_, err := io.WriteString(c.OutOrStderr(), strings.Join(blocks, "\n\n")+"\n")
	return err
}

func usageLines(c *cobra.Command) string {
	text := "Usage:"
	if c.Runnable() && !c.HasAvailableSubCommands() { // by itself it only asks for one
		text += "\n  " + c.UseLine()
	}
	if c.HasAvailableSubCommands() {
		text += "\n  " + c.CommandPath() + " [command]"
	}
	return text
}

// subcommands lists the commands below c, one a line.
func subcommands(c *cobra.Command) string {
	var b strings.Builder
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			fmt.Fprintf(&b, "\n  %-*s %s", sub.NamePadding(), sub.Name(), sub.Short)
		}
	}
	return b.String()
}
