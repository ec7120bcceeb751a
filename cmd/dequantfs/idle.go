package main

import (
	"context"
	"time"

	"github.com/dequantfs/dequantfs/fs"
)

// watchIdle calls unmount when nothing was read and no file was open for as long as limit. Reads
// that the kernel answers from its page cache are not seen, but they need an open file.
func watchIdle(ctx context.Context, limit time.Duration, stats func() fs.Stats, unmount func()) {
	tick := time.NewTicker(max(limit/8, time.Millisecond))
	defer tick.Stop()
	var seen idleMark
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := stats()
		if mark := (idleMark{s.Requests,
			s.OpenFiles}); mark != seen || s.OpenFiles > 0 || s.Active > 0 {
			seen, since = mark, time.Now()
		}
		if time.Since(since) >= limit {
			unmount()
			since = time.Now() // it may still be in use as a working directory
		}
	}
}

// idleMark changes when a program uses the mount.
type idleMark struct{ requests, openFiles int64 }
