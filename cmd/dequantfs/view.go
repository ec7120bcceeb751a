package main

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
)

// viewFlags are the flags that select a view of a checkpoint. All commands have the same ones, and
// a view has the same bytes in every command.
type viewFlags struct {
	set *pflag.FlagSet // these flags, for commands that pass them on

	layouts          []string
	dtype, cast, mtp string
	ep               string
	include, exclude string
	scales           string
	shardSize        size
	unscaled         bool
	source           sourceFlags

	// every: without --layout all forward layouts are shown, each in a subdirectory. Even a single
	// layout is in a subdirectory, so paths in scripts do not depend on the family.
	every bool
}

// standardLayout is the layout without --layout, unless viewFlags.every is set. Every checkpoint
// has it.
const standardLayout = adapter.LayoutHF

// register adds the flags to a command.
func (v *viewFlags) register(c *cobra.Command) {
	standard := standardLayout
	if v.every {
		standard = "all of the family"
	}
	v.set = pflag.NewFlagSet("view", pflag.ContinueOnError)
	v.set.StringSliceVar(&v.layouts, "layout", nil,
		"`A,B` of "+strings.Join(layoutNames(), ", ")+" (default "+standard+")")
	v.set.StringVar(&v.dtype, "dtype", autoDType, "computed: auto, bf16, f16, f32")
	v.set.StringVar(&v.cast, "cast", "computed", "gets dtype: computed or all")
	v.set.StringVar(&v.ep, "ep", "", "experts of rank `R/N`; all/N: the rest is shared")
	v.set.StringVar(&v.mtp, "mtp", "auto", "MTP layers: auto, keep or drop")
	v.set.StringVar(&v.include, "include", "", "only names that `REGEX` matches at the start")
	v.set.StringVar(&v.exclude, "exclude", "", "leave out names that `REGEX` matches at the start")
	largest := "largest file (default by layer or shard)"
	if v.shardSize > 0 {
		largest = "largest file, 0: by layer or shard"
	}
	v.set.Var(&v.shardSize, "shard-size", largest)
	v.set.StringVar(&v.scales, "scales", "amax", "hf-fp8 only: amax or ones")
	v.set.BoolVar(&v.unscaled, "unscaled", false, "read FP8 that has no scales as plain numbers")
	v.source.register(v.set)
	c.Flags().AddFlagSet(v.set)
	for flag, values := range flagValues() {
		// It fails only for an unknown flag, and these were added above.
		_ = c.RegisterFlagCompletionFunc(flag,
			cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

// flagValues are the values that a shell completes.
func flagValues() map[string][]cobra.Completion {
	return map[string][]cobra.Completion{
		"layout": layoutNames(),
		"dtype":  {autoDType, "bf16", "f16", "f32"},
		"cast":   {adapter.CastComputed, adapter.CastAll},
		"mtp":    {"auto", "keep", "drop"},
		"scales": {"amax", "ones"},
	}
}

// checkLayouts refuses a --layout without a name, and names that are wrong.
func (v *viewFlags) checkLayouts() error {
	if len(v.layouts) == 0 && v.set.Lookup("layout").Changed {
		return noSuchLayout("")
	}
	return checkLayouts(v.layouts)
}

// changed reports whether a flag was given that selects what is shown.
func (v *viewFlags) changed() bool { return len(v.given()) > 0 }

// given are the names of the given flags that select what is shown.
func (v *viewFlags) given() (names []string) {
	v.set.VisitAll(func(f *pflag.Flag) {
		if f.Changed && !isSourceFlag(f.Name) {
			names = append(names, f.Name)
		}
	})
	return names
}

// arguments returns the given flags for another process. They always name the layout, because the
// default differs between commands.
func (v *viewFlags) arguments() []string {
	args := []string{"--layout=" + strings.Join(v.chosen(), ",")}
	v.set.VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Name != "layout" {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// chosen returns the layouts that do not depend on the checkpoint.
func (v *viewFlags) chosen() []string {
	if len(v.layouts) == 0 && !v.every {
		return []string{standardLayout}
	}
	return v.layouts
}

// sayLayout logs the default layout of a command without --layout, and which programs read it.
func (v *viewFlags) sayLayout(log *slog.Logger, c *adapter.Checkpoint) {
	if len(v.layouts) == 0 && !v.every {
		log.Info("layout " + standardLayout + ", for " + readersOf(standardLayout, c) +
			"; --layout names another")
	}
}

// sayReaders logs which programs read each layout of a command that shows one by default. With the
// wrong one, a loader may start with random experts and only a warning.
func (v *viewFlags) sayReaders(log *slog.Logger, c *adapter.Checkpoint) {
	v.sayLayout(log, c)
	for _, layout := range v.layouts {
		log.Info("layout " + layout + ", for " + readersOf(layout, c))
	}
}

// sayNative logs that the layout native has the published names, and which layouts a checkpoint
// lacks. It says nothing about layouts that were not requested.
func (v *viewFlags) sayNative(log *slog.Logger, c *adapter.Checkpoint) {
	if len(v.layouts) > 0 && !slices.Contains(v.layouts, adapter.LayoutNative) {
		return
	}
	native, _ := adapter.LayoutNamed(adapter.LayoutNative)
	if adapter.PublishedNative(c) {
		_, similar := adapter.Unknown(c)
		log.Info("layout native has the published names: " + native.Reference +
			" has no adapter for this model" + didYouMean(similar))
	}
	if why := adapter.Missing(c); why != "" && len(v.layouts) == 0 {
		log.Info(why)
	}
}

// sayDType logs the dtype of computed tensors if no --dtype was given, and where it is from. Codes
// have none. A command that shows one layout says nothing if it was requested.
func (v *viewFlags) sayDType(log *slog.Logger, c *adapter.Checkpoint) {
	if len(v.layouts) > 0 && !v.every || !strings.EqualFold(v.dtype, autoDType) {
		return
	}
	if len(v.layouts) > 0 && !slices.ContainsFunc(v.layouts, isForward) {
		return
	}
	which := "computed"
	if v.cast == adapter.CastAll {
		which = "floating"
	}
	why := "because the configuration names none"
	d, named := c.Config.DType()
	if named {
		why = "as the configuration says"
	}
	log.Info(fmt.Sprintf("%s tensors get dtype %s, %s; --dtype names another", which, d, why))
}

// isForward reports whether a layout has dequantized tensors.
func isForward(layout string) bool {
	l, _ := adapter.LayoutNamed(layout)
	return l.Forward
}

// autoDType is the value of --dtype that leaves the dtype to the source's configuration.
const autoDType = "auto"

// viewDTypes are the values of --dtype, in the spelling of safetensors and in that of torch.
var viewDTypes = map[string]safetensors.DType{
	autoDType: safetensors.Invalid,
	"bf16":    safetensors.BF16, "bfloat16": safetensors.BF16,
	"f16": safetensors.F16, "float16": safetensors.F16, "fp16": safetensors.F16,
	"f32": safetensors.F32, "float32": safetensors.F32, "fp32": safetensors.F32,
}

// request is the checked request of the view flags.
type request struct {
	layouts   []string // none: the forward layouts of the family
	options   adapter.Options
	ranks     []adapter.EP
	allRanks  bool // each in a subdirectory of its own
	shardSize int64
	opening   opening

	// fits is called before so many views are planned. It may be nil.
	fits func(c *adapter.Checkpoint, views int) error
}

// check finds mistakes in the flags before anything is opened, and returns the request.
func (v *viewFlags) check() (*request, error) {
	r := &request{layouts: v.chosen(), shardSize: int64(v.shardSize)}
	r.options = adapter.Options{
		Cast: v.cast, MTP: v.mtp, Scales: v.scales, Unscaled: v.unscaled,
	}
	var err error
	for _, step := range []func(){
		func() { err = v.checkLayouts() },
		func() { err = oneOf("cast", v.cast, adapter.CastComputed, adapter.CastAll) },
		func() { err = oneOf("mtp", v.mtp, adapter.MTPAuto, adapter.MTPKeep, adapter.MTPDrop) },
		func() { err = oneOf("scales", v.scales, adapter.ScalesAmax, adapter.ScalesOnes) },
		func() { r.options.DType, err = parseDType(v.dtype) },
		func() { r.options.Include, err = parsePattern("include", v.include) },
		func() { r.options.Exclude, err = parsePattern("exclude", v.exclude) },
		func() { r.ranks, r.allRanks, err = parseRanks(v.ep) },
		func() { r.opening, err = v.source.check() },
	} {
		if step(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func parseDType(text string) (safetensors.DType, error) {
	d, ok := viewDTypes[strings.ToLower(text)]
	if !ok {
		return d, flagError("dtype", text, "auto, bf16, f16 or f32")
	}
	return d, nil
}

// parsePattern reads a regular expression that has to match at the start of a name, or returns nil.
func parsePattern(flag, text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, nil
	}
	re, err := regexp.Compile(text) // a)|(b is an expression only between our parentheses
	if err == nil {
		re, err = regexp.Compile("^(?:" + text + ")")
	}
	if err != nil {
		err = withHint(fmt.Errorf("--%s: %w", flag, err),
			"write a regular expression as Go's regexp/syntax describes")
		return nil, usageError{err}
	}
	return re, nil
}

// parseRanks reads --ep. It returns the ranks to show, or the zero value of EP for all experts.
func parseRanks(text string) (ranks []adapter.EP, all bool, err error) {
	if text == "" {
		return []adapter.EP{{}}, false, nil
	}
	rank, of, _ := strings.Cut(text, "/")
	n, err := strconv.Atoi(of)
	if err != nil || n < 1 || n > 1<<16 {
		return nil, false, flagError("ep", text, "R/N or all/N, such as 0/8")
	}
	if rank == "all" {
		for i := range n {
			ranks = append(ranks, adapter.EP{Rank: i, Size: n})
		}
		return ranks, true, nil
	}
	r, err := strconv.Atoi(rank)
	if err != nil || r < 0 || r >= n {
		return nil, false, flagError("ep", text,
			fmt.Sprintf("a rank from 0 to %d, or all/%d", n-1, n))
	}
	return []adapter.EP{{Rank: r, Size: n}}, false, nil
}

// views plans the views. Each has its own subdirectory if there may be several.
func (r *request) views(c *adapter.Checkpoint) ([]fs.View, error) {
	layouts := r.layouts
	if len(layouts) == 0 {
		layouts = adapter.Layouts(c)
	}
	if r.fits != nil {
		if err := r.fits(c, countViews(layouts)*len(r.ranks)); err != nil {
			return nil, err
		}
	}
	var views []fs.View
	o := r.options
	for _, o.Layout = range layouts {
		for _, o.EP = range r.ranks {
			p, err := adapter.NewPlan(c, o)
			if err != nil {
				return nil, err
			}
			views = append(views, fs.View{Dir: r.dir(o), Plan: p, ShardSize: r.shardSize})
		}
	}
	return views, nil
}

// countViews counts views by the memory that planning them takes.
func countViews(layouts []string) (n int) {
	for _, name := range layouts {
		l, _ := adapter.LayoutNamed(name) // planning refuses an unknown one
		n += max(1, l.Plans)
	}
	return n
}

// dir returns the subdirectory of a view. "" is the root.
func (r *request) dir(o adapter.Options) string {
	var parts []string
	if len(r.layouts) != 1 {
		parts = append(parts, o.Layout)
	}
	if r.allRanks {
		parts = append(parts, fmt.Sprintf("rank-%d-of-%d", o.EP.Rank, o.EP.Size))
	}
	return strings.Join(parts, "/")
}

// oneOf refuses a value that is not in a list of two or more.
func oneOf(flag, got string, values ...string) error {
	for _, v := range values {
		if got == v {
			return nil
		}
	}
	last := len(values) - 1
	return flagError(flag, got, strings.Join(values[:last], ", ")+" or "+values[last])
}

func flagError(flag, got, want string) error {
	return usageError{fmt.Errorf("--%s %q is not %s", flag, got, want)}
}
