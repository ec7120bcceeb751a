package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// similarity is the largest number of edits between a word and a name that looks like it. It is
// smaller for words of up to three letters.
const similarity = 2

// similar returns the names that look like a word: those few edits away, and those that begin with
// it. It leaves the comparison to cobra, which makes it for commands.
func similar(word string, names []string) []string {
	if word == "" {
		return nil
	}
	c := &cobra.Command{SuggestionsMinimumDistance: min(similarity, len(word)/2)}
	for _, name := range names {
		c.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	return c.SuggestionsFor(word)
}

// didYouMeanFlag asks whether a flag was meant that looks like a word. It is "" if there is none.
// Each begins with prefix, such as --.
func didYouMeanFlag(c *cobra.Command, prefix, word string) string {
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	near := similar(strings.ReplaceAll(word, "_", "-"), names)
	if len(near) == 0 {
		return ""
	}
	return "did you mean " + prefix + strings.Join(near, " or "+prefix) + "?"
}

// unknownFlag returns the hint for a flag that a command does not have. It is "" for other errors,
// and if no flag looks like it. A word after one dash is a flag for each of its letters, but a
// whole flag may be meant.
func unknownFlag(c *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return ""
	}
	word, _, _ := strings.Cut(unknown.GetSpecifiedShortnames(), "=")
	if word == "" {
		word = unknown.GetSpecifiedName()
	}
	return didYouMeanFlag(c, "--", word)
}
