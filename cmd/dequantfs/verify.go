package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
)

func newVerify() *cobra.Command {
	var v verifyFlags
	c := &cobra.Command{
		Use:   "verify DIRECTORY|MOUNTPOINT",
		Short: "check an export or a mount",
		Long: "Check the files of an export against the SHA-256 in its manifest, or with\n" +
			"--source against bytes computed anew from the source. A mount of this user is\n" +
			"checked against its source. Which views there are is known from the export or\n" +
			"the mount, unless flags say otherwise. What differs is printed by tensor, and\n" +
			"then the exit status is 1.\n\n" +
			"A manifest proves that nothing has changed since somebody wrote it. Where it\n" +
			"may not be trusted, give --source.",
		Example: "  dequantfs verify /data/v3-bf16\n" +
			"  dequantfs verify /data/v3-bf16 --source ~/models/DeepSeek-V3\n" +
			"  dequantfs verify /mnt/v3",
		Args: arity(1, 1),
		RunE: func(c *cobra.Command, args []string) error { return v.run(c, args[0]) },
	}
	v.view.register(c)
	c.Flags().StringVar(&v.source, "source", "", "compare with the bytes of `SOURCE`")
	c.Flags().IntVar(&v.jobs, "jobs", 0, "`N` files read at once (default one for each processor, at most 8)")
	c.Flags().BoolVar(&v.json, "json", false, "print JSON")
	return c
}

// verifyFlags are the flags of the verify command.
type verifyFlags struct {
	view   viewFlags
	source string
	jobs   int
	json   bool
}

func (v *verifyFlags) run(c *cobra.Command, dir string) error {
	var found *export.Verification
	var against string
	err := interruptible(c.Context(), func() (err error) {
		found, against, err = v.verify(c, dir)
		return err
	})
	if err != nil {
		return err
	}
	if v.json {
		err = writeJSON(c.OutOrStdout(), found)
	} else {
		err = writeVerification(c.OutOrStdout(), dir, against, found)
	}
	if n := len(found.Differences); n > 0 {
		err = errors.Join(err, fmt.Errorf("%s: %d %s", dir, n, plural(n, "difference", "differences")))
	}
	return err
}

// verify checks against the manifest or against a source, and says which.
func (v *verifyFlags) verify(c *cobra.Command, dir string) (found *export.Verification, against string, err error) {
	o := export.VerifyOptions{Jobs: v.jobs}
	source, views := v.source, []export.ViewRecord(nil)
	if source == "" || !v.view.changed(c) { // else all is said, and what is in dir need not be readable
		var m *export.Manifest
		source, views, m, err = v.expected(c.Context(), dir)
		switch {
		case err != nil:
			return nil, "", err
		case m != nil && source == "":
			found, err = m.Verify(c.Context(), dir, o)
			return found, "its manifest", err
		case source == "":
			found, err = export.Verify(c.Context(), dir, o) // which says what is missing
			return found, "its manifest", err
		}
	}
	if err := v.view.check(); err != nil {
		return nil, "", err
	}
	plan := v.view.views
	if len(views) > 0 && !v.view.changed(c) {
		plan = func(checkpoint *adapter.Checkpoint) ([]fs.View, error) { return planRecorded(checkpoint, views) }
	}
	s, err := openViews(c.Context(), source, fs.Options{Logger: logger(c)}, v.view.follow, plan)
	if err != nil {
		return nil, "", err
	}
	defer s.Close()
	found, err = export.VerifyTree(c.Context(), s.fs, dir, o)
	return found, source, err
}

// expected finds out what should be in dir: the source, none where the manifest is to be compared
// with, the views as far as an export or a mount tells, and the manifest of an export.
func (v *verifyFlags) expected(ctx context.Context, dir string) (source string, views []export.ViewRecord, m *export.Manifest, err error) {
	m, err = export.ReadManifest(dir)
	if err == nil {
		return v.source, m.Views, m, nil
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		return "", nil, nil, err
	}
	if v.source != "" {
		return v.source, nil, nil, nil
	}
	mountpoint, err := fs.ResolveMountpoint(dir)
	if err != nil {
		return "", nil, nil, err
	}
	all, err := states(ctx)
	for _, s := range all {
		if s.Mountpoint == mountpoint {
			return s.Source, s.Views, nil, nil
		}
	}
	return "", nil, nil, err
}

// viewFlagNames are the flags that say what is shown.
var viewFlagNames = []string{"layout", "dtype", "ep", "mtp", "exclude", "scales", "shard-size", "unscaled"}

// changed says whether any flag was given that says what is shown.
func (v *viewFlags) changed(c *cobra.Command) bool {
	return slices.ContainsFunc(viewFlagNames, c.Flags().Changed)
}

// planRecorded plans the views that an export or a mount says it holds.
func planRecorded(c *adapter.Checkpoint, records []export.ViewRecord) ([]fs.View, error) {
	var views []fs.View
	for _, r := range records {
		v, err := r.View(c)
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	return views, nil
}

func writeVerification(w io.Writer, dir, against string, found *export.Verification) error {
	for _, d := range found.Differences {
		fmt.Fprintln(w, oneLine(d.String()))
	}
	for _, name := range found.Extra {
		fmt.Fprintf(w, "%s: does not belong to it\n", oneLine(name))
	}
	verdict := "all as they should be"
	if n := len(found.Differences); n > 0 {
		verdict = fmt.Sprintf("%d %s", n, plural(n, "difference", "differences"))
	}
	_, err := fmt.Fprintf(w, "%s against %s: %d files, %d tensors, %s: %s\n", oneLine(dir), oneLine(against), found.Files, found.Tensors, formatSize(found.Bytes), verdict)
	return err
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
