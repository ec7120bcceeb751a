package export

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
)

// ViewRecord has the options of a view, in a form that can be written to a file.
type ViewRecord struct {
	Dir       string `json:"directory"`
	Layout    string `json:"layout"`
	DType     string `json:"dtype"`
	Rank      int    `json:"ep_rank"`
	Ranks     int    `json:"ep_size"`
	MTP       string `json:"mtp"`
	Include   string `json:"include,omitempty"`
	Exclude   string `json:"exclude,omitempty"`
	Scales    string `json:"scales"`
	Cast      string `json:"cast,omitempty"` // empty: "computed"
	Unscaled  bool   `json:"unscaled,omitempty"`
	ShardSize int64  `json:"shard_size"`
}

// Defaults of the options that a plan may leave empty if [adapter.NewPlan] did not make it.
const (
	defaultDType  = safetensors.BF16
	defaultMTP    = "auto"
	defaultScales = "amax"
)

// RecordView returns the options of a view.
func RecordView(v fs.View) ViewRecord {
	o := v.Plan.Options
	r := ViewRecord{
		Dir: v.Dir, Layout: o.Layout, DType: cmp.Or(o.DType, defaultDType).String(),
		Rank: o.EP.Rank, Ranks: o.EP.Size,
		MTP: cmp.Or(o.MTP, defaultMTP), Scales: cmp.Or(o.Scales, defaultScales),
		Unscaled: o.Unscaled, ShardSize: v.ShardSize,
	}
	if o.Cast != adapter.CastComputed {
		r.Cast = o.Cast
	}
	if o.Include != nil {
		r.Include = o.Include.String()
	}
	if o.Exclude != nil {
		r.Exclude = o.Exclude.String()
	}
	return r
}

// View plans the recorded view for a checkpoint.
func (r ViewRecord) View(c *adapter.Checkpoint) (fs.View, error) {
	d, err := safetensors.ParseDType(r.DType)
	if err != nil {
		return fs.View{}, err
	}
	o := adapter.Options{
		Layout: r.Layout, DType: d, EP: adapter.EP{Rank: r.Rank, Size: r.Ranks},
		MTP: r.MTP, Scales: r.Scales, Cast: r.Cast, Unscaled: r.Unscaled,
	}
	if r.Include != "" {
		if o.Include, err = regexp.Compile(r.Include); err != nil {
			return fs.View{}, err
		}
	}
	if r.Exclude != "" {
		if o.Exclude, err = regexp.Compile(r.Exclude); err != nil {
			return fs.View{}, err
		}
	}
	p, err := adapter.NewPlan(c, o)
	return fs.View{Dir: r.Dir, Plan: p, ShardSize: r.ShardSize}, err
}

// flagsOf returns the flags of the command that ask for these views.
func flagsOf(views []ViewRecord) string {
	all := make([]string, len(views))
	for i, v := range views {
		all[i] = v.flags()
	}
	return strings.Join(all, " and ")
}

// flags returns the flags that ask for this view. Rare flags with their default are left out.
func (r ViewRecord) flags() string {
	s := "--layout " + r.Layout + " --dtype " + strings.ToLower(r.DType)
	for _, f := range []struct {
		given bool
		text  string
	}{
		{r.Cast != "", " --cast " + r.Cast},
		{r.Ranks > 0, fmt.Sprintf(" --ep %d/%d", r.Rank, r.Ranks)},
		{r.MTP != defaultMTP, " --mtp " + r.MTP},
		{r.Include != "", fmt.Sprintf(" --include %q", r.Include)},
		{r.Exclude != "", fmt.Sprintf(" --exclude %q", r.Exclude)},
		{r.Scales != defaultScales, " --scales " + r.Scales},
		{r.Unscaled, " --unscaled"},
		{r.ShardSize > 0, fmt.Sprintf(" --shard-size %dB", r.ShardSize)},
		{r.Dir != "", " in " + r.Dir},
	} {
		if f.given {
			s += f.text
		}
	}
	return s
}

// hasView reports whether a directory of the export is the root of a view.
func (m *Manifest) hasView(dir string) bool {
	return slices.ContainsFunc(m.Views, func(r ViewRecord) bool { return path.Clean(r.Dir) == dir })
}
