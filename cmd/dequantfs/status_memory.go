package main

import (
	"context"
	"sync"
	"time"
)

// memoryState is how much of a mount's files the kernel has in memory.
type memoryState struct {
	Bytes int64 `json:"bytes"`
	Of    int64 `json:"of"`    // all of the files
	Exact bool  `json:"exact"` // otherwise Bytes is an estimate
}

// String prints the bytes, with ~ before an estimate.
func (m *memoryState) String() string {
	switch {
	case m == nil:
		return "-"
	case !m.Exact:
		return "~" + formatSize(m.Bytes)
	}
	return formatSize(m.Bytes)
}

// memoryAsker asks the kernel what of the files of mounts is in memory. That opens the files, and a
// mount may not answer. So it waits for a moment only, and does not ask that mount again while the
// first question is open.
type memoryAsker struct {
	mu   sync.Mutex
	open map[string]bool // by mountpoint
}

// askPatience is how long status waits for the numbers of memory of all mounts.
const askPatience = time.Second

// ask fills in what the kernel says within a moment.
func (a *memoryAsker) ask(ctx context.Context, all []mountState) {
	end := time.After(askPatience)
	answers := make([]chan *memoryState, len(all))
	for i, m := range all {
		answers[i] = make(chan *memoryState, 1)
		if m.State != stateAlive || m.served() || m.Direct || !a.begin(m.Mountpoint) {
			answers[i] <- nil
			continue
		}
		go func() {
			defer a.end(m.Mountpoint)
			answers[i] <- memoryOf(ctx, m.Mountpoint)
		}()
	}
	for i := range all {
		select {
		case all[i].Memory = <-answers[i]:
		case <-end:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (a *memoryAsker) begin(mountpoint string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[mountpoint] {
		return false
	}
	if a.open == nil {
		a.open = map[string]bool{}
	}
	a.open[mountpoint] = true
	return true
}

func (a *memoryAsker) end(mountpoint string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, mountpoint)
}
