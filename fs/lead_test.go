package fs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/distant"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// overNetwork opens views of a checkpoint as if it came over a network.
func overNetwork(t *testing.T, dir string, o Options, views ...View) (*FS, *distant.Store) {
	t.Helper()
	local, _, err := source.Open(dir, source.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := distant.New(local)
	c, err := adapter.OpenStore(t.Context(), store, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f := openPlanned(t, c, o, views)
	store.Forget()
	return f, store
}

// large is a checkpoint with some megabytes in each of several files.
var large = synth.Options{Hidden: 1024, ExpertIntermediate: 512, DenseIntermediate: 2048, Layers: 4,
	Experts: 8, Shards: 4}

// readThrough reads a file of the tree from its beginning to its end in pieces, as the kernel does.
func readThrough(t *testing.T, f *FS, name string, each func(off int64)) {
	t.Helper()
	r, err := f.ReaderAt(name)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 128<<10)
	for off := int64(0); off < r.Size(); off += int64(len(p)) {
		if _, err := r.ReadAt(p, off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if each != nil {
			each(off)
		}
	}
}

// union joins spans that touch or overlap.
func union(spans []distant.Span) (joined []distant.Span) {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b distant.Span) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Off, b.Off))
	})
	for _, s := range spans {
		if n := len(joined) - 1; n >= 0 && joined[n].File == s.File &&
			s.Off <= joined[n].Off+joined[n].N {
			joined[n].N = max(joined[n].N, s.Off+s.N-joined[n].Off)
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// total adds up the bytes of spans.
func total(spans []distant.Span) (n int64) {
	for _, s := range spans {
		n += s.N
	}
	return n
}

// A stream asks for what it will need and for nothing else, and goes on into the files that follow.
func TestAStreamAsksForTheViewAheadOverANetwork(t *testing.T) {
	_, dir := writeSynth(t, large)
	for _, view := range []View{
		layout("", adapter.LayoutHF, safetensors.BF16),
		layout("", adapter.LayoutNative, safetensors.BF16),
		{Plan: &adapter.Plan{Options: adapter.Options{Layout: adapter.LayoutNative,
			DType: safetensors.BF16, EP: adapter.EP{Rank: 1, Size: 4}}}},
		{Plan: &adapter.Plan{Options: adapter.Options{Layout: adapter.LayoutHF,
			DType: safetensors.F32, EP: adapter.EP{Rank: 1, Size: 4}}}},
	} {
		wantAskedAhead(t, dir, ".", view)
	}
	for _, of := range []string{adapter.LayoutHF, adapter.LayoutNative} {
		// the experts and the shared files of one rank, and no experts of another
		wantAskedAhead(t, dir, rankDir(of, 2), ranks(of, safetensors.BF16, 4)...)
	}
}

// wantAskedAhead reads a directory of some views over a network, and checks what is asked for.
func wantAskedAhead(t *testing.T, dir, read string, views ...View) {
	t.Helper()
	of := views[0].Plan.Options.Layout
	// Read all of the view first, to know what it needs.
	f, store := overNetwork(t, dir, Options{}, views...)
	store.Ahead = 0
	names := shardsOf(t, f, read)
	for _, name := range names {
		readThrough(t, f, name, nil)
	}
	if n := len(store.Asked()); n != 0 {
		t.Fatalf("%d ranges are asked for at distance 0", n)
	}
	needed := store.Read()

	f, store = overNetwork(t, dir, Options{}, views...)
	first := 0
	for i, name := range names {
		readThrough(t, f, name, func(int64) {
			if i == 0 {
				first = len(store.Asked())
			}
		})
	}
	asked := store.Asked()
	all, need := total(union(asked)), total(union(needed))
	if n := total(union(slices.Concat(asked, needed))); n != need {
		t.Errorf("%s: %d bytes are asked for that are not needed", of,
			n-need)
	}
	if all*10 < need*8 {
		t.Errorf("%s: %d of %d bytes are asked for ahead", of, all, need)
	}
	if sum := total(asked); sum > all+all/20 {
		t.Errorf("%s: %d bytes are asked for in ranges of %d", of, all,
			sum)
	}
	if len(names) > 1 && first == 0 {
		t.Errorf("%s: nothing is asked for in the first file", of)
	}
}

// What is asked for and not read is not much more than the distance.
func TestAStreamKeepsItsDistance(t *testing.T) {
	_, dir := writeSynth(t, large)
	f, store := overNetwork(t, dir, Options{}, layout("", adapter.LayoutHF, safetensors.BF16))
	store.Ahead = 4 << 20
	const window = 1 << regionShift // of the view
	names := shardsOf(t, f, ".")
	if len(names) < 2 {
		t.Fatal(names)
	}
	for i, name := range names {
		readThrough(t, f, name, func(off int64) {
			var ahead int64
			read := map[string]int64{}
			for _, s := range store.Read() {
				read[s.File] = max(read[s.File], s.Off+s.N)
			}
			for _, s := range store.Asked() {
				if s.Off+s.N > read[s.File] {
					ahead += s.N
				}
			}
			if ahead > store.Ahead+window {
				t.Fatalf("%s: at %d, %d bytes are asked for ahead", name, off, ahead)
			}
		})
		if i == 0 {
			store.Forget()
		}
	}
}

// A store without room is asked again when the stream has gone on.
func TestAStreamGoesOnWhenThereIsRoom(t *testing.T) {
	_, dir := writeSynth(t, large)
	f, store := overNetwork(t, dir, Options{}, layout("", adapter.LayoutHF, safetensors.BF16))
	store.Room = 2 << 20
	for _, name := range shardsOf(t, f, ".") {
		readThrough(t, f, name, nil)
	}
	asked, read := total(union(store.Asked())), total(union(store.Read()))
	if asked*2 < read {
		t.Errorf("%d bytes of %d are asked for", asked, read)
	}
}

func TestRandomReadersAskForNothingAhead(t *testing.T) {
	_, dir := writeSynth(t, large)
	f, store := overNetwork(t, dir, Options{}, layout("", adapter.LayoutHF, safetensors.BF16))
	rng := rand.New(rand.NewPCG(7, 7))
	for _, name := range shardsOf(t, f, ".") {
		r, err := f.ReaderAt(name)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4096)
		for range 50 {
			if _, err := r.ReadAt(p, rng.Int64N(r.Size())); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
	}
	for _, s := range store.Asked() {
		t.Errorf("asked for %d bytes of %s", s.N, s.File)
	}
}

// The reader of one file does not fetch another one from its first bytes on.
func TestOnlyAStreamThatHasReadMostOfItsFileGoesOn(t *testing.T) {
	_, dir := writeSynth(t, large)
	f, store := overNetwork(t, dir, Options{}, layout("", adapter.LayoutHF, safetensors.BF16))
	names := shardsOf(t, f, ".")
	r, err := f.ReaderAt(names[0])
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 128<<10)
	for off := int64(0); off < r.Size()/3; off += int64(len(p)) {
		if _, err := r.ReadAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	inFirst := map[string]bool{}
	f.eachFile(func(_, _ string, v *file) {
		if v.name == names[0] {
			v.ranges(0, v.Size(), func(s source.File, _, _ int64) bool {
				inFirst[s.Name()] = true
				return true
			})
		}
	})
	for _, s := range store.Asked() {
		if !inFirst[s.File] {
			t.Errorf("%s is asked for", s.File)
		}
	}
	if len(store.Asked()) == 0 {
		t.Error("nothing is asked for")
	}
}

// The bytes over a network are those of the local folder.
func TestOverANetworkTheTreeIsTheSame(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Shards: 3, MTP: 1})
	views := []View{layout("hf", adapter.LayoutHF, safetensors.BF16),
		layout("native", adapter.LayoutNative, safetensors.F32)}
	far, _ := overNetwork(t, dir, Options{}, views...)
	near := openViews(t, dir, Options{}, views...)
	err := iofs.WalkDir(near, ".", func(name string, d iofs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !bytes.Equal(readTree(t, near, name),
			readTree(t, far, name)) {
			t.Errorf("%s differs", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A server that has stopped answering does not keep the tree from closing. Its readers get an
// error.
func TestCloseDoesNotWaitForASilentServer(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Shards: 2})
	for _, l := range []string{adapter.LayoutHF, adapter.LayoutNative, adapter.LayoutHFFP8} {
		f, store := overNetwork(t, dir, Options{}, layout("", l, safetensors.BF16))
		names := slices.DeleteFunc(shardsOf(t, f, "."), func(name string) bool {
			return !strings.HasSuffix(name, ".safetensors")
		})
		defer store.Silence()()
		ended := make(chan error)
		contexts := []context.Context{context.Background(), t.Context(), polled{t.Context()}}
		for _, ctx := range contexts {
			go func() {
				r, err := f.ReaderAt(names[0])
				if err == nil {
					_, err = r.ReadAtContext(ctx, make([]byte, r.Size()), 0)
				}
				ended <- err
			}()
		}
		eventually(t, "the server is asked", func() bool { return store.Traffic().InFlight > 0 })
		closed := make(chan error)
		go func() { closed <- f.Close() }()
		for range contexts {
			if err := <-ended; !errors.Is(err, ErrClosed) {
				t.Errorf("%s: a reader got %v", l, err)
			}
		}
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: Close waits", l)
		}
	}
}

// polled is a context without a channel, as that of a request of the kernel.
type polled struct{ context.Context }

func (polled) Done() <-chan struct{} { return nil }
