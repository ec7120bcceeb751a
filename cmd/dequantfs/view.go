package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
)

// viewFlags say which checkpoint is shown. They are the same for every command,
// and a view is the same bytes whichever way it is read.
type viewFlags struct {
	layouts   []string
	dtype     string
	ep        string
	mtp       string
	exclude   string
	scales    string
	shardSize size
	unscaled  bool // FP8 weights without a scale are plain numbers
	follow    bool // symlinks out of the source

	// every says that without --layout all forward layouts are shown, each in its
	// own subdirectory even if there is only one: the paths in a script must not
	// depend on how many layouts a family has.
	every bool

	// fits, if there is one, is asked before so many views are planned.
	fits func(c *adapter.Checkpoint, views int) error
}

// register adds the flags.
func (v *viewFlags) register(c *cobra.Command) {
	standard := adapter.LayoutNative
	if v.every {
		standard = "all that the family has"
	}
	flags := c.Flags()
	known := strings.Join(layoutNames(), ", ")
	flags.StringSliceVar(&v.layouts, "layout", nil, known+", or several: `A,B` (default "+standard+")")
	flags.StringVar(&v.dtype, "dtype", "bf16", "if computed: bf16, f16, f32")
	flags.StringVar(&v.ep, "ep", "", "only experts of rank `R/N`, R from 0; or all/N")
	flags.StringVar(&v.mtp, "mtp", "auto", "MTP layers: auto, keep or drop")
	flags.StringVar(&v.exclude, "exclude", "", "leave out names that `REGEX` matches at the start")
	flags.Var(&v.shardSize, "shard-size", "largest file (default by layer or shard)")
	flags.StringVar(&v.scales, "scales", "amax", "hf-fp8 only: amax or ones")
	flags.BoolVar(&v.unscaled, "unscaled", false, "read FP8 that has no scales as plain numbers")
	flags.BoolVar(&v.follow, "follow-links", false, "follow symlinks that lead out of the source")
	for flag, values := range flagValues {
		// It fails for a flag that is not there only, and these were added above.
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

// flagValues are what a shell may offer.
var flagValues = map[string][]cobra.Completion{
	"layout": layoutNames(),
	"dtype":  {"bf16", "f16", "f32"},
	"mtp":    {"auto", "keep", "drop"},
	"scales": {"amax", "ones"},
}

// viewDTypes are the dtypes that --dtype takes.
var viewDTypes = map[string]safetensors.DType{
	"bf16": safetensors.BF16,
	"f16":  safetensors.F16,
	"f32":  safetensors.F32,
}

// options reads the flags that do not depend on the checkpoint.
func (v *viewFlags) options() (adapter.Options, error) {
	o := adapter.Options{MTP: v.mtp, Scales: v.scales, Unscaled: v.unscaled}
	var ok bool
	if o.DType, ok = viewDTypes[strings.ToLower(v.dtype)]; !ok {
		return o, flagError("dtype", v.dtype, "bf16, f16 or f32")
	}
	if !slices.Contains([]string{"auto", "keep", "drop"}, v.mtp) {
		return o, flagError("mtp", v.mtp, "auto, keep or drop")
	}
	if !slices.Contains([]string{"amax", "ones"}, v.scales) {
		return o, flagError("scales", v.scales, "amax or ones")
	}
	if v.exclude != "" {
		re, err := regexp.Compile("^(?:" + v.exclude + ")")
		if err != nil {
			return o, usageError{withHint(fmt.Errorf("--exclude: %w", err), "it is a regular expression as Go's regexp/syntax describes")}
		}
		o.Exclude = re
	}
	return o, nil
}

// ranks reads --ep: the ranks to show, the zero value of EP for all experts.
func (v *viewFlags) ranks() ([]adapter.EP, error) {
	if v.ep == "" {
		return []adapter.EP{{}}, nil
	}
	rank, of, _ := strings.Cut(v.ep, "/")
	n, err := strconv.Atoi(of)
	if err != nil || n < 1 || n > 1<<16 {
		return nil, flagError("ep", v.ep, "R/N or all/N, such as 0/8")
	}
	if rank == "all" {
		all := make([]adapter.EP, n)
		for i := range all {
			all[i] = adapter.EP{Rank: i, Size: n}
		}
		return all, nil
	}
	r, err := strconv.Atoi(rank)
	if err != nil || r < 0 || r >= n {
		return nil, flagError("ep", v.ep, fmt.Sprintf("a rank from 0 to %d, or all/%d", n-1, n))
	}
	return []adapter.EP{{Rank: r, Size: n}}, nil
}

// check finds mistakes in the flags before anything is opened.
func (v *viewFlags) check() error {
	if _, err := v.options(); err != nil {
		return err
	}
	_, err := v.ranks()
	return err
}

// views plans the views that the flags ask for. Each stands in a subdirectory of
// its own when there may be several.
func (v *viewFlags) views(c *adapter.Checkpoint) ([]fs.View, error) {
	o, err := v.options()
	if err != nil {
		return nil, err
	}
	ranks, err := v.ranks()
	if err != nil {
		return nil, err
	}
	layouts := v.layoutsOf(c)
	if v.fits != nil {
		if err := v.fits(c, countViews(layouts)*len(ranks)); err != nil {
			return nil, err
		}
	}
	var views []fs.View
	for _, o.Layout = range layouts {
		for _, o.EP = range ranks {
			p, err := adapter.NewPlan(c, o)
			if err != nil {
				return nil, err
			}
			views = append(views, fs.View{Dir: v.dir(o), Plan: p, ShardSize: int64(v.shardSize)})
		}
	}
	return views, nil
}

// layoutNames lists the layouts that --layout takes.
func layoutNames() []string {
	var names []string
	for _, l := range adapter.KnownLayouts() {
		names = append(names, l.Name)
	}
	return names
}

// countViews counts views by the memory that planning them takes.
func countViews(layouts []string) (n int) {
	for _, name := range layouts {
		l, _ := adapter.LayoutNamed(name) // planning refuses an unknown one
		n += max(1, l.Plans)
	}
	return n
}

// layoutsOf gives the layouts asked for, or those that stand in for --layout.
func (v *viewFlags) layoutsOf(c *adapter.Checkpoint) []string {
	switch {
	case len(v.layouts) > 0:
		return v.layouts
	case v.every:
		return adapter.Layouts(c)
	}
	return []string{adapter.LayoutNative}
}

// dir names the subdirectory of a view; "" is the root.
func (v *viewFlags) dir(o adapter.Options) string {
	var parts []string
	if len(v.layouts) > 1 || len(v.layouts) == 0 && v.every {
		parts = append(parts, o.Layout)
	}
	if strings.HasPrefix(v.ep, "all/") {
		parts = append(parts, fmt.Sprintf("rank-%d-of-%d", o.EP.Rank, o.EP.Size))
	}
	return strings.Join(parts, "/")
}

func flagError(flag, got, want string) error {
	return usageError{fmt.Errorf("--%s %q is not %s", flag, got, want)}
}
