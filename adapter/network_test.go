package adapter_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	origin "github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/distant"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// overNetwork opens a checkpoint as if it came over a network.
func overNetwork(t *testing.T, dir string) (*adapter.Checkpoint, *distant.Store) {
	t.Helper()
	s, _, err := origin.Open(dir, origin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := distant.New(s)
	c, err := adapter.OpenStore(t.Context(), store, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, store
}

// Opening a checkpoint with a small tensor beside each weight reads these and the headers, but no
// section with a weight. So does a fingerprint, which is the same for a local checkpoint.
func TestOpeningOverANetworkReadsNoSection(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join("..", "testdata", "golden", "formats", "ct_int4")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vocab.txt"), make([]byte, 1<<20),
		0o644); err != nil {
		t.Fatal(err)
	}
	c, store := overNetwork(t, dir)
	local, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	want, err := local.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Fingerprint(); err != nil || got != want {
		t.Errorf("fingerprint %s, %v; want %s", got, err, want)
	}
	if _, err := c.Probe(t.Context(), 1<<10); err != nil {
		t.Error(err)
	}
	for _, r := range store.Read() {
		if r.Cut {
			t.Errorf("%d bytes of %s are read after it was cut", r.N, r.File)
		}
		if r.File == "vocab.txt" {
			t.Error("a large side file is read")
		}
	}
	read := make([]byte, 100)
	if _, err := c.Tensors()[0].File.ReadAt(t.Context(), read, 0); err != nil {
		t.Fatal(err)
	}
	if all := store.Read(); !all[len(all)-1].Cut {
		t.Error("the files are not cut")
	}
}

// The descriptions of a checkpoint come together, and many headers at once.
func TestOpeningOverANetworkAsksForMuchAtOnce(t *testing.T) {
	dir := t.TempDir()
	if err := synth.DeepSeek(synth.Options{Layers: 12, Shards: 100}).Write(dir); err != nil {
		t.Fatal(err)
	}
	s, _, err := origin.Open(dir, origin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := distant.New(s)
	answer := store.Silence()
	defer answer()
	opened := make(chan error)
	go func() {
		c, err := adapter.OpenStore(t.Context(), store, adapter.OpenOptions{})
		if err == nil {
			err = c.Close()
		}
		opened <- err
	}()
	waitFor(t, "a description is read", func() bool { return store.Traffic().InFlight > 0 })
	var ahead []string
	for _, r := range store.Asked() {
		ahead = append(ahead, r.File)
	}
	if got := strings.Join(ahead, " "); got != "config.json model.safetensors.index.json" {
		t.Errorf("asked for first: %s", got)
	}
	for done := false; !done; {
		answer()
		answer = store.Silence()
		select {
		case err := <-opened:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	if most := store.Traffic().AtOnce; most < 48 {
		t.Errorf("at most %d reads at once", most)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Location names the same shard again.
func TestTheLocationOfAShardOverANetworkIsAnAddress(t *testing.T) {
	dir := t.TempDir()
	if err := synth.DeepSeek(synth.Options{Single: true}).Write(dir); err != nil {
		t.Fatal(err)
	}
	s, _, err := origin.Open(dir, origin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := addressed{distant.New(s)}
	c, err := adapter.OpenStore(t.Context(), store,
		adapter.OpenOptions{Single: "model.safetensors"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.Location(); got != "hf://org/name@0123/model.safetensors" {
		t.Error(got)
	}
}

// addressed is a store with an address.
type addressed struct{ *distant.Store }

func (addressed) Name() string { return "hf://org/name@0123" }
