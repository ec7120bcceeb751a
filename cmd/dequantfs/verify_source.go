package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
)

// sourceVerification is the result of verify for a source over a network.
type sourceVerification struct {
	Source      string   `json:"source"`
	Files       int      `json:"files"`       // whose hash was compared
	Bytes       int64    `json:"bytes"`       // of them
	Differences []string `json:"differences"` // one line for each file
	Unpublished []string `json:"unpublished"` // files whose publisher tells no hash
}

// verifySource compares the files of a source over a network with the hashes that its publisher
// tells.
func (v *verifyFlags) verifySource(c *cobra.Command, name string) error {
	if given := v.view.given(); len(given) > 0 || v.source != "" {
		flag := append(given, "source")[0]
		return usageError{fmt.Errorf("--%s is for exports and mounts: the files of a source are "+
			"compared with the hashes of its publisher", flag)}
	}
	how, err := v.view.source.check()
	if err != nil {
		return err
	}
	var found *sourceVerification
	err = interruptible(c.Context(), func() (err error) {
		found, err = v.checkSource(c, name, how)
		return err
	})
	if err != nil {
		return err
	}
	if v.json {
		err = writeJSON(c.OutOrStdout(), struct {
			Version int `json:"version"`
			*sourceVerification
		}{jsonVersion, found})
	} else {
		err = found.write(c.OutOrStdout())
	}
	return errors.Join(err, found.failure())
}

// failure is nil if something was compared, and is as it should be.
func (s *sourceVerification) failure() error {
	switch n := len(s.Differences); {
	case n > 0:
		return fmt.Errorf("%s: %d %s", s.Source, n, plural(n, "difference", "differences"))
	case s.Files == 0:
		return withHint(fmt.Errorf("%s: its store tells no SHA-256, so nothing was compared",
			s.Source), "export it, and compare the export: dequantfs verify DIRECTORY --source %s",
			s.Source)
	}
	return nil
}

func (v *verifyFlags) checkSource(
	c *cobra.Command, name string, how opening,
) (*sourceVerification, error) {
	checkpoint, err := openCheckpoint(c.Context(), name, logger(c), how)
	if err != nil {
		return nil, err
	}
	defer checkpoint.Close()
	var read atomic.Int64
	ctx, stop := context.WithCancel(c.Context())
	defer stop()
	go sayRead(ctx, logger(c), &read)
	jobs := v.jobs
	if jobs <= 0 {
		jobs = sourceJobs
	}
	all, err := checkpoint.CheckPublished(c.Context(), jobs,
		func(_ string, n int64) { read.Add(n) })
	if err != nil {
		return nil, err
	}
	return judge(checkpoint.Location(), all), nil
}

// sourceJobs is how many files of a source are read at once without --jobs.
const sourceJobs = 4

// sayEvery is how often the progress of a long check is said.
const sayEvery = 10 * time.Second

// sayRead says from time to time how much was read.
func sayRead(ctx context.Context, log *slog.Logger, read *atomic.Int64) {
	tick := time.NewTicker(sayEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			log.Info(formatSize(read.Load()) + " read")
		}
	}
}

// judge compares the hashes.
func judge(source string, all []adapter.PublishedFile) *sourceVerification {
	found := &sourceVerification{Source: source, Differences: []string{}, Unpublished: []string{}}
	for _, f := range all {
		switch {
		case f.SHA256 == "":
			found.Unpublished = append(found.Unpublished, f.Name)
			continue
		case f.Err != nil:
			found.Differences = append(found.Differences,
				fmt.Sprintf("%s: cannot be read: %v", f.Name, f.Err))
		case !strings.EqualFold(f.Got, f.SHA256):
			found.Differences = append(found.Differences, fmt.Sprintf(
				"%s: its SHA-256 is %s, and its publisher tells %s", f.Name, f.Got, f.SHA256))
		}
		found.Files++
		found.Bytes += f.Size
	}
	return found
}

func (s *sourceVerification) write(w io.Writer) error {
	for _, d := range s.Differences {
		fmt.Fprintln(w, oneLine(d))
	}
	if len(s.Unpublished) > 0 {
		fmt.Fprintf(w, "no SHA-256 is published for %s\n", oneLine(firstFew(s.Unpublished)))
	}
	verdict := "all as they should be"
	switch n := len(s.Differences); {
	case n > 0:
		verdict = fmt.Sprintf("%d %s", n, plural(n, "difference", "differences"))
	case s.Files == 0:
		verdict = "nothing was compared"
	}
	_, err := fmt.Fprintf(w, "%s against the SHA-256 of its publisher: %d %s, %s: %s\n",
		oneLine(s.Source), s.Files, plural(s.Files, "file", "files"), formatSize(s.Bytes), verdict)
	return err
}
