package fs

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

const indexName = singleName + ".index.json"

// required says whether the environment demands that a test with this need runs.
func required(need string) bool {
	list := strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ",")
	return slices.Contains(list, need) || slices.Contains(list, "all")
}

// writeSynth writes a small checkpoint to a directory of its own.
func writeSynth(t testing.TB, o synth.Options) (*synth.Checkpoint, string) {
	t.Helper()
	c := synth.DeepSeek(o)
	dir := t.TempDir()
	if err := c.Write(dir); err != nil {
		t.Fatal(err)
	}
	return c, dir
}

// writeGolden puts the golden checkpoint into a directory of its own.
func writeGolden(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"aligned-hf.safetensors": "model.safetensors",
		"aligned-config.json": "config.json"} {
		data, err := os.ReadFile(filepath.Join("../testdata/golden", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// golden gives the reference's SHA-256 by tensor for a dtype.
func golden(t testing.TB, dtype string) map[string]string {
	t.Helper()
	data, err := os.ReadFile("../testdata/golden/aligned-native-sha256.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string][3]any
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for name, entry := range all[map[string]string{"BF16": "torch.bfloat16/cpu",
		"F16": "torch.float16/cpu", "F32": "torch.float32/cpu"}[dtype]] {
		sums[name] = entry[2].(string)
	}
	return sums
}

// openViews opens a source and lays out a view for each options.
func openViews(t testing.TB, dir string, o Options, views ...View) *FS {
	t.Helper()
	c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return openPlanned(t, c, o, views)
}

// openPlanned lays out views of a checkpoint, and closes both when the test ends.
func openPlanned(t testing.TB, c *adapter.Checkpoint, o Options, views []View) *FS {
	t.Helper()
	o.tuning.Check = true
	f, err := New(c, planned(t, c, views), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		c.Close()
	})
	return f
}

// planned makes the plans of views whose Plan only holds options.
func planned(t testing.TB, c *adapter.Checkpoint, views []View) []View {
	t.Helper()
	views = slices.Clone(views)
	for i := range views {
		p, err := adapter.NewPlan(c, views[i].Plan.Options)
		if err != nil {
			t.Fatal(err)
		}
		views[i].Plan = p
	}
	return views
}

// layout is a view that planned makes.
func layout(dir, layout string, d safetensors.DType) View {
	return View{Dir: dir, Plan: &adapter.Plan{Options: adapter.Options{Layout: layout, DType: d}}}
}

// readTree reads a file of the tree whole.
func readTree(t testing.TB, f *FS, name string) []byte {
	t.Helper()
	r, err := f.ReaderAt(name)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, r.Size())
	if n, err := r.ReadAt(data, 0); n != len(data) || err != nil && err != io.EOF {
		t.Fatalf("%s: %d bytes, %v", name, n, err)
	}
	return data
}

// cutTensors cuts a safetensors file into its tensors.
func cutTensors(t testing.TB, data []byte) map[string][]byte {
	t.Helper()
	h, err := safetensors.ReadHeader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	tensors := map[string][]byte{}
	for _, x := range h.Tensors {
		tensors[x.Name] = data[h.DataOffset+x.Begin : h.DataOffset+x.End]
	}
	return tensors
}

// shardsOf lists the safetensors files of a directory of the tree.
func shardsOf(t testing.TB, f *FS, dir string) (names []string) {
	t.Helper()
	list, err := f.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".safetensors") {
			names = append(names, filepath.ToSlash(filepath.Join(dir, e.Name())))
		}
	}
	return names
}

// logTo keeps a log.
type logTo struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logTo) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(p)
	return len(p), nil
}

func (l *logTo) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
