package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// usageError is the error of a wrong command line. Its exit status is 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// hinted is an error with a hint about the next step.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// withHint adds a hint to an error.
func withHint(err error, format string, args ...any) error {
	return hinted{err, fmt.Sprintf(format, args...)}
}

// quiet is a failure that has been reported already.
type quiet struct{ status int }

func (q quiet) Error() string { return fmt.Sprintf("exit status %d", q.status) }

// interruptedStatus is the exit status of a command that was interrupted: 128 and the number of
// SIGINT.
const interruptedStatus = 130

// errInterrupted is the error of a command that a signal ended early.
var errInterrupted = errors.New("interrupted")

// report prints an error with its hint and returns its exit status.
func report(stderr io.Writer, err error) int {
	var usage usageError
	var said quiet
	switch {
	case err == nil:
		return 0
	case errors.As(err, &said):
		return said.status
	case errors.Is(err, context.Canceled):
		err = errInterrupted
	}
	fmt.Fprintf(stderr, "dequantfs: %s\n", oneLine(err.Error()))
	if h := hintFor(err); h != "" {
		fmt.Fprintf(stderr, "dequantfs: hint: %s\n", oneLine(h))
	}
	switch {
	case errors.As(err, &usage):
		return 2
	case errors.Is(err, errInterrupted):
		return interruptedStatus
	}
	return 1
}

// hintFor returns the hint of an error: its own or, if it has none, that of the table.
func hintFor(err error) string {
	var h hinted
	if errors.As(err, &h) {
		return h.hint
	}
	for _, known := range hints {
		if known.is(err) {
			return known.hint
		}
	}
	return ""
}

// wrongUsage returns the error of a wrong command line of c.
func wrongUsage(c *cobra.Command, format string, args ...any) error {
	return usageError{withHint(fmt.Errorf(format, args...), "see %s --help", c.CommandPath())}
}

// arity refuses fewer arguments than least and more than most.
func arity(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			err := fmt.Errorf("%s is missing", operand(c, len(args)))
			return usageError{withHint(err, "usage: %s", c.UseLine())}
		case len(args) > most:
			err := fmt.Errorf("unexpected argument %q", args[most])
			return usageError{withHint(err, "usage: %s", c.UseLine())}
		}
		return noneEmpty(c, args)
	}
}

// noneEmpty refuses empty arguments, as a shell passes them for variables that are not set. As a
// path such an argument would be the working directory.
func noneEmpty(c *cobra.Command, args []string) error {
	if i := slices.Index(args, ""); i >= 0 {
		name, _, _ := strings.Cut(operand(c, i), " or ")
		return usageError{fmt.Errorf("%s is empty", name)}
	}
	return nil
}

// operand returns the name of the n-th argument of a command, as its usage line has it.
func operand(c *cobra.Command, n int) string {
	words := strings.Fields(strings.ReplaceAll(c.Use, " | ", "|"))[1:]
	if n >= len(words) {
		return "an argument"
	}
	return strings.ReplaceAll(strings.TrimSuffix(strings.Trim(words[n], "[]"), "..."), "|", " or ")
}

// noSuchCommand refuses a word that is not a command, and names the commands that look like it.
func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("there is no command %q", args[0])
	if slices.Contains(topicNames(), args[0]) {
		return usageError{withHint(err, "it is a topic: see %s help %s", c.CommandPath(), args[0])}
	}
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return usageError{withHint(err, "did you mean %s?", strings.Join(near, " or "))}
	}
	return usageError{withHint(err, "see %s --help", c.CommandPath())}
}
