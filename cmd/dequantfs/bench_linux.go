package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/fs"
)

func newBench() *cobra.Command {
	b := benchFlags{sample: 1 << 30}
	c := &cobra.Command{
		Use:   "bench SOURCE",
		Short: "measure how fast this machine reads a checkpoint, and find the bottleneck",
		Long: "Measure in rounds, and in each round one after the other: reading the\n" +
			"source, decoding in memory, reading a virtual file without FUSE, reading the\n" +
			"mount in several ways, reading a copy of the same bytes from disk, and reading a\n" +
			"FUSE file that costs nothing to produce. Cold means that the files were dropped\n" +
			"from memory before, which is checked. Then the medians and the bottleneck.\n\n" +
			"The copy is written to --scratch and removed again, unless --against names an\n" +
			"export that is there already. Source and copy should be on the same disk.",
		Example: "  dequantfs bench ~/models/DeepSeek-V3\n" +
			"  dequantfs bench ~/models/DeepSeek-V3 --layout hf --against /data/v3-bf16 --json",
		Args: arity(1, 1),
		RunE: func(c *cobra.Command, args []string) error { return b.run(c, args[0]) },
	}
	b.view.register(c)
	b.register(c)
	c.AddCommand(newBenchMemory(), newBenchDecode())
	return c
}

// benchFlags are the flags of the bench command.
type benchFlags struct {
	view      viewFlags
	against   string
	scratch   string
	sample    size
	cacheSize cacheSize
	rounds    int
	readers   int
	only      []string
	json      bool
}

func (b *benchFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&b.against, "against", "", "compare with the export in `DIRECTORY`")
	flags.StringVar(&b.scratch, "scratch", "",
		"`DIRECTORY` for copy and mounts (default $TMPDIR)")
	flags.Var(&b.sample, "sample", "bytes of the view to read")
	flags.Var(&b.cacheSize, "cache-size", "memory for experts, 0: none (default a tenth)")
	flags.IntVar(&b.rounds, "rounds", 3, "`N` rounds")
	flags.IntVar(&b.readers, "readers", runtime.NumCPU(), "`N` readers where several read")
	flags.StringSliceVar(&b.only, "only", nil,
		"only these `GROUPS`: "+strings.Join(groupNames(), ", "))
	flags.BoolVar(&b.json, "json", false, "print JSON")
	addQuiet(c)
}

// benchGroup is a group of measures.
type benchGroup struct {
	name string
	run  func(*bench, context.Context) error
}

// benchGroups are the groups of a round, in this order or backwards.
var benchGroups = []benchGroup{
	{"source", (*bench).readSource},
	{"copy", (*bench).readCopy},
	{"decode", (*bench).decode},
	{"virtual", (*bench).readVirtual},
	{"mount", (*bench).readMount},
	{"mmap", (*bench).readMapped},
	{"direct", (*bench).readDirect},
	{"memory", (*bench).readMemory},
	{"export", (*bench).export},
}

func groupNames() []string {
	var names []string
	for _, g := range benchGroups {
		names = append(names, g.name)
	}
	return names
}

func (b *benchFlags) run(c *cobra.Command, name string) error {
	view, err := b.check()
	if err != nil {
		return err
	}
	run, err := b.open(c, view, name)
	if err != nil {
		return err
	}
	err = errors.Join(run.rounds(c.Context()), run.close())
	if err != nil {
		return err
	}
	r := run.report()
	if b.json {
		return writeJSON(c.OutOrStdout(), r)
	}
	return r.write(c.OutOrStdout())
}

// check finds mistakes in the flags, and returns the view.
func (b *benchFlags) check() (*request, error) {
	for _, only := range b.only {
		if !slices.Contains(groupNames(), only) {
			return nil, flagError("only", only, "one of "+strings.Join(groupNames(), ", "))
		}
	}
	if b.rounds < 1 || b.readers < 1 {
		return nil, usageError{errors.New("--rounds and --readers are at least 1")}
	}
	view, err := b.view.check()
	if err == nil && (len(view.layouts) > 1 || view.allRanks) {
		err = usageError{errors.New("one view is measured at a time: give one layout and one rank")}
	}
	return view, err
}

// bench is one run of the command.
type bench struct {
	*benchFlags
	command *cobra.Command
	name    string
	request *request
	source  *opened
	sample  []benchPart
	ranges  []benchRange // of the source, from which the sample is computed
	scratch string
	copy    string // directory with the sample's files on disk

	measures []*measure
	busy     map[string][]float64 // share of the processors' time, by name of the measure
	notes    []string
	resident int64 // most memory of a process behind a mount
}

// open opens the source, and makes the copy to compare with.
func (f *benchFlags) open(c *cobra.Command, view *request, name string) (*bench, error) {
	b := &bench{
		benchFlags: f, command: c, name: name, request: view, busy: map[string][]float64{},
	}
	var err error
	if b.source, err = b.openSource(); err != nil {
		return nil, err
	}
	b.name = b.source.checkpoint.Location() // it is opened again, and then must be the same files
	f.view.sayLayout(logger(c), b.source.checkpoint)
	if b.sample, err = chooseSample(b.source.fs, int64(f.sample)); err == nil {
		b.ranges, err = b.source.rangesOf(b.sample)
	}
	if err == nil {
		b.scratch, err = os.MkdirTemp(f.scratch, "dequantfs-bench-")
	}
	if err == nil {
		err = b.makeCopy(c.Context())
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) openSource() (*opened, error) {
	o := fs.Options{CacheSize: b.cacheSize.option(), Logger: logger(b.command)}
	return openSource(b.command.Context(), b.name, o, b.request.opening, b.request.views)
}

// mountArguments are the arguments of a mount of the same view.
func (b *bench) mountArguments() []string {
	args := append([]string{"mount", "--foreground", b.name, b.path("mount")},
		b.view.arguments()...)
	if b.cacheSize.given {
		args = append(args, "--cache-size="+b.cacheSize.String())
	}
	return args
}

func (b *bench) close() error {
	err := b.source.Close()
	if b.scratch != "" {
		err = errors.Join(err, os.RemoveAll(b.scratch))
	}
	return err
}

// wants reports whether a group is to be measured.
func (b *bench) wants(group string) bool {
	return len(b.only) == 0 && group != "export" || slices.Contains(b.only, group)
}

// rounds measures everything once a round, so a slow moment of the machine does not affect only one
// measure. Every other round goes backwards. The group that reads first gets scattered pages of
// memory, and the next one gets contiguous pages, which are a little faster.
func (b *bench) rounds(ctx context.Context) error {
	groups := slices.DeleteFunc(slices.Clone(benchGroups),
		func(g benchGroup) bool { return !b.wants(g.name) })
	for round := range b.benchFlags.rounds {
		for _, g := range groups {
			b.say("round %d of %d: %s", round+1, b.benchFlags.rounds, g.name)
			err := b.chill()
			if err == nil {
				err = g.run(b, ctx)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", g.name, err)
			}
		}
		slices.Reverse(groups)
	}
	return nil
}

func (b *bench) say(format string, args ...any) {
	logger(b.command).Info(fmt.Sprintf(format, args...))
}

// note records once why a measurement is not reliable.
func (b *bench) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(b.notes, n) {
		b.notes = append(b.notes, n)
	}
}

// measure is a quantity that is measured once in each round.
type measure struct {
	Name    string    `json:"name"`
	What    string    `json:"what"`
	Bytes   int64     `json:"bytes"`
	Seconds []float64 `json:"seconds"`
}

// record adds a run of a measure.
func (b *bench) record(name, what string, bytes int64, took time.Duration) {
	i := slices.IndexFunc(b.measures, func(m *measure) bool { return m.Name == name })
	if i < 0 {
		i = len(b.measures)
		b.measures = append(b.measures, &measure{Name: name, What: what, Bytes: bytes})
	}
	b.measures[i].Seconds = append(b.measures[i].Seconds, took.Seconds())
}

// time records how long a function takes.
func (b *bench) time(name, what string, bytes int64, do func() error) error {
	begin := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	b.record(name, what, bytes, time.Since(begin))
	return nil
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.scratch}, parts...)...)
}
