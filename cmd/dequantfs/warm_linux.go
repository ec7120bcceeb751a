package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
	"github.com/dequantfs/dequantfs/fs/pagecache"
)

func newWarm() *cobra.Command {
	var w warmFlags
	c := &cobra.Command{
		Use:   "warm MOUNTPOINT | FOLDER | FILE...",
		Short: "bring files into memory with all cores",
		Long: "Read files of a mount into the kernel's page cache with all cores, in the order\n" +
			"in which loaders read them. Files that are in memory are skipped. Any folder with\n" +
			"*.safetensors will do, such as an export, or one rank or layout of a mount. It\n" +
			"stops when memory is full, before the kernel drops what it has brought; the exit\n" +
			"status is then 1. With --check it reads no tensors, and says how much is there.",
		Example: "  dequantfs warm /mnt/v3/hf\n" +
			"  dequantfs warm /mnt/v3/hf --include model.layers.1\n" +
			"  dequantfs warm /mnt/v3 --ep 3/8 --check",
		Args: arity(1, 1<<20),
		RunE: func(c *cobra.Command, args []string) error { return w.run(c, args) },
	}
	w.register(c)
	return c
}

// warmFlags are the flags of the warm command.
type warmFlags struct {
	ep, include, exclude string
	check, json          bool
}

func (w *warmFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVar(&w.check, "check", false, "only say how much of each file is in memory")
	flags.StringVar(&w.ep, "ep", "", "only rank `R/N` of a mount that shows all ranks")
	flags.StringVar(&w.include, "include", "",
		"only tensors whose names `REGEX` matches at the start")
	flags.StringVar(&w.exclude, "exclude", "",
		"no tensors whose names `REGEX` matches at the start")
	flags.BoolVar(&w.json, "json", false, "print JSON, without progress")
	addQuiet(c)
}

func (w *warmFlags) run(c *cobra.Command, args []string) error {
	want, err := w.wanted(args)
	if err != nil {
		return err
	}
	r := warmReport{what: firstFew(args), began: time.Now(), check: w.check}
	err = interruptible(c.Context(), func() (err error) {
		if r.files, err = want.list(c.Context(), args); err != nil || w.check {
			return err
		}
		return w.bring(c, &r)
	})
	if r.files == nil {
		return err
	}
	r.took = time.Since(r.began)
	// What is in memory is asked again, also after an error: the kernel may have dropped a part.
	var secret error
	if counting := interruptible(context.WithoutCancel(c.Context()), func() (err error) {
		r.held, err = pagecache.Check(context.Background(), r.files)
		return err
	}); counting != nil {
		r.held, secret = nil, counting
	}
	if w.check && err == nil && secret != nil {
		return explainSecret(secret)
	}
	r.stopped = err
	return errors.Join(w.print(c, &r), explainWarm(r.files[0].Name, err))
}

// bring brings the files of a report into memory, and shows progress.
func (w *warmFlags) bring(c *cobra.Command, r *warmReport) error {
	show := w.progress(c, r)
	defer show.close()
	gone, err := watchMounts(r.files)
	if err != nil {
		return err
	}
	r.read, err = pagecache.Warm(c.Context(), r.files, pagecache.Options{
		Room: fs.Room, Look: gone,
		Progress: func(file int, wanted, read int64) {
			r.count(file, wanted, read)
			show.event(file, wanted)
		},
	})
	return err
}

// watchMounts returns a function that fails once a mount of these files is gone. Its open files
// would otherwise keep a detached mount alive.
func watchMounts(files []pagecache.File) (gone func() error, err error) {
	before, err := mountsOf(files)
	if err != nil || len(before) == 0 {
		return func() error { return nil }, err
	}
	return func() error {
		all, err := mounts.List()
		if err != nil {
			return err
		}
		for _, m := range before {
			if !slices.Contains(all, m) {
				return fmt.Errorf("%s was unmounted", m.Mountpoint)
			}
		}
		return nil
	}, nil
}

// explainWarm adds the way out to the error that has ended the work. first is one of the files.
func explainWarm(first string, err error) error {
	var full *pagecache.FullError
	switch {
	case errors.As(err, &full):
		return withHint(err, "name fewer files, choose tensors with --include, or free memory")
	case errors.Is(err, pagecache.ErrEvicted):
		return withHint(err, "other programs need the memory: name fewer files, or end them")
	case errors.Is(err, pagecache.ErrNotKept):
		return withHint(err, "a mount with --direct keeps nothing in memory: mount without it")
	}
	return explainDead(first, err)
}

// explainSecret adds the way out to an error of asking what is in memory.
func explainSecret(err error) error {
	if errors.Is(err, pagecache.ErrSecret) {
		return withHint(err, "ask as root, or as the owner of the file")
	}
	return err
}
