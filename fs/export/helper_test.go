package export

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// required reports whether the environment demands that a test with this need runs.
func required(need string) bool {
	list := strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ",")
	return slices.Contains(list, need) || slices.Contains(list, "all")
}

// writeSource writes a small checkpoint to a directory of its own.
func writeSource(t testing.TB, o synth.Options) string {
	t.Helper()
	dir := t.TempDir()
	if err := synth.DeepSeek(o).Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// layout is a view that openViews plans.
func layout(dir, layout string, d safetensors.DType) fs.View {
	o := adapter.Options{Layout: layout, DType: d}
	return fs.View{Dir: dir, Plan: &adapter.Plan{Options: o}}
}

// openViews opens a source and plans views whose Plan has only options.
func openViews(t testing.TB, dir string, views ...fs.View) *fs.FS {
	t.Helper()
	c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	views = slices.Clone(views)
	for i := range views {
		if views[i].Plan, err = adapter.NewPlan(c, views[i].Plan.Options); err != nil {
			t.Fatal(err)
		}
	}
	f, err := fs.New(c, views, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// mentions reports whether there is an error, and it contains all these texts.
func mentions(err error, texts ...string) bool {
	return err != nil && !slices.ContainsFunc(texts, func(text string) bool {
		return !strings.Contains(err.Error(), text)
	})
}
