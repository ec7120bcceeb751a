package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/fs"
)

// source is an opened checkpoint with the tree of its views.
type source struct {
	checkpoint *adapter.Checkpoint
	views      []fs.View
	fs         *fs.FS
}

// openSource opens a checkpoint and lays out the views that the flags ask for.
func openSource(c *cobra.Command, name string, v *viewFlags, o fs.Options) (*source, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = logger(c)
	}
	return openViews(c.Context(), name, o, v.follow, v.views)
}

// sayNotes says what a person should know of the plans, once.
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

// openViews opens a checkpoint, lays out the views that plan makes of it, and says what is odd about
// both. Symlinks may lead out of the checkpoint if follow says so.
func openViews(ctx context.Context, name string, o fs.Options, follow bool, plan func(*adapter.Checkpoint) ([]fs.View, error)) (*source, error) {
	checkpoint, err := adapter.Open(ctx, name, adapter.OpenOptions{Logger: o.Logger, FollowLinks: follow, Fits: fs.CheckReading})
	if err != nil {
		return nil, err
	}
	s := &source{checkpoint: checkpoint}
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

// Close closes the tree, then the files under it.
func (s *source) Close() error {
	return errors.Join(s.fs.Close(), s.checkpoint.Close())
}

// logger logs for the people in front of the command.
func logger(c *cobra.Command) *slog.Logger {
	return slog.New(newPeopleHandler(c.ErrOrStderr(), slog.LevelInfo))
}
