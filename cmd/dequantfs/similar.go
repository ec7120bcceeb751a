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

// flagsLike returns the flags of a command that look like a word of two letters or more.
func flagsLike(c *cobra.Command, word string) []string {
	if len(word) < 2 {
		return nil
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return similar(strings.ReplaceAll(word, "_", "-"), names)
}

// wrongFlag refuses a flag. If a command does not have it, the hint names the flags that look like
// it.
func wrongFlag(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if near := flagsLike(c, meantFlag(unknown)); len(near) > 0 {
			return usageError{withHint(err, "did you mean --%s?", strings.Join(near, " or --"))}
		}
	}
	return wrongUsage(c, "%s", withUnit(err.Error()))
}

// meantFlag returns the name that an unknown flag was given by. A word after one dash is a flag for
// each of its letters, but a whole name may be meant.
func meantFlag(unknown *pflag.NotExistError) string {
	if word, _, _ := strings.Cut(unknown.GetSpecifiedShortnames(), "="); word != "" {
		return word
	}
	return unknown.GetSpecifiedName()
}
