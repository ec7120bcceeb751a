package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/fs"
)

func newStatus() *cobra.Command {
	var asJSON, watch, without bool
	c := &cobra.Command{
		Use:   "status [MOUNTPOINT]",
		Short: "show the mounts of this user and how much they serve",
		Long: "Show the mounts and serve commands of this user: bytes served to readers and\n" +
			"read from the source, rates, hits of the tensor cache, files that are being\n" +
			"read. AHEAD was decoded ahead of loaders, MEMORY is what the kernel has of the\n" +
			"files now (~: an estimate). Reads that it answers from there are not counted.\n" +
			"Rates are since the beginning; with --watch, of the last second.",
		Example: "  dequantfs status\n" +
			"  dequantfs status /mnt/v3 --watch\n" +
			"  dequantfs status --json",
		Args: arity(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			ask := statusAsker{args: args}
			if !without {
				ask.memory = new(memoryAsker)
			}
			if watch {
				return ask.watch(c.Context(), c.OutOrStdout(), asJSON)
			}
			all, err := ask.states(c.Context())
			if err != nil && len(all) == 0 {
				return err
			}
			if asJSON {
				return errors.Join(err, writeJSON(c.OutOrStdout(), statusFacts(all)))
			}
			return errors.Join(err, writeStatus(c.OutOrStdout(), all, nil))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON; with --watch, one line each second")
	c.Flags().BoolVar(&watch, "watch", false, "print again every second")
	c.Flags().BoolVar(&without, "no-memory", false, "do not ask the kernel what is in memory")
	return c
}

// statesOf returns the state of all mounts, or of the one at a mountpoint. An error may be about
// the records of some mounts alone. It does not matter if the one at the mountpoint is found.
func statesOf(ctx context.Context, args []string) ([]mountState, error) {
	all, unreadable := states(ctx)
	if len(args) == 0 {
		return all, unreadable
	}
	mountpoint := args[0]
	if !strings.HasPrefix(mountpoint, "http://") { // as serve prints it
		var err error
		if mountpoint, err = fs.ResolveMountpoint(mountpoint); err != nil {
			return nil, err
		}
	}
	i := slices.IndexFunc(all, func(m mountState) bool { return m.Mountpoint == mountpoint })
	switch {
	case i < 0 && unreadable != nil:
		return nil, unreadable
	case i < 0:
		return nil, withHint(fmt.Errorf("%s: this user has mounted nothing there", args[0]),
			listMounts)
	}
	return all[i : i+1], nil
}

// statusAsker asks for the state of mounts, and what of their files is in memory.
type statusAsker struct {
	args   []string
	memory *memoryAsker // nil: do not ask
}

func (a *statusAsker) states(ctx context.Context) ([]mountState, error) {
	all, err := statesOf(ctx, a.args)
	if a.memory != nil {
		a.memory.ask(ctx, all)
	}
	return all, err
}

// watch prints the state every second until ctx ends.
func (a *statusAsker) watch(ctx context.Context, w io.Writer, asJSON bool) error {
	var before []mountState
	for {
		all, err := a.states(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if asJSON {
			err = writeJSONLine(w, statusFacts(all))
		} else {
			err = writeStatus(w, all, before)
		}
		if err != nil {
			return err
		}
		before = all
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// statusJSON is the output of status --json.
type statusJSON struct {
	Version int          `json:"version"`
	Mounts  []mountState `json:"mounts"`
	Servers []mountState `json:"servers,omitempty"` // of dequantfs serve
}

func statusFacts(all []mountState) statusJSON {
	facts := statusJSON{Version: jsonVersion, Mounts: []mountState{}}
	for _, m := range all {
		if m.served() {
			facts.Servers = append(facts.Servers, m)
		} else {
			facts.Mounts = append(facts.Mounts, m)
		}
	}
	return facts
}

var statusColumns = []string{"MOUNTPOINT", "STATE", "UP", "SERVED", "RATE", "AHEAD", "MEMORY",
	"READ", "HITS", "CACHE", "WAITING", "ERRORS", "SOURCE"}

func writeStatus(w io.Writer, all, before []mountState) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(statusColumns, "\t"))
	for _, m := range all {
		fmt.Fprintln(table, strings.Join(m.row(earlier(before, m)), "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, m := range all {
		m.writeRemarks(w)
	}
	return nil
}

// earlier returns the state from which a rate is measured: that of a moment ago or, without one,
// that of the beginning.
func earlier(before []mountState, m mountState) snapshot {
	for _, b := range before {
		if b.Mountpoint == m.Mountpoint && b.Started.Equal(m.Started) {
			return b.snapshot
		}
	}
	return snapshot{Time: m.Started}
}

func (m *mountState) row(before snapshot) []string {
	row := []string{oneLine(m.Mountpoint), m.State}
	if m.State != stateAlive {
		row = append(row, slices.Repeat([]string{"-"}, len(statusColumns)-3)...)
		return append(row, oneLine(m.Source))
	}
	s := m.Stats
	return append(row,
		m.Time.Sub(m.Started).Round(time.Second).String(),
		formatSize(s.Bytes),
		formatRate(s.Bytes-before.Stats.Bytes, m.Time.Sub(before.Time)),
		formatSize(s.Ahead.Bytes),
		m.Memory.String(),
		formatSize(s.SourceBytes),
		formatShare(s.Hits, s.Hits+s.Misses),
		formatSize(s.CacheUsed)+"/"+formatSize(s.CacheBudget),
		fmt.Sprint(s.Waiting),
		fmt.Sprint(s.Errors),
		oneLine(m.Source))
}

// writeRemarks prints remarks about a mount, one line each.
func (m *mountState) writeRemarks(w io.Writer) {
	say := func(format string, args ...any) {
		fmt.Fprintf(w, "%s: %s\n", oneLine(m.Mountpoint), oneLine(fmt.Sprintf(format, args...)))
	}
	if m.Direct {
		say("reads go past the page cache (--direct)")
	}
	for _, r := range m.Stats.Reading {
		say("reading %s", r)
	}
	if m.Stats.Ahead.Unread > 0 {
		say("%s are decoded ahead of loaders", formatSize(m.Stats.Ahead.Unread))
	}
	if m.Stats.Network != nil {
		say("network: %s", formatTraffic(m.Stats.Network))
	}
	if m.Stats.TooSmall {
		say("the cache is too small for what is read at once: mount with a larger --cache-size")
	}
	if m.Stats.Stalled > 0 {
		say("%d source files have not answered for seconds", m.Stats.Stalled)
	}
	switch m.State {
	case stateDead:
		say("its process (%s) is gone; clear it with: dequantfs umount %s", m.process(),
			m.Mountpoint)
	case stateSilent:
		say("its process (%s) does not answer", m.process())
	}
	if m.Log != "" && (m.State != stateAlive || m.Stats.Errors > 0) {
		say("log: %s", m.Log)
	}
}

// formatTraffic describes what comes over a network.
func formatTraffic(t *source.Traffic) string {
	text := fmt.Sprintf("%s/s, %d of %d requests in flight, %s in %d requests, %d sent again",
		formatSize(int64(t.Rate)), t.InFlight, t.AtOnce, formatSize(t.Bytes), t.Requests, t.Retries)
	if t.Throttled > 0 {
		text += fmt.Sprintf(", %d refused as too many", t.Throttled)
	}
	text += fmt.Sprintf(", %s of %s in memory", formatSize(t.Memory), formatSize(t.MemoryLimit))
	if looked := t.CacheHits + t.CacheMisses; looked > 0 {
		text += fmt.Sprintf(", disk cache: %s from %d of %d blocks", formatSize(t.CacheBytes),
			t.CacheHits, looked)
	}
	return text
}

// process describes the process behind a mount.
func (m *mountState) process() string {
	if m.foreign() {
		return fmt.Sprintf("%d in another PID namespace", m.PID)
	}
	return strconv.Itoa(m.PID)
}

func formatRate(bytes int64, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return formatSize(int64(float64(bytes)/d.Seconds())) + "/s"
}

func formatShare(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", part*100/whole)
}
