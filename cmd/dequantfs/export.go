package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
)

func newExport() *cobra.Command {
	var e exportFlags
	c := &cobra.Command{
		Use:   "export SOURCE DIRECTORY",
		Short: "write a view to disk",
		Long: "Write the files that a mount would show into DIRECTORY, which must be new,\n" +
			"empty, or an unfinished export of the same view: that one is continued. Files\n" +
			"appear under their names once they are whole and on disk, config.json last.\n" +
			"Sizes and SHA-256 of every file and tensor are in the file\n" +
			"DIRECTORY/.dequantfs/manifest.json; dequantfs verify checks them.\n\n" +
			"Several processes, also on several machines, share the work with --part I/N, I\n" +
			"from 0. In a Slurm array I and N come from SLURM_ARRAY_TASK_ID and\n" +
			"SLURM_ARRAY_TASK_COUNT, in an indexed Kubernetes Job I comes from\n" +
			"JOB_COMPLETION_INDEX and N from --parts.",
		Example: "  dequantfs export ~/models/DeepSeek-V3 /data/v3-bf16 \n" +
			"  sbatch --array=0-7 --wrap 'dequantfs export /models/V3 /data/v3-bf16'",
		Args: arity(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			err := interruptible(c.Context(), func() error { return e.run(c, args[0], args[1]) })
			if errors.Is(err, context.Canceled) {
				return withHint(errInterrupted,
					"finished files are kept: run the same command again to go on")
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
	cacheSize cacheSize
	json      bool
}

func (e *exportFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&e.part, "part", "", "write only part `I/N` of the files, I from 0")
	flags.IntVar(&e.parts, "parts", 0,
		"`N` parts, numbered by JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID")
	flags.IntVar(&e.jobs, "jobs", 0,
		"`N` files written at once (default one for each processor, at most 8)")
	flags.Var(&e.cacheSize, "cache-size", "memory for experts, 0: none (default a tenth)")
	flags.BoolVar(&e.json, "json", false, "print one JSON object for each event")
	addQuiet(c)
}

func (e *exportFlags) run(c *cobra.Command, name, dir string) error {
	r, err := e.view.check()
	if err != nil {
		return err
	}
	share, err := e.share(os.Getenv)
	if err != nil {
		return err
	}
	o := fs.Options{CacheSize: e.cacheSize.option(), Logger: logger(c)}
	s, err := openSource(c.Context(), name, o, r.opening, r.views)
	if err != nil {
		return err
	}
	defer s.Close()
	show := e.reporter(c, dir)
	if !e.json {
		e.view.sayReaders(logger(c), s.checkpoint)
		if len(e.view.layouts) > 0 {
			e.view.sayNative(logger(c), s.checkpoint)
		}
		e.view.sayDType(logger(c), s.checkpoint)
	}
	if share.of > 1 {
		logger(c).Info(fmt.Sprintf("part %d of %d (%s)", share.part, share.of, share.from))
	}
	m, err := export.Write(c.Context(), s.fs, dir, export.Options{
		Part: share.part, Parts: share.of, Jobs: e.jobs, Progress: show.event,
	})
	show.close()
	if err != nil {
		return err
	}
	return show.end(m)
}

// share is the part of the work that one process does.
type share struct {
	part, of int
	from     string // the flag or the variable that sets it
}

// share returns the part that this process writes. The flags decide or, without them, the
// environment.
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
	if index := getenv(jobIndex); index != "" {
		if e.parts == 0 {
			err := errors.New(jobIndex + " is set, but the number of parts is missing")
			return share{}, usageError{withHint(err, "add --parts N with the completions of the "+
				"Job, or --part 0/1 to write everything here")}
		}
		return numbered(jobIndex, index, e.parts)
	}
	isArray := e.parts > 0 || getenv("SLURM_ARRAY_TASK_COUNT") != ""
	if id := getenv(slurmTask); id != "" && isArray {
		return slurmShare(id, e.parts, getenv)
	}
	if e.parts > 1 {
		err := fmt.Errorf("--parts needs %s or %s to say which part this is", jobIndex, slurmTask)
		return share{}, usageError{withHint(err, "give --part I/%d", e.parts)}
	}
	return share{of: 1}, nil
}

// The variables that number the processes of one export.
const (
	jobIndex  = "JOB_COMPLETION_INDEX"
	slurmTask = "SLURM_ARRAY_TASK_ID"
)

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
		return share{}, usageError{fmt.Errorf("%s is %q, not a number from 0 to %d", variable,
			index, of-1)}
	}
	return share{part, of, variable}, nil
}

// slurmShare reads the variables of a Slurm array. The numbers of an array may begin anywhere and
// have steps.
func slurmShare(id string, parts int, getenv func(string) string) (share, error) {
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	task, err := strconv.Atoi(id)
	if err != nil {
		return numbered(slurmTask, id, cmp.Or(parts, 1))
	}
	of := cmp.Or(parts, number("SLURM_ARRAY_TASK_COUNT", 0))
	first, step := number("SLURM_ARRAY_TASK_MIN", 0), max(number("SLURM_ARRAY_TASK_STEP", 1), 1)
	part := (task - first) / step
	if part < 0 || part >= of || (task-first)%step != 0 {
		err := fmt.Errorf("%s %s is not one of %d numbers that begin at %d and go in steps of %d",
			slurmTask, id, of, first, step)
		return share{}, usageError{withHint(err, "use an array such as 0-%d, or give --part I/N",
			of-1)}
	}
	return share{part, of, slurmTask}, nil
}
