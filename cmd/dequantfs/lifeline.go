package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// lifeline ties a mount or a server to the program that started it, such as a Python process. That
// program keeps a pipe to standard input open. The pipe ends when the program does, also by a kill.
type lifeline struct{ wanted bool }

func (l *lifeline) register(c *cobra.Command) {
	const name = "until-eof"
	c.Flags().BoolVar(&l.wanted, name, false,
		"end with standard input, and remove a mountpoint that was made")
	c.Flags().Lookup(name).Hidden = true
}

// check refuses a mount in the foreground: the program waits for the end of the command.
func (l *lifeline) check(foreground bool) error {
	if l.wanted && foreground {
		return usageError{errors.New("--foreground cannot be used here: the mount ends with the " +
			"program in any case")}
	}
	return nil
}

// hold ends the context of c when standard input ends.
func (l *lifeline) hold(c *cobra.Command) {
	if !l.wanted {
		return
	}
	ctx, end := context.WithCancel(c.Context())
	c.SetContext(ctx)
	in := c.InOrStdin()
	go func() {
		defer end()
		_, _ = io.Copy(io.Discard, in) // an error is an end too
	}()
}

// input returns the standard input of a process behind a mount.
func (l *lifeline) input() *os.File {
	if !l.wanted {
		return nil
	}
	return os.Stdin
}

// ready tells the program that the server answers.
func (l *lifeline) ready(w io.Writer) error {
	if !l.wanted {
		return nil
	}
	_, err := io.WriteString(w, "ready\n")
	return err
}

// clear removes the folders that were made for a mount, and its log: the next mount of the program
// has another mountpoint.
func (l *lifeline) clear(made []string, log string) {
	if !l.wanted || len(made) == 0 {
		return
	}
	removeFolders(made)
	os.Remove(log)
}

// discard removes the log of a mount that failed: the program has its messages.
func (l *lifeline) discard(log string) {
	if l.wanted {
		os.Remove(log)
	}
}
