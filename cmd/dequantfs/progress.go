package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/dequantfs/dequantfs/fs/export"
)

// exportReporter shows the progress of an export.
type exportReporter interface {
	event(export.Event)
	close()
	end(*export.Manifest) error // nil while other parts are unfinished
}

// reporter chooses how progress is shown: as events for programs, as a bar on a terminal, or as a
// line for each file. With --quiet only the result is printed.
func (e *exportFlags) reporter(c *cobra.Command, dir string) exportReporter {
	if e.json {
		return &jsonEvents{out: json.NewEncoder(jsonWriter{c.OutOrStdout()})}
	}
	lines := exportLines{out: c.OutOrStdout(), log: logger(c), dir: dir, begin: time.Now()}
	if !isQuiet(c) && canRedraw(c.ErrOrStderr()) {
		return &exportBar{exportLines: lines, screen: c.ErrOrStderr()}
	}
	return &lines
}

// canRedraw reports whether a writer is a terminal on which a line can be redrawn.
func canRedraw(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

// jsonEvents prints one JSON object for each event.
type jsonEvents struct {
	out *json.Encoder
	err error
}

// jsonEvent is one event. Only the first has a version.
type jsonEvent struct {
	Version int    `json:"version,omitempty"`
	Event   string `json:"event"`
	File    string `json:"file,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	Files   int    `json:"files,omitempty"`
}

func (j *jsonEvents) event(e export.Event) {
	line := jsonEvent{Event: string(e.Kind), File: e.File, Bytes: e.Bytes, Files: e.Files}
	if e.Kind == export.Started {
		line.Version = jsonVersion
	}
	j.err = errors.Join(j.err, j.out.Encode(line))
}

func (j *jsonEvents) close() {}

func (j *jsonEvents) end(*export.Manifest) error { return j.err }

// exportLines prints a line for each file.
type exportLines struct {
	out   io.Writer // for the result
	log   *slog.Logger
	dir   string
	begin time.Time

	files, done, skipped int
	total, written       int64
}

func (l *exportLines) event(e export.Event) {
	l.count(e)
	switch e.Kind {
	case export.Started:
		l.log.Info(fmt.Sprintf("%d files to write, %s", e.Files, formatSize(e.Bytes)))
	case export.Finished:
		l.log.Info(fmt.Sprintf("%s  %s  (%d written, %s)", e.File, formatSize(e.Bytes), l.done,
			l.rate()))
	}
}

func (l *exportLines) count(e export.Event) {
	switch e.Kind {
	case export.Started:
		l.files, l.total = e.Files, e.Bytes
	case export.Written:
		l.written += e.Bytes
	case export.Finished:
		l.done++
	case export.Skipped:
		l.skipped++
	}
}

func (l *exportLines) rate() string {
	return formatSize(int64(float64(l.written)/max(time.Since(l.begin).Seconds(), 1e-3))) + "/s"
}

func (l *exportLines) close() {}

func (l *exportLines) end(m *export.Manifest) error {
	took := time.Since(l.begin).Round(100 * time.Millisecond)
	text := fmt.Sprintf("%s: %d files written, %s in %v, %s", oneLine(l.dir), l.done,
		formatSize(l.written), took, l.rate())
	if l.skipped > 0 {
		text += fmt.Sprintf("; %d were there already", l.skipped)
	}
	if m == nil {
		text += "; other parts are not done yet"
	} else {
		text += fmt.Sprintf("; complete, %d files", len(m.Files))
	}
	_, err := fmt.Fprintln(l.out, text)
	return err
}

// exportBar draws a bar, without colour.
type exportBar struct {
	exportLines
	screen   io.Writer
	progress *mpb.Progress
	bar      *mpb.Bar
}

func (b *exportBar) event(e export.Event) {
	b.count(e)
	switch e.Kind {
	case export.Started:
		b.draw(e.Bytes)
	case export.Written:
		b.bar.IncrInt64(e.Bytes)
	}
}

func (b *exportBar) draw(total int64) {
	b.progress, b.bar = drawBar(b.screen, total)
}

// drawBar draws a bar of bytes with their rate and the time that is left.
func drawBar(screen io.Writer, total int64) (*mpb.Progress, *mpb.Bar) {
	p := mpb.New(mpb.WithOutput(screen), mpb.WithWidth(40))
	return p, p.AddBar(total,
		mpb.PrependDecorators(decor.CountersKibiByte("%.1f of %.1f")),
		mpb.AppendDecorators(
			decor.AverageSpeed(decor.SizeB1024(0), "%.1f"),
			decor.Name(", "), decor.AverageETA(decor.ET_STYLE_GO), decor.Name(" left"),
		))
}

// close ends the bar at its current length, also after an error.
func (b *exportBar) close() {
	if b.bar == nil {
		return
	}
	b.bar.SetTotal(-1, true)
	b.progress.Wait()
}
