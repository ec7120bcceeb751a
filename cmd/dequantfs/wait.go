package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/remote"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/fs"
)

// waitFlag is the flag --wait, alone or with a time.
type waitFlag struct {
	on    bool
	limit time.Duration // 0: none
}

// forever is the value of --wait without a time.
const forever = "forever"

// Set reads the value.
func (w *waitFlag) Set(text string) error {
	if text == forever {
		*w = waitFlag{on: true}
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return errors.New("it is not a time such as 30m")
	}
	*w = waitFlag{true, d}
	return nil
}

// String returns the value as Set reads it.
func (w *waitFlag) String() string {
	switch {
	case w.limit > 0:
		return w.limit.String()
	case w.on:
		return forever
	}
	return ""
}

// Type is the kind of value for help texts.
func (w *waitFlag) Type() string { return "duration" }

// lookEvery is the time between two looks at a download.
const lookEvery = time.Second

// download waits until the download of SOURCE is complete. It logs what is missing. After it has
// waited it looks twice, because a download may be between two files.
func (w *waitFlag) download(c *cobra.Command, name string, how opening) error {
	if !w.on {
		return nil
	}
	if remote.Is(name) {
		return usageError{fmt.Errorf("--wait: %s is read where it is, without a download",
			remote.Shown(name))}
	}
	ctx, cancel := w.context(c.Context())
	defer cancel()
	log, said, waited := logger(c), "", false
	for good := 0; ; {
		why, err := underWay(ctx, name, how)
		switch {
		case ctx.Err() != nil:
			return w.ended(c.Context(), said)
		case err != nil:
			return err
		case why != "":
			good, waited = 0, true
		case good > 0 || !waited:
			return nil
		default:
			good++
		}
		if why != "" && why != said {
			log.Info("waiting for the download: " + why)
			said = why
		}
		select {
		case <-ctx.Done():
			return w.ended(c.Context(), said)
		case <-time.After(lookEvery):
		}
	}
}

func (w *waitFlag) context(ctx context.Context) (context.Context, context.CancelFunc) {
	if w.limit > 0 {
		return context.WithTimeout(ctx, w.limit)
	}
	return context.WithCancel(ctx)
}

// ended is the error of a wait that was interrupted, or took too long.
func (w *waitFlag) ended(ctx context.Context, said string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("the download is not complete after %s: %s", w.limit, said)
}

// underWay opens a source to find out whether its download is complete. It returns what is missing,
// or an error that no download mends.
func underWay(ctx context.Context, name string, how opening) (why string, err error) {
	checkpoint, err := adapter.Open(ctx, name,
		adapter.OpenOptions{FollowLinks: how.follow, Fits: fs.CheckReading})
	if err == nil {
		err = checkpoint.Close()
	}
	var shards *adapter.MissingShardsError
	switch {
	case errors.As(err, &shards):
		return fmt.Sprintf("%s: %d of %d shards", name, shards.Of-shards.Missing, shards.Of), nil
	case isMissing(err):
		return err.Error(), nil
	case err != nil:
		return "", err
	}
	if file := source.Unfinished(name); file != "" {
		return "it has not finished " + file + " (remove that if no download runs)", nil
	}
	return "", nil
}

// isMissing reports whether an error may be over when a download is complete.
func isMissing(err error) bool {
	for _, kind := range []error{
		os.ErrNotExist, source.ErrMissing, source.ErrIncomplete, safetensors.ErrTruncated,
		adapter.ErrNoConfig, adapter.ErrNoCheckpoint,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
