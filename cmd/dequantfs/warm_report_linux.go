package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"

	"github.com/dequantfs/dequantfs/fs/pagecache"
)

// warmReport is what warm has done and found.
type warmReport struct {
	what    string
	check   bool
	began   time.Time
	took    time.Duration
	files   []pagecache.File
	held    []pagecache.Held // nil: the kernel does not say
	done    []int64          // of each file, bytes that were there or were read
	read    int64
	stopped error
}

// count counts a finished window.
func (r *warmReport) count(file int, wanted, read int64) {
	if r.done == nil {
		r.done = make([]int64, len(r.files))
	}
	r.done[file] += wanted
	r.read += read
}

// total returns how many bytes are wanted, and how many of them are in memory.
func (r *warmReport) total() (wanted, in int64) {
	for _, f := range r.files {
		wanted += f.Size()
	}
	for _, h := range r.held {
		in += h.InMem
	}
	return wanted, in
}

func (r *warmReport) rate() string { return formatRate(r.read, time.Since(r.began)) }

// print prints the report.
func (w *warmFlags) print(c *cobra.Command, r *warmReport) error {
	switch {
	case w.json:
		return writeJSON(c.OutOrStdout(), r.facts())
	case w.check:
		return r.writeTable(c.OutOrStdout())
	}
	return r.writeResult(c.OutOrStdout())
}

// warmJSON is the output of warm --json.
type warmJSON struct {
	Version  int            `json:"version"`
	Files    []warmFileJSON `json:"files"`
	Bytes    int64          `json:"bytes"`             // that are wanted
	InMemory *int64         `json:"in_memory"`         // null: the kernel does not say
	Read     int64          `json:"read_bytes"`        // by this command
	Seconds  float64        `json:"seconds"`           // that it took
	Stopped  string         `json:"stopped,omitempty"` // why it ended early
}

type warmFileJSON struct {
	File     string `json:"file"`
	Bytes    int64  `json:"bytes"`
	InMemory *int64 `json:"in_memory"`
}

func (r *warmReport) facts() warmJSON {
	wanted, in := r.total()
	facts := warmJSON{Version: jsonVersion, Files: []warmFileJSON{}, Bytes: wanted, Read: r.read,
		Seconds: r.took.Seconds()}
	if r.held != nil {
		facts.InMemory = &in
	}
	switch {
	case errors.Is(r.stopped, context.Canceled):
		facts.Stopped = errInterrupted.Error()
	case r.stopped != nil:
		facts.Stopped = r.stopped.Error()
	}
	for i, f := range r.files {
		one := warmFileJSON{File: f.Name, Bytes: f.Size()}
		if r.held != nil {
			one.InMemory = &r.held[i].InMem
		}
		facts.Files = append(facts.Files, one)
	}
	return facts
}

// writeTable prints how much of each file is in memory.
func (r *warmReport) writeTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "IN MEMORY\tOF\tSHARE\tFILE")
	for _, h := range r.held {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", formatSize(h.InMem), formatSize(h.Wanted),
			formatShare(h.InMem, h.Wanted), oneLine(h.Name))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	wanted, in := r.total()
	_, err := fmt.Fprintf(w, "%s: %s of %s in memory (%s)\n", oneLine(r.what), formatSize(in),
		formatSize(wanted), formatShare(in, wanted))
	return err
}

// writeResult prints what was done, and what is not in memory.
func (r *warmReport) writeResult(w io.Writer) error {
	wanted, in := r.total()
	read := fmt.Sprintf("%s read in %v, %s", formatSize(r.read), r.took.Round(100*time.Millisecond),
		formatRate(r.read, r.took))
	if r.held == nil {
		_, err := fmt.Fprintf(w, "%s: %s; the kernel does not say how much is in memory\n",
			oneLine(r.what), read)
		return err
	}
	_, err := fmt.Fprintf(w, "%s: %s of %s in memory; %s\n", oneLine(r.what), formatSize(in),
		formatSize(wanted), read)
	if err != nil || in == wanted {
		return err
	}
	var missing []string
	for _, h := range r.held {
		if h.InMem < h.Wanted {
			missing = append(missing, fmt.Sprintf("%s (%s)", oneLine(h.Name),
				formatSize(h.Wanted-h.InMem)))
		}
	}
	_, err = fmt.Fprintf(w, "not in memory: %s\n", firstFew(missing))
	return err
}

// warmProgress shows the progress of warm.
type warmProgress interface {
	event(file int, wanted int64)
	close()
}

// progress chooses how progress is shown: as a bar on a terminal, else as a line for each file.
func (w *warmFlags) progress(c *cobra.Command, r *warmReport) warmProgress {
	total, _ := r.total()
	if !w.json && !isQuiet(c) && canRedraw(c.ErrOrStderr()) {
		p, bar := drawBar(c.ErrOrStderr(), total)
		return &warmBar{p, bar}
	}
	log := logger(c)
	if w.json {
		log = slog.New(slog.DiscardHandler)
	}
	n := len(r.files)
	log.Info(fmt.Sprintf("%d %s, %s", n, plural(n, "file", "files"), formatSize(total)))
	return &warmLines{report: r, log: log}
}

// warmLines prints a line for each file.
type warmLines struct {
	report *warmReport
	log    *slog.Logger
	files  int
}

func (l *warmLines) event(file int, _ int64) {
	f := &l.report.files[file]
	if l.report.done[file] < f.Size() {
		return
	}
	l.files++
	l.log.Info(fmt.Sprintf("%s  %s  (%d of %d, %s)", f.Name, formatSize(f.Size()), l.files,
		len(l.report.files), l.report.rate()))
}

func (l *warmLines) close() {}

// warmBar draws a bar.
type warmBar struct {
	progress *mpb.Progress
	bar      *mpb.Bar
}

func (b *warmBar) event(_ int, wanted int64) { b.bar.IncrInt64(wanted) }

// close ends the bar at its current length.
func (b *warmBar) close() {
	b.bar.SetTotal(-1, true)
	b.progress.Wait()
}
