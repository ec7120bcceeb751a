package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/remote"
	"github.com/dequantfs/dequantfs/fs"
)

// opened is an opened checkpoint with the tree of its views.
type opened struct {
	checkpoint *adapter.Checkpoint
	views      []fs.View
	fs         *fs.FS
}

// openCheckpoint opens SOURCE. All commands open their source by this function.
func openCheckpoint(
	ctx context.Context, name string, log *slog.Logger, how opening,
) (*adapter.Checkpoint, error) {
	o := adapter.OpenOptions{Logger: log, FollowLinks: how.follow, Fits: fs.CheckReading}
	if !remote.Is(name) {
		how.sayUnused(name, log)
		c, err := adapter.Open(ctx, name, o)
		return c, explainName(name, err)
	}
	how.remote.Logger = log
	store, single, err := remote.Open(ctx, name, how.remote)
	if err != nil {
		return nil, explainName(name, fmt.Errorf("%s: %w", remote.Shown(name), err))
	}
	o.Single = single
	c, err := adapter.OpenStore(ctx, store, o)
	return c, explainName(name, err)
}

// planner makes views of a checkpoint.
type planner func(*adapter.Checkpoint) ([]fs.View, error)

// openSource opens SOURCE, makes the tree of its views, and logs notes about both.
func openSource(
	ctx context.Context, name string, o fs.Options, how opening, plan planner,
) (*opened, error) {
	checkpoint, err := openCheckpoint(ctx, name, o.Logger, how)
	if err != nil {
		return nil, err
	}
	s := &opened{checkpoint: checkpoint}
	if s.views, err = plan(checkpoint); err == nil {
		s.fs, err = fs.New(checkpoint, s.views, o)
	}
	if err != nil {
		return nil, errors.Join(err, checkpoint.Close())
	}
	plans := make([]*adapter.Plan, len(s.views))
	for i, v := range s.views {
		plans[i] = v.Plan
	}
	sayNotes(o.Logger, plans...)
	return s, nil
}

// sayNotes logs the notes of plans, each once.
func sayNotes(log *slog.Logger, plans ...*adapter.Plan) {
	said := map[string]bool{}
	for _, p := range plans {
		for _, note := range p.Notes {
			if !said[note] {
				log.Warn(note)
			}
			said[note] = true
		}
	}
}

// Close closes the tree, then the files under it.
func (s *opened) Close() error {
	return errors.Join(s.fs.Close(), s.checkpoint.Close())
}

// addQuiet adds the flag --quiet to a command that says more than its results.
func addQuiet(c *cobra.Command) {
	c.Flags().BoolP("quiet", "q", false, "say only warnings and errors")
}

// isQuiet reports whether --quiet was given.
func isQuiet(c *cobra.Command) bool {
	quiet, _ := c.Flags().GetBool("quiet") // an error where the command has no such flag
	return quiet
}

// logger returns the logger for the user of the command.
func logger(c *cobra.Command) *slog.Logger {
	level := slog.LevelInfo
	if isQuiet(c) {
		level = slog.LevelWarn
	}
	return slog.New(newPeopleHandler(c.ErrOrStderr(), level))
}
