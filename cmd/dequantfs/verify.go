package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/remote"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
)

func newVerify() *cobra.Command {
	var v verifyFlags
	c := &cobra.Command{
		Use:   "verify DIRECTORY|MOUNTPOINT|SOURCE",
		Short: "check an export, a mount, or a source over a network",
		Long: "Check the files of an export against the SHA-256 in its manifest, or with\n" +
			"--source against bytes computed anew from the source. A mount of this user is\n" +
			"checked against its source. The views are those of the export or the mount,\n" +
			"unless flags say otherwise. Each difference is printed by tensor, and then the\n" +
			"exit status is 1.\n\n" +
			"A manifest proves that nothing has changed since it was written. If others can\n" +
			"write it, give --source. The files of a SOURCE such as hf://ORG/NAME are compared\n" +
			"with the SHA-256 of its publisher.",
		Example: "  dequantfs verify /data/v3-bf16\n" +
			"  dequantfs verify /data/v3-bf16 --source ~/models/DeepSeek-V3\n" +
			"  dequantfs verify /mnt/v3",
		Args: arity(1, 1),
		RunE: func(c *cobra.Command, args []string) error { return v.run(c, args[0]) },
	}
	v.view.register(c)
	c.Flags().StringVar(&v.source, "source", "", "compare with the bytes of `SOURCE`")
	c.Flags().IntVar(&v.jobs, "jobs", 0,
		"`N` files read at once (default one for each processor, at most 8)")
	c.Flags().BoolVar(&v.json, "json", false, "print JSON")
	addQuiet(c)
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
	if remote.Is(dir) {
		return v.verifySource(c, dir)
	}
	var found *export.Verification
	var against string
	err := interruptible(c.Context(), func() (err error) {
		found, dir, against, err = v.verify(c, dir)
		return err
	})
	if err != nil {
		return err
	}
	if v.json {
		err = writeJSON(c.OutOrStdout(), verifyJSON{jsonVersion, found})
	} else {
		err = writeVerification(c.OutOrStdout(), dir, against, found)
	}
	if n := len(found.Differences); n > 0 {
		err = errors.Join(err,
			fmt.Errorf("%s: %d %s", dir, n, plural(n, "difference", "differences")))
	}
	return err
}

// verifyJSON is the output of verify --json.
type verifyJSON struct {
	Version int `json:"version"`
	*export.Verification
}

// verify checks against the manifest or a source. It also returns the directory that it checked,
// and against which of them.
func (v *verifyFlags) verify(c *cobra.Command, dir string) (found *export.Verification,
	checked, against string, err error) {
	r, err := v.view.check()
	if err != nil {
		return nil, "", "", err
	}
	e, err := v.expected(c, dir)
	switch {
	case err == nil:
		dir = v.narrow(&e, dir)
	case v.source == "" || !v.view.changed():
		return nil, "", "", err
	default: // the flags say all, and dir may be unreadable
		e = expectation{source: v.source}
	}
	if e.source == "" {
		found, err = v.againstManifest(c, dir, e.manifest)
		return found, dir, "its manifest", err
	}
	s, err := openSource(c.Context(), e.source, fs.Options{Logger: logger(c)}, r.opening,
		v.plan(c, r, e))
	if err != nil {
		return nil, "", "", err
	}
	defer s.Close()
	found, err = export.VerifyTree(c.Context(), s.fs, dir, export.VerifyOptions{Jobs: v.jobs})
	return found, dir, cmp.Or(e.name, e.source), err
}

// againstManifest checks an export against its manifest, which has all its views.
func (v *verifyFlags) againstManifest(
	c *cobra.Command, dir string, m *export.Manifest,
) (*export.Verification, error) {
	o := export.VerifyOptions{Jobs: v.jobs}
	switch given := v.view.given(); {
	case m == nil: // the error says how dir is not an export
		return export.Verify(c.Context(), dir, o)
	case len(given) > 0:
		return nil, usageError{fmt.Errorf("--%s needs --source: without it, the files of an "+
			"export are compared with its manifest", given[0])}
	}
	return m.Verify(c.Context(), dir, o)
}

// narrow limits an expectation to the layout that the flags request, and returns its directory, if
// dir has layouts in subdirectories. Else it returns dir.
func (v *verifyFlags) narrow(e *expectation, dir string) string {
	if len(v.view.layouts) != 1 {
		return dir
	}
	layout := v.view.layouts[0]
	var inside []export.ViewRecord
	for _, r := range e.views {
		if first, rest, _ := strings.Cut(r.Dir, "/"); first == layout {
			r.Dir = rest
			inside = append(inside, r)
		}
	}
	if len(inside) == 0 {
		return dir
	}
	e.views, e.narrowed = inside, true
	return filepath.Join(dir, layout)
}

// plan returns the views to compare with: the recorded ones unless flags request others.
func (v *verifyFlags) plan(c *cobra.Command, r *request, e expectation) planner {
	given, views := v.view.given(), e.views
	if e.narrowed && slices.Equal(given, []string{"layout"}) {
		given = nil
	}
	if len(views) == 0 || len(given) > 0 {
		return func(checkpoint *adapter.Checkpoint) ([]fs.View, error) {
			v.view.sayLayout(logger(c), checkpoint)
			return r.views(checkpoint)
		}
	}
	return func(checkpoint *adapter.Checkpoint) ([]fs.View, error) {
		return planRecorded(checkpoint, views)
	}
}

// expectation is the source or manifest with which a directory is compared.
type expectation struct {
	source   string // empty: the manifest
	name     string // of the source in messages; empty: source
	manifest *export.Manifest
	views    []export.ViewRecord
	narrowed bool // to the views of one layout, which the flags name
}

// expected finds the expectation for dir. The views are those of the manifest of an export, or of
// the record of a mount. So is the source without --source, and it is the folder that was mounted:
// a name on the Hub may have come to mean another one.
func (v *verifyFlags) expected(c *cobra.Command, dir string) (expectation, error) {
	m, err := export.ReadManifest(dir)
	switch {
	case err == nil:
		return expectation{source: v.source, manifest: m, views: m.Views}, nil
	case !errors.Is(err, iofs.ErrNotExist):
		return expectation{}, err
	}
	mount, err := mountAt(c.Context(), dir)
	if v.source == "" {
		return expectation{
			source: cmp.Or(mount.Folder, mount.Source), name: mount.Source, views: mount.Views,
		}, err
	}
	if err != nil && !v.view.changed() { // an export without its manifest can still be compared
		logger(c).Warn("if this is a mount, name its views by flags: its record cannot be read",
			"err", err)
	}
	return expectation{source: v.source, views: mount.Views}, nil
}

// mountAt returns the record of this user's mount at dir, or an empty one if there is none.
func mountAt(ctx context.Context, dir string) (record, error) {
	mountpoint, err := fs.ResolveMountpoint(dir)
	if err != nil {
		return record{}, err
	}
	all, err := states(ctx)
	for _, s := range all {
		if s.Mountpoint == mountpoint {
			return s.record, nil
		}
	}
	return record{}, err
}

// planRecorded plans the views that are recorded in an export or a mount.
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
	_, err := fmt.Fprintf(w, "%s against %s: %d files, %d tensors, %s: %s\n", oneLine(dir),
		oneLine(against),
		found.Files, found.Tensors, formatSize(found.Bytes), verdict)
	return err
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
