package adapter

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// sample is a published checkpoint.
type sample struct {
	open func(t *testing.T) *Checkpoint

	// refused are words of the error with which one layout is refused, if the sample lacks what it
	// needs.
	refused map[string]string
}

// layouts lists the layouts of the opened sample. Those that are refused are tried and left out.
func (s sample) layouts(t *testing.T, c *Checkpoint) []string {
	t.Helper()
	return slices.DeleteFunc(Layouts(c), func(layout string) bool {
		words, ok := s.refused[layout]
		if !ok {
			return false
		}
		if _, err := NewPlan(c, Options{Layout: layout}); err == nil ||
			!strings.Contains(err.Error(), words) {
			t.Errorf("%s: error %v does not say %q", layout, err, words)
		}
		return true
	})
}

// noHeads is the defect of samples of Kimi-K2.5 that were made for other layouts.
var noHeads = map[string]string{
	LayoutTransformers: "vision_config has no num_attention_heads",
}

// refusedViews are the views that samples lack.
var refusedViews = map[string]map[string]string{
	"formats/kimi_k25_int4":        noHeads,
	"formats/trap_stale_config":    noHeads,
	"families/torchtitan/kimi_k25": noHeads,
}

// publishedSamples are published checkpoints, by name: the listings with random contents, the
// goldens of the families, and those of the formats. Together they have every view of every row.
func publishedSamples(t *testing.T) map[string]sample {
	t.Helper()
	all := map[string]sample{}
	for name := range listed {
		all["listed/"+name] = sample{open: func(t *testing.T) *Checkpoint {
			return opened(t, asPublished(randomListed(t, name)))
		}}
	}
	for _, pattern := range []string{"formats/*", "families/[nt]*/*"} {
		dirs, err := filepath.Glob("../testdata/golden/" + pattern)
		if err != nil || len(dirs) < 50 {
			t.Fatalf("%s: %d goldens, %v", pattern, len(dirs), err)
		}
		for _, dir := range dirs {
			name, _ := strings.CutPrefix(filepath.ToSlash(dir), "../testdata/golden/")
			open := func(t *testing.T) *Checkpoint { return openedAt(t, dir) }
			all[name] = sample{open, refusedViews[name]}
		}
	}
	return all
}

// Every view of every row has a sample, so that it is tested.
func TestEveryViewHasASample(t *testing.T) {
	seen := map[string]bool{}
	for name, sample := range publishedSamples(t) {
		t.Run(name, func(t *testing.T) {
			c := sample.open(t)
			f := familyOf(c.Config.fields())
			if f == nil {
				return
			}
			for _, v := range f.views {
				seen[fmt.Sprint(f.name, v.layout, v.types)] = true
			}
		})
	}
	for _, f := range families {
		for _, v := range f.views {
			if !seen[fmt.Sprint(f.name, v.layout, v.types)] {
				t.Errorf("%s, %s: no sample of %q", f.name, v.layout, v.types)
			}
		}
	}
}

// asPublished changes what a listing has and no published checkpoint: values behind the decays of
// the heads of Kimi-K3, and a head of Qwen 3.5 below "model.".
func asPublished(s *synth.Checkpoint) *synth.Checkpoint {
	for i := range s.Tensors {
		x := &s.Tensors[i]
		if strings.HasSuffix(x.Name, ".self_attn.A_log") && x.Shape[0] == 128 {
			clear(x.Data[3*4:])
		}
		if tail, ok := strings.CutPrefix(x.Name, "model.lm_head."); ok {
			x.Name = "lm_head." + tail
		}
	}
	return s
}

// storedLayouts keeps the layouts in which checkpoints are also saved.
func storedLayouts(all []string) (names []string) {
	for _, name := range all {
		if l, _ := layoutNamed(name); l.stored {
			names = append(names, name)
		}
	}
	return names
}

// Why the published checkpoint cannot be computed back from a view. There is no other reason.
const (
	drops      = "it drops tensors"
	injects    = "it shows tensors that the source has not, or one under two names"
	multiplies = "it multiplies tensors"
	reorders   = "it has the rows of shards in order, as the reference saves them"
)

// noInverse lists the views, by row and layout, that the published checkpoint cannot be computed
// back from, and why.
var noInverse = map[string][]string{
	"mistral4_vl native":          {injects},
	"qwen2_5_omni native":         {drops},
	"qwen2_5_omni_thinker native": {drops},
	"qwen3_8_flash_next native":   {drops},
	"diffusion_gemma native":      {multiplies},
	"gemma4 native":               {multiplies},
	"hunyuan_image3 native":       {drops},
	"mimo_v25 native":             {reorders},
	"mimo_v2_6 native":            {reorders},
}

// A view is saved and shown as published. That must be what the published checkpoint itself shows,
// and the view of it must be the saved one.
func TestEveryViewGoesBack(t *testing.T) {
	t.Parallel()
	found := map[string][]string{}
	for name, sample := range publishedSamples(t) {
		t.Run(name, func(t *testing.T) {
			c := sample.open(t)
			all := sample.layouts(t, c)
			for _, layout := range storedLayouts(all) {
				t.Run(layout, func(t *testing.T) {
					key := familyOf(c.Config.fields()).name + " " + layout
					found[key] = append(found[key], goBack(t, c, layout)...)
				})
			}
		})
	}
	for key, reasons := range found {
		slices.Sort(reasons)
		if reasons = slices.Compact(reasons); !slices.Equal(reasons, noInverse[key]) {
			t.Errorf("%s: %q, listed as %q", key, reasons, noInverse[key])
		}
	}
	for key := range noInverse {
		if _, ok := found[key]; !ok {
			t.Errorf("%s: listed, but no sample has that view", key)
		}
	}
}

// goBack saves a view of a published checkpoint and compares what the save shows. It returns why
// the save does not show all that the checkpoint does.
func goBack(t *testing.T, c *Checkpoint, layout string) (reasons []string) {
	t.Helper()
	view := dict(t, c, Options{Layout: layout, MTP: MTPKeep})
	saved := saved(t, view)
	if _, err := NewPlan(saved, Options{Layout: LayoutHF}); errors.Is(err, errNoInverse) {
		return []string{multiplies}
	}
	again := Options{Layout: layout, MTP: MTPKeep}
	equal(t, dict(t, saved, again), tensorsOf(t, view))

	for _, name := range publishedLayoutsOf(c) {
		o := Options{Layout: name, MTP: MTPKeep, Cast: CastAll}
		want, got := dict(t, c, o), dict(t, saved, o)
		reasons = append(reasons, wantShownAgain(t, view, want, got)...)
		if len(reasons) == 0 {
			o.Cast = CastComputed
			equal(t, dict(t, resaved(t, saved, o), again), tensorsOf(t, view))
		}
	}
	return reasons
}

// publishedLayoutsOf lists the layouts with published names that a save is compared in. Rows that
// are published both ways, grouped and split, show a save grouped in layout hf. So hf is left out
// if the checkpoint is split.
func publishedLayoutsOf(c *Checkpoint) []string {
	k := familyOf(c.Config.fields()).expertKeys()
	isSplit := func(x *Stored) bool {
		_, ok := k.splitExpert(locate(x.Key).rest)
		return ok
	}
	switch {
	case k == nil, k.whole != "":
		return []string{LayoutHF}
	case k.groupsAndSplits() && slices.ContainsFunc(c.Tensors(), isSplit):
		return []string{LayoutSplit}
	}
	return []string{LayoutHF, LayoutSplit}
}

// saved is a checkpoint that holds exactly what a view shows.
func saved(t *testing.T, d *StateDict) *Checkpoint {
	t.Helper()
	config, err := parseSettings(d.Plan.Config)
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, &synth.Checkpoint{Config: config, Tensors: tensorsOf(t, d)})
}

// resaved saves a view of a checkpoint.
func resaved(t *testing.T, c *Checkpoint, o Options) *Checkpoint {
	t.Helper()
	return saved(t, dict(t, c, o))
}

// wantShownAgain compares two views with published names: of a checkpoint, and of a save of a view
// of it. It returns why the second lacks tensors or has others besides.
func wantShownAgain(t *testing.T, view, want, got *StateDict) (reasons []string) {
	t.Helper()
	dropped := map[string]bool{}
	for _, a := range view.Plan.Account {
		dropped[a.Key] = a.Fate == Dropped
	}
	for l := range want.All() {
		g, ok := got.Tensor(l.Name())
		switch {
		case !ok && droppedAll(dropped, want.Plan, l.Name()):
			reasons = append(reasons, drops)
		case !ok:
			t.Errorf("%s: missing, though the view drops nothing of it", l.Name())
		case g.DType() != l.DType() || !slices.Equal(g.Shape(), l.Shape()):
			t.Errorf("%s: %s %v, want %s %v", l.Name(), g.DType(), g.Shape(), l.DType(), l.Shape())
		case bytes.Equal(content(t, g), content(t, l)):
		case strings.HasSuffix(l.Name(), mimoFused) && sameRows(content(t, g), content(t, l), l):
			reasons = append(reasons, reorders)
		default:
			t.Errorf("%s: other bytes", l.Name())
		}
	}
	for l := range got.All() {
		if _, ok := want.Tensor(l.Name()); ok {
			continue
		}
		if !isMade(view.Plan, got.Plan, l.Name()) {
			t.Errorf("%s: not expected", l.Name())
		}
		reasons = append(reasons, injects)
	}
	return reasons
}

// sameRows reports whether two contents of a matrix have the same rows in some order.
func sameRows(a, b []byte, l *Lazy) bool {
	size := len(a) / int(l.Shape()[0])
	sorted := func(all []byte) [][]byte {
		return slices.SortedFunc(slices.Chunk(all, size), bytes.Compare)
	}
	return slices.EqualFunc(sorted(a), sorted(b), bytes.Equal)
}

// droppedAll reports whether all keys that a published tensor is made of are dropped by a view.
func droppedAll(dropped map[string]bool, published *Plan, name string) bool {
	for _, key := range madeOf(published, name) {
		if !dropped[key] {
			return false
		}
	}
	return true
}

// madeOf lists the keys that a tensor of a plan is made of.
func madeOf(p *Plan, name string) (keys []string) {
	for _, a := range p.Account {
		if slices.Contains(a.Into, name) {
			keys = append(keys, a.Key)
		}
	}
	return keys
}

// isMade reports whether a tensor that the save of a view shows comes from one that the view made
// of nothing, or of a key that it shows elsewhere too.
func isMade(view, back *Plan, name string) bool {
	for _, key := range madeOf(back, name) {
		from := madeOf(view, key)
		elsewhere := func(k string) bool {
			i := slices.IndexFunc(view.Account, func(a Account) bool { return a.Key == k })
			return len(view.Account[i].Into) > 1
		}
		if slices.ContainsFunc(from, elsewhere) == (len(from) == 0) {
			return false
		}
	}
	return true
}

// Each layout of a save is that of the published checkpoint, if nothing is lost on the way.
func TestEveryViewShowsTheOthers(t *testing.T) {
	t.Parallel()
	for name, sample := range publishedSamples(t) {
		t.Run(name, func(t *testing.T) {
			c := sample.open(t)
			all := sample.layouts(t, c)
			for _, layout := range storedLayouts(all) {
				if noInverse[familyOf(c.Config.fields()).name+" "+layout] != nil {
					continue
				}
				saved := resaved(t, c, Options{Layout: layout, MTP: MTPKeep})
				for _, other := range all {
					if l, _ := layoutNamed(other); l.published {
						continue // see TestEveryViewGoesBack
					}
					o := Options{Layout: other, MTP: MTPKeep, Cast: CastAll}
					t.Run(layout+" "+other, func(t *testing.T) {
						equal(t, dict(t, saved, o), tensorsOf(t, dict(t, c, o)))
					})
				}
			}
		})
	}
}
