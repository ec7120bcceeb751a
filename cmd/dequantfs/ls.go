package main

import (
	"cmp"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
)

func newLs() *cobra.Command {
	var l lsFlags
	c := &cobra.Command{
		Use:   "ls SOURCE",
		Short: "list the virtual tensors of a checkpoint",
		Long: "List every virtual tensor: name, dtype, shape, bytes, the virtual file it is\n" +
			"in, and the recipe that computes it; then the keys of the source that are left\n" +
			"out, and why.",
		Example: "  dequantfs ls ~/models/DeepSeek-V3 --layout native",
		Args:    arity(1, 1),
		RunE:    func(c *cobra.Command, args []string) error { return l.run(c, args[0]) },
	}
	l.view.register(c)
	c.Flags().BoolVar(&l.json, "json", false, "print JSON")
	c.Flags().BoolVar(&l.summary, "summary", false,
		"print only how many weights are stored in which way")
	addQuiet(c)
	return c
}

// lsFlags are the flags of the ls command.
type lsFlags struct {
	view          viewFlags
	json, summary bool
}

func (l *lsFlags) run(c *cobra.Command, name string) error {
	r, err := l.view.check()
	if err != nil {
		return err
	}
	s, err := openSource(c.Context(), name, fs.Options{Logger: logger(c)}, r.opening, r.views)
	if err != nil {
		return err
	}
	defer s.Close()
	if l.summary { // the same for every layout
		return writeSummary(c.OutOrStdout(), s.checkpoint, l.json)
	}
	if l.json {
		l.view.sayLayout(logger(c), s.checkpoint)
	} else {
		l.view.sayReaders(logger(c), s.checkpoint)
	}
	l.view.sayNative(logger(c), s.checkpoint)
	listings, err := list(s)
	switch {
	case err != nil:
		return err
	case l.json:
		return writeJSON(c.OutOrStdout(), map[string]any{
			"version": jsonVersion, "source": s.checkpoint.Path, "views": listings,
		})
	}
	return writeListings(c.OutOrStdout(), listings)
}

// listing is one view.
type listing struct {
	Directory string          `json:"directory"`
	Layout    string          `json:"layout"`
	DType     string          `json:"dtype"`
	Tensors   []listedTensor  `json:"tensors"`
	Account   []accountedFate `json:"source_keys"`
}

type listedTensor struct {
	Name   string  `json:"name"`
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape"`
	Bytes  int64   `json:"bytes"`
	File   string  `json:"file"`
	Recipe string  `json:"recipe"`
}

type accountedFate struct {
	Key    string   `json:"key"`
	Fate   string   `json:"fate"`
	Reason string   `json:"reason,omitempty"`
	Into   []string `json:"into,omitempty"`
}

// list describes the views of an opened source.
func list(s *opened) ([]listing, error) {
	var all []listing
	for _, v := range s.views {
		l, err := listView(s.fs, v)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func listView(tree *fs.FS, v fs.View) (listing, error) {
	files, err := filesOf(tree, v.Dir)
	if err != nil {
		return listing{}, err
	}
	o := v.Plan.Options
	l := listing{Directory: v.Dir, Layout: o.Layout, DType: o.DType.String()}
	for _, t := range v.Plan.Tensors {
		l.Tensors = append(l.Tensors, listedTensor{
			Name: t.Name, DType: t.Node.DType().String(),
			Shape: append([]int64{}, t.Node.Shape()...), Bytes: t.Node.Size(),
			File: files(t.Name), Recipe: t.Node.String(),
		})
	}
	for _, a := range v.Plan.Account {
		l.Account = append(l.Account, accountedFate{a.Key, fateNames[a.Fate], a.Reason, a.Into})
	}
	return l, nil
}

var fateNames = map[adapter.Fate]string{
	adapter.Used:    "used",
	adapter.Passed:  "passed",
	adapter.Dropped: "dropped",
}

// filesOf finds the virtual file of each tensor as a loader does: by the index or, without one, in
// the only safetensors file.
func filesOf(f *fs.FS, dir string) (func(name string) string, error) {
	entries, err := iofs.ReadDir(f, path.Join(".", dir))
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(entries, func(e iofs.DirEntry) bool {
		return strings.HasSuffix(e.Name(), ".safetensors.index.json")
	})
	if i >= 0 {
		data, err := iofs.ReadFile(f, path.Join(dir, entries[i].Name()))
		if err != nil {
			return nil, err
		}
		x, err := safetensors.ParseIndex(data)
		if err != nil {
			return nil, err
		}
		return func(name string) string { return path.Join(dir, x.WeightMap[name]) }, nil
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".safetensors") {
			return func(string) string { return path.Join(dir, e.Name()) }, nil
		}
	}
	return func(string) string { return "" }, nil
}

func writeListings(w io.Writer, listings []listing) error {
	for i, l := range listings {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := l.write(w); err != nil {
			return err
		}
	}
	return nil
}

func (l *listing) write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tDTYPE\tSHAPE\tBYTES\tFILE\tRECIPE")
	var total int64
	for _, t := range l.Tensors {
		total += t.Bytes
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\n", oneLine(t.Name), t.DType,
			formatShape(t.Shape), t.Bytes, oneLine(t.File), oneLine(t.Recipe))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	n := len(l.Tensors)
	fmt.Fprintf(w, "%s: %d %s, %s\n", l.Layout, n, plural(n, "tensor", "tensors"),
		formatSize(total))
	return l.writeDropped(w)
}

// writeDropped prints the keys of the source that are left out, one line for each reason.
func (l *listing) writeDropped(w io.Writer) error {
	keys := map[string][]string{}
	var reasons []string
	for _, a := range l.Account {
		if a.Fate != fateNames[adapter.Dropped] {
			continue
		}
		if keys[a.Reason] == nil {
			reasons = append(reasons, a.Reason)
		}
		keys[a.Reason] = append(keys[a.Reason], oneLine(a.Key))
	}
	for _, r := range reasons {
		_, err := fmt.Fprintf(w, "left out, %s: %s\n", oneLine(r), firstFew(keys[r]))
		if err != nil {
			return err
		}
	}
	return nil
}

// firstFew returns the first five names and the number of the others.
func firstFew(names []string) string {
	const few = 5
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

func formatShape(shape []int64) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ",")
}

// formatCounts prints "12 BF16, 3 F32", the most frequent first.
func formatCounts(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for i, n := range names {
		names[i] = fmt.Sprintf("%d %s", counts[n], n)
	}
	return strings.Join(names, ", ")
}
