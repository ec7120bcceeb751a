package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
)

func newExport() *cobra.Command {
	var e exportFlags
	c := &cobra.Command{
		Use:   "export SOURCE DIRECTORY",
		Short: "write a view to disk",
		Long: "Write the files that a mount would show into DIRECTORY, which must be new,\n" +
			"empty, or an unfinished export of the same view: that one is continued. For\n" +
			"transformers, vLLM, SGLang or llama.cpp give --layout hf. Files appear under\n" +
			"their names once they are whole and on disk, config.json last. Sizes and SHA-256\n" +
			"of every file and tensor are in DIRECTORY/.dequantfs/manifest.json; dequantfs\n" +
			"verify checks them.\n\n" +
			"Several processes, also on several machines, share the work with --part I/N, I\n" +
			"from 0. In a Slurm array I and N come from SLURM_ARRAY_TASK_ID and\n" +
			"SLURM_ARRAY_TASK_COUNT, in an indexed Kubernetes Job I comes from\n" +
			"JOB_COMPLETION_INDEX and N from --parts.",
		Example: "  dequantfs export ~/models/DeepSeek-V3 /data/v3-bf16 --layout hf\n" +
			"  sbatch --array=0-7 --wrap 'dequantfs export /models/V3 /data/v3-bf16'",
		Args: arity(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			err := interruptible(c.Context(), func() error { return e.run(c, args[0], args[1]) })
			if errors.Is(err, context.Canceled) {
				return withHint(errors.New("interrupted"), "what is finished is kept: run the same command again to go on")
			}
			return err
		},
	}
	e.view.register(c)
	e.register(c)
	return c
}

// exportFlags are the flags of the export command.
type exportFlags struct {
	view      viewFlags
	part      string
	parts     int
	jobs      int
	cacheSize size
	json      bool
}

func (e *exportFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&e.part, "part", "", "write only part `I/N` of the files, I from 0")
	flags.IntVar(&e.parts, "parts", 0, "`N` parts, of which JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID says which is this one's")
	flags.IntVar(&e.jobs, "jobs", 0, "`N` files written at once (default one for each processor, at most 8)")
	flags.Var(&e.cacheSize, "cache-size", "memory for transposed experts (default a tenth of the memory, at most 16GiB)")
	flags.BoolVar(&e.json, "json", false, "print one JSON object for each event")
}

func (e *exportFlags) run(c *cobra.Command, name, dir string) error {
	share, err := e.share(os.Getenv)
	if err != nil {
		return err
	}
	s, err := openSource(c, name, &e.view, fs.Options{CacheSize: int64(e.cacheSize)})
	if err != nil {
		return err
	}
	defer s.Close()
	if share.of > 1 {
		logger(c).Info(fmt.Sprintf("part %d of %d (%s)", share.part, share.of, share.from))
	}
	show := e.reporter(c, dir)
	m, err := export.Write(c.Context(), s.fs, dir, export.Options{Part: share.part, Parts: share.of, Jobs: e.jobs, Progress: show.event})
	show.close()
	if err != nil {
		return err
	}
	return show.end(m)
}

// share is one process's share of the work.
type share struct {
	part, of int
	from     string // who said so
}

// share finds out which part is ours: from the flags, else from what started us.
func (e *exportFlags) share(getenv func(string) string) (share, error) {
	if e.part != "" {
		if e.parts != 0 {
			return share{}, usageError{errors.New("--part and --parts exclude each other")}
		}
		return partFlag(e.part)
	}
	if e.parts < 0 {
		return share{}, flagError("parts", strconv.Itoa(e.parts), "a number of parts")
	}
	if index := getenv("JOB_COMPLETION_INDEX"); index != "" {
		if e.parts == 0 {
			return share{}, usageError{withHint(errors.New("JOB_COMPLETION_INDEX is set, but not how many parts there are"),
				"add --parts N with the Job's completions, or --part 0/1 to write everything here")}
		}
		return numbered("JOB_COMPLETION_INDEX", index, e.parts)
	}
	if id := getenv("SLURM_ARRAY_TASK_ID"); id != "" && (e.parts > 0 || getenv("SLURM_ARRAY_TASK_COUNT") != "") {
		return slurmShare(id, e.parts, getenv)
	}
	if e.parts > 1 {
		return share{}, usageError{withHint(errors.New("--parts needs JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID to say which part this is"),
			"say it with --part I/%d", e.parts)}
	}
	return share{of: 1}, nil
}

// partFlag reads I/N.
func partFlag(text string) (share, error) {
	i, n, _ := strings.Cut(text, "/")
	part, err1 := strconv.Atoi(i)
	of, err2 := strconv.Atoi(n)
	if err1 != nil || err2 != nil || part < 0 || part >= of {
		return share{}, flagError("part", text, "I/N with I from 0 to N-1, such as 0/4")
	}
	return share{part, of, "--part"}, nil
}

// numbered reads a variable that counts from 0.
func numbered(variable, index string, of int) (share, error) {
	part, err := strconv.Atoi(index)
	if err != nil || part < 0 || part >= of {
		return share{}, usageError{fmt.Errorf("%s is %q, not a number from 0 to %d", variable, index, of-1)}
	}
	return share{part, of, variable}, nil
}

// slurmShare reads a Slurm array's variables; its numbers may begin anywhere and go in steps.
func slurmShare(id string, parts int, getenv func(string) string) (share, error) {
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	const variable = "SLURM_ARRAY_TASK_ID"
	task, err := strconv.Atoi(id)
	if err != nil {
		return numbered(variable, id, cmp.Or(parts, 1))
	}
	of := cmp.Or(parts, number("SLURM_ARRAY_TASK_COUNT", 0))
	first, step := number("SLURM_ARRAY_TASK_MIN", 0), max(number("SLURM_ARRAY_TASK_STEP", 1), 1)
	part := (task - first) / step
	if part < 0 || part >= of || (task-first)%step != 0 {
		return share{}, usageError{withHint(fmt.Errorf("%s %s is not one of %d numbers that begin at %d and go in steps of %d", variable, id, of, first, step),
			"use an array such as 0-%d, or say which part this is with --part I/N", of-1)}
	}
	return share{part, of, variable}, nil
}

// exportReporter shows the progress of an export.
type exportReporter interface {
	event(export.Event)
	close()
	end(*export.Manifest) error // nil while other parts are not done
}

// reporter chooses: events for programs, a bar on a terminal, a line for each file elsewhere.
func (e *exportFlags) reporter(c *cobra.Command, dir string) exportReporter {
	if e.json {
		return &jsonEvents{out: json.NewEncoder(jsonWriter{c.OutOrStdout()})}
	}
	lines := exportLines{out: c.OutOrStdout(), people: c.ErrOrStderr(), dir: dir, begin: time.Now()}
	if f, ok := c.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &exportBar{exportLines: lines}
	}
	return &lines
}

// jsonEvents prints one JSON object for each event.
type jsonEvents struct {
	out *json.Encoder
	err error
}

type jsonEvent struct {
	Event string `json:"event"`
	File  string `json:"file,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
	Files int    `json:"files,omitempty"`
}

func (j *jsonEvents) event(e export.Event) {
	j.err = errors.Join(j.err, j.out.Encode(jsonEvent{string(e.Kind), e.File, e.Bytes, e.Files}))
}
func (j *jsonEvents) close()                     {}
func (j *jsonEvents) end(*export.Manifest) error { return j.err }

// exportLines prints a line for each file.
type exportLines struct {
	out, people io.Writer
	dir         string
	begin       time.Time

	files, done, skipped int
	total, written       int64
}

func (l *exportLines) event(e export.Event) {
	l.count(e)
	switch e.Kind {
	case export.Started:
		fmt.Fprintf(l.people, "dequantfs: %d files to write, %s\n", e.Files, formatSize(e.Bytes))
	case export.Finished:
		fmt.Fprintf(l.people, "dequantfs: %s  %s  (%d written, %s)\n", oneLine(e.File), formatSize(e.Bytes), l.done, l.rate())
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
	_, err := fmt.Fprintf(l.out, "%s: %d files written, %s in %v, %s", oneLine(l.dir), l.done, formatSize(l.written), took, l.rate())
	if l.skipped > 0 {
		fmt.Fprintf(l.out, "; %d were there already", l.skipped)
	}
	if m == nil {
		fmt.Fprintln(l.out, "; other parts are not done yet")
	} else {
		fmt.Fprintf(l.out, "; complete, %d files\n", len(m.Files))
	}
	return err
}

// exportBar draws a bar.
type exportBar struct {
	exportLines
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
	b.progress = mpb.New(mpb.WithOutput(b.people), mpb.WithWidth(40))
	b.bar = b.progress.AddBar(total,
		mpb.PrependDecorators(decor.CountersKibiByte("% .1f of % .1f")),
		mpb.AppendDecorators(
			decor.AverageSpeed(decor.SizeB1024(0), "% .1f"),
			decor.Name(", "), decor.AverageETA(decor.ET_STYLE_GO), decor.Name(" left"),
		))
}

func (b *exportBar) close() {
	if b.bar == nil {
		return
	}
	b.bar.SetTotal(-1, true) // also when it was cut short: the rest is said in words
	b.progress.Wait()
}
