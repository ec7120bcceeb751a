package main

import (
	"embed"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// topicFiles are pages about subjects of several commands. The same files are shown on the web, by
// dequantfs help TOPIC, and as man pages of section 7.
//
//go:embed help/*.md
var topicFiles embed.FS

// topic is one page. Its first line is "# NAME: SHORT".
type topic struct{ name, short, body string }

// topics lists the pages in alphabetical order. One of them is not a file: that about the families.
func topics() []topic {
	files, err := topicFiles.ReadDir("help")
	if err != nil {
		panic(err) // they are in the binary
	}
	all := make([]topic, 0, len(files))
	for _, f := range files {
		text, err := topicFiles.ReadFile(path.Join("help", f.Name()))
		if err != nil {
			panic(err)
		}
		all = append(all, parseTopic(strings.TrimSuffix(f.Name(), ".md"), string(text)))
	}
	all = append(all, familiesTopic())
	slices.SortFunc(all, func(a, b topic) int { return strings.Compare(a.name, b.name) })
	return all
}

func parseTopic(name, text string) topic {
	title, body, _ := strings.Cut(text, "\n")
	return topic{name, strings.TrimPrefix(title, "# "+name+": "), strings.TrimLeft(body, "\n")}
}

// newHelp replaces cobra's help command. That one has no topics, and exits with 0 for an unknown
// word.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND | TOPIC]",
		Short:             "explain a command or a topic",
		Example:           "  dequantfs help mount\n  dequantfs help loaders\n  dequantfs help families qwen3_moe",
		RunE:              runHelp,
		ValidArgsFunction: completeHelp,
	}
}

func runHelp(c *cobra.Command, args []string) error {
	if t, ok, err := topicOf(args); ok || err != nil {
		if err == nil {
			_, err = io.WriteString(c.OutOrStdout(), topicText(t))
		}
		return err
	}
	found, rest, err := c.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return noSuchTopic(c.Root(), strings.Join(args, " "))
	}
	found.InitDefaultHelpFlag()
	return found.Help()
}

// topicOf returns the page that the arguments of help name. The page of the families may be asked
// for one model_type.
func topicOf(args []string) (t topic, ok bool, err error) {
	if len(args) == 2 && args[0] == familiesName {
		t, err = familyTopic(args[1])
		return t, true, err
	}
	all := topics()
	i := slices.IndexFunc(all, func(t topic) bool { return len(args) == 1 && t.name == args[0] })
	if i < 0 {
		return topic{}, false, nil
	}
	return all[i], true, nil
}

// noSuchTopic refuses a word that is neither a command nor a topic. It says where the word is
// explained, or which names look like it, or lists all names.
func noSuchTopic(root *cobra.Command, word string) error {
	err := fmt.Errorf("there is no command or topic %q", word)
	commands, topics := firstWords(commandChoices(root)), topicNames()
	near := similar(word, slices.Concat(commands, topics))
	switch {
	case slices.Contains(layoutNames(), word):
		err = withHint(err, "it is a layout: see dequantfs help layouts")
	case slices.Contains(modelTypes(), word):
		err = withHint(err, "it is a model_type: see dequantfs help families %s", word)
	case len(near) > 0:
		err = withHint(err, "did you mean %s?", strings.Join(near, " or "))
	default:
		err = withHint(err, "commands: %s; topics: %s", strings.Join(commands, ", "),
			strings.Join(topics, ", "))
	}
	return usageError{err}
}

// completeHelp offers commands and topics.
func completeHelp(c *cobra.Command, args []string,
	_ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch {
	case len(args) == 1 && args[0] == familiesName:
		return modelTypes(), cobra.ShellCompDirectiveNoFileComp
	case len(args) > 0:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return append(commandChoices(c.Root()), topicChoices()...), cobra.ShellCompDirectiveNoFileComp
}

func commandChoices(root *cobra.Command) (all []cobra.Completion) {
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			all = append(all, cobra.CompletionWithDesc(c.Name(), c.Short))
		}
	}
	return all
}

func topicChoices() (all []cobra.Completion) {
	for _, t := range topics() {
		all = append(all, cobra.CompletionWithDesc(t.name, t.short))
	}
	return all
}

// topicNames are the names of the topics in alphabetical order.
func topicNames() []string { return firstWords(topicChoices()) }

// firstWords returns the names of completions, without their descriptions.
func firstWords(all []cobra.Completion) []string {
	names := make([]string, len(all))
	for i, c := range all {
		names[i], _, _ = strings.Cut(c, "\t")
	}
	return names
}

// listTopics returns the list of topics for dequantfs --help.
func listTopics() string {
	var b strings.Builder
	b.WriteString("Topics (dequantfs help TOPIC, dequantfs help COMMAND):")
	for _, t := range topics() {
		fmt.Fprintf(&b, "\n  %-12s %s", t.name, t.short)
	}
	return b.String()
}
