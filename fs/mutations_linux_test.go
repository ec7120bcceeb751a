package fs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/mutate"
	"github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// world is a place of a source, and a kind of reader.
type world struct {
	system string
	root   string // of the file system
	nobody bool   // an unprivileged child reads the tree; else this process reads a mount
	seen   tally
}

// String names the world.
func (w *world) String() string {
	if w.nobody {
		return w.system + ", nobody"
	}
	return w.system + ", owner"
}

// behind returns the real place of the files of the world.
func (w *world) behind() string {
	root, sub := filepath.Split(w.root)
	return filepath.Join(mutate.Behind(filepath.Clean(root)), sub)
}

// tally counts the outcomes of sequences and of reads.
type tally struct {
	sequences int
	// harmless sequences, with a lease and without one
	proven, unproven count
	old, other       int            // reads
	errors           map[string]int // reads, by errno
	unseen           int            // sequences with other bytes, as the README says
}

// count counts harmless sequences, and those of them after which all reads returned the old bytes.
type count struct{ all, kept int }

// add adds the outcomes of reads.
func (t *tally) add(n tally) {
	t.old, t.other = t.old+n.old, t.other+n.other
	if t.errors == nil {
		t.errors = map[string]int{}
	}
	for kind, k := range n.errors {
		t.errors[kind] += k
	}
}

// pieces reads some pieces of the views' files and compares them. With some = 0 it reads them all.
func pieces(rng *rand.Rand, some int, want map[string][]byte,
	read func(name string, p []byte, off int64) error) (t tally) {
	t.errors = map[string]int{}
	names := slices.Sorted(maps.Keys(want))
	one := func(name string, off, n int) {
		p := make([]byte, n)
		switch err := read(name, p, int64(off)); {
		case err != nil:
			t.errors[errnoName(err)]++
		case bytes.Equal(p, want[name][off:off+n]):
			t.old++
		default:
			t.other++
		}
	}
	for range some {
		name := names[rng.IntN(len(names))]
		off := rng.IntN(len(want[name]))
		one(name, off, 1+rng.IntN(min(len(want[name])-off, 16<<10)))
	}
	for _, name := range names {
		for off := 0; some == 0 && off < len(want[name]); off += 64 << 10 {
			one(name, off, min(len(want[name])-off, 64<<10))
		}
	}
	return t
}

// errnoName returns the errno of a mount's error. For an error of the tree it is the errno that a
// mount would return.
func errnoName(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, adapter.ErrChanged):
		errno = unix.ESTALE
	case !errors.As(err, &errno):
		return err.Error()
	}
	return unix.ErrnoName(errno)
}

// watcher holds a source open and reads it.
type watcher interface {
	unseen() []string
	read(seed uint64, some int) (tally, error)
	close() error
}

// bothViews lays out the views that are read.
func bothViews(c *adapter.Checkpoint, log *slog.Logger) (*FS, error) {
	var views []View
	for _, layout := range []string{"native", "hf"} {
		p, err := adapter.NewPlan(c, adapter.Options{Layout: layout})
		if err != nil {
			return nil, err
		}
		views = append(views, View{Dir: layout, Plan: p})
	}
	return New(c, views, Options{Logger: log})
}

// treeWatcher reads the tree of a source that it holds open.
type treeWatcher struct {
	c    *adapter.Checkpoint
	f    *FS
	want map[string][]byte
}

func newTreeWatcher(dir string, want map[string][]byte, log *slog.Logger) (*treeWatcher, error) {
	c, err := adapter.Open(context.Background(), dir, adapter.OpenOptions{})
	if err != nil {
		return nil, err
	}
	f, err := bothViews(c, log)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &treeWatcher{c, f, want}, nil
}

func (w *treeWatcher) unseen() []string { return w.c.Unseen() }

func (w *treeWatcher) read(seed uint64, some int) (tally, error) {
	return pieces(rand.New(rand.NewPCG(seed, 1)), some, w.want,
		func(name string, p []byte, off int64) error {
			r, err := w.f.ReaderAt(name)
			if err == nil {
				_, err = r.ReadAt(p, off)
			}
			if err == io.EOF {
				err = nil
			}
			return err
		}), nil
}

func (w *treeWatcher) close() error { return errors.Join(w.f.Close(), w.c.Close()) }

// mountWatcher reads a mount of a source past the kernel's page cache.
type mountWatcher struct {
	*treeWatcher
	m    *Mount
	at   string
	said *logTo
}

func newMountWatcher(dir, at string, want map[string][]byte) (*mountWatcher, error) {
	said := &logTo{}
	w, err := newTreeWatcher(dir, want, slog.New(slog.NewTextHandler(said, nil)))
	if err != nil {
		return nil, err
	}
	m, err := w.f.Mount(at, MountOptions{})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return &mountWatcher{w, m, at, said}, nil
}

// unseen returns the warnings, and the note about an exchange of blocks, which is not a warning.
func (w *mountWatcher) unseen() (lines []string) {
	for line := range strings.Lines(w.said.String()) {
		level := "level=WARN"
		if strings.Contains(line, source.Exchanged) {
			level = "level=INFO"
		}
		if strings.Contains(line, level) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (w *mountWatcher) read(seed uint64, some int) (tally, error) {
	return pieces(rand.New(rand.NewPCG(seed, 1)), some, w.want,
		func(name string, p []byte, off int64) error {
			return pread(filepath.Join(w.at, name), unix.O_DIRECT, p, off)
		}), nil
}

func (w *mountWatcher) close() error {
	err := w.m.Shutdown(context.Background())
	return errors.Join(err, w.m.Wait(), w.treeWatcher.close())
}

// asked is a request to the unprivileged child: to open a source, or to read from it.
type asked struct {
	Open string
	Seed uint64
	Some int
}

// answered is its answer.
type answered struct {
	Error      string
	Unseen     []string
	Old, Other int
	Errors     map[string]int
}

func init() { children["nobody"] = watchAsNobody }

// watchAsNobody is the unprivileged child. It reads the expected views from its first source.
func watchAsNobody(paths []string) error {
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534),
		syscall.Setuid(65534)); err != nil {
		return err
	}
	want, err := wholeViews(paths[0])
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var w *treeWatcher
	for {
		var q asked
		if err := in.Decode(&q); err != nil {
			return nil // the test has ended
		}
		var a answered
		if q.Open != "" {
			if w != nil {
				err = w.close()
			}
			if err == nil {
				w, err = newTreeWatcher(q.Open, want, nil)
			}
			if err != nil {
				return err
			}
			a.Unseen = w.unseen()
		} else {
			t, _ := w.read(q.Seed, q.Some)
			a.Old, a.Other, a.Errors = t.old, t.other, t.errors
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// wholeViews reads all files of the views of a source.
func wholeViews(dir string) (map[string][]byte, error) {
	w, err := newTreeWatcher(dir, nil, nil)
	if err != nil {
		return nil, err
	}
	defer w.close()
	want := map[string][]byte{}
	for _, view := range []string{"native", "hf"} {
		list, err := w.f.ReadDir(view)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			name := view + "/" + e.Name()
			if !strings.HasSuffix(name, ".safetensors") {
				continue
			}
			r, err := w.f.ReaderAt(name)
			if err != nil {
				return nil, err
			}
			if want[name], err = io.ReadAll(io.NewSectionReader(r, 0, r.Size())); err != nil {
				return nil, err
			}
		}
	}
	return want, nil
}

// nobodyWatcher is a source that the child holds open.
type nobodyWatcher struct {
	child *nobodyChild
	lines []string
}

// nobodyChild is the parent's end of the child.
type nobodyChild struct {
	enc *json.Encoder
	dec *json.Decoder
}

func startNobody(t *testing.T, pristine string) *nobodyChild {
	t.Helper()
	in, out := converse(t, "nobody", pristine)
	return &nobodyChild{json.NewEncoder(in), json.NewDecoder(out)}
}

func (c *nobodyChild) ask(q asked) (a answered, err error) {
	return a, errors.Join(c.enc.Encode(q), c.dec.Decode(&a))
}

func (c *nobodyChild) open(dir string) (*nobodyWatcher, error) {
	a, err := c.ask(asked{Open: dir})
	return &nobodyWatcher{c, a.Unseen}, err
}

func (w *nobodyWatcher) unseen() []string { return w.lines }

func (w *nobodyWatcher) read(seed uint64, some int) (tally, error) {
	a, err := w.child.ask(asked{Seed: seed, Some: some})
	return tally{old: a.Old, other: a.Other, errors: a.Errors}, err
}

func (w *nobodyWatcher) close() error { return nil } // when it opens the next one

// sequence is a sequence of mutations of a source.
type sequence struct {
	number uint64
	early  string // present before it is opened
	ops    []mutate.Op
	quiet  bool // the time of modification is restored after each of them
	behind bool // they happen at the file's real place
	beside bool // it is also read meanwhile
}

// String describes it.
func (s sequence) String() string {
	var names []string
	for _, o := range s.ops {
		names = append(names, fmt.Sprintf("%s at %d", o.Name, o.Off))
	}
	return fmt.Sprintf("sequence %d: first %q, then %s; quiet %v, behind %v, read meanwhile %v",
		s.number, s.early, strings.Join(names, ", "), s.quiet, s.behind, s.beside)
}

// newSequence makes up to four mutations of a file of a size.
func newSequence(seed, number uint64, size int64) sequence {
	rng := rand.New(rand.NewPCG(seed, number))
	s := sequence{number: number, beside: rng.IntN(4) == 0, behind: rng.IntN(4) == 0,
		quiet: rng.IntN(2) == 0}
	if rng.IntN(3) == 0 {
		s.early = mutate.Early[1+rng.IntN(len(mutate.Early)-1)]
	}
	// mutations that are hard to see are listed more often
	names := append(slices.Sorted(maps.Keys(mutate.Mutations)), "mapped store", "mapped store")
	// without this, sequences of only harmless ones would be rare
	if rng.IntN(3) == 0 {
		s.behind = false
		names = slices.DeleteFunc(names, func(n string) bool {
			return !mutate.Mutations[n].Harmless
		})
	}
	if s.behind { // an overlay does not expect that names of its layers change
		names = slices.DeleteFunc(names, func(n string) bool {
			return mutate.Mutations[n].Harmless
		})
	}
	pages := size/4096 - 1 // all but the last, which is not whole
	for range 1 + rng.IntN(4) {
		at := rng.Int64N(pages)
		n := 1 + rng.Int64N(min(pages-at, 16))
		s.ops = append(s.ops, mutate.Op{Name: names[rng.IntN(len(names))], Off: at * 4096,
			Len: n * 4096})
	}
	return s
}

// has reports whether a mutation is in the sequence.
func (s sequence) has(name string) bool {
	return slices.ContainsFunc(s.ops, func(o mutate.Op) bool { return o.Name == name })
}

// harmless reports whether no mutation touches bytes.
func (s sequence) harmless() bool {
	return !slices.ContainsFunc(s.ops, func(o mutate.Op) bool {
		return !mutate.Mutations[o.Name].Harmless
	})
}

// leased reports whether the reader holds a lease.
func (w *world) leased(s sequence) bool {
	return !w.nobody && s.early == "" && !strings.Contains(w.system, "overlay") &&
		w.system != "fuse"
}

// excused reports whether one of the mutations is listed in the README as unnoticed.
func (w *world) excused(s sequence) bool {
	if late, ok := mutate.UnseenMeanwhile[w.system]; ok && !w.leased(s) && s.beside && s.has(late) {
		return true
	}
	if s.behind && s.has("exchange blocks") && !w.leased(s) {
		return true // which leaves the times there unchanged
	}
	name, ok := mutate.Unseen[w.system]
	return ok && !w.leased(s) && s.has(name) &&
		(w.system != "volatile overlay" || s.early == "dirty mapping")
}

// mutations is the test.
type mutations struct {
	*testing.T
	shard, config []byte
	want          map[string][]byte
	child         *mutate.Child
	other         *nobodyChild
	at            string // a mountpoint
}

// place writes the source.
func (m *mutations) place(dir string) (shard string, err error) {
	shard = filepath.Join(dir, singleName)
	return shard, errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(shard, m.shard, 0o644),
		os.WriteFile(filepath.Join(dir, "config.json"), m.config, 0o644))
}

func (m *mutations) open(w *world, dir string) (watcher, error) {
	if w.nobody {
		return m.other.open(dir)
	}
	return newMountWatcher(dir, m.at, m.want)
}

// run applies a sequence and returns what was wrong with the reads.
func (m *mutations) run(w *world, s sequence) (got tally, err error) {
	dir := filepath.Join(w.root, fmt.Sprint("source", s.number))
	shard, err := m.place(dir)
	if err != nil {
		return got, err
	}
	if s.behind {
		shard = filepath.Join(w.behind(), filepath.Base(dir), singleName)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := m.child.Begin(shard, s.early); err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, m.child.End()) }()
	r, err := m.open(w, dir)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	warned := !w.leased(s) && w.system != "btrfs"
	if lines := r.unseen(); len(lines) > 1 || (len(lines) == 1) != warned {
		return got, fmt.Errorf("warned with %q", lines)
	}
	end := m.readBeside(w, s, r, &got)
	defer end()
	for i, o := range s.ops {
		t, err := r.read(s.number+uint64(i), i%2*4)
		if err != nil {
			return got, err
		}
		got.add(t)
		_ = m.child.Do(o) // an impossible mutation changes nothing
		if s.quiet {
			_ = m.child.Do(mutate.Op{Name: "utimens"})
		}
	}
	end()
	t, err := r.read(0, 0)
	got.add(t)
	return got, err
}

// readBeside reads while mutations happen, until end is called.
func (m *mutations) readBeside(w *world, s sequence, r watcher, got *tally) (end func()) {
	if !s.beside || w.nobody { // that reader answers one question at a time
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan tally)
	go func() {
		var sum tally
		for i := uint64(0); ; i++ {
			select {
			case <-done:
				ended <- sum
				return
			default:
				t, _ := r.read(i, 2)
				sum.add(t)
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(done)
		got.add(<-ended)
	})
}

// judge compares the reads with the promise.
func (w *world) judge(s sequence, got tally) error {
	w.seen.sequences++
	w.seen.add(got)
	failed := 0
	for kind, n := range got.errors {
		failed += n
		if kind != "ESTALE" && w.system != "fuse" {
			return fmt.Errorf("reads failed with %s", kind)
		}
	}
	if got.other > 0 {
		if !w.excused(s) {
			return fmt.Errorf("%d reads gave other bytes", got.other)
		}
		w.seen.unseen++
	}
	if !s.harmless() {
		return nil
	}
	c := &w.seen.unproven
	if w.leased(s) {
		c = &w.seen.proven
	}
	c.all++
	if failed == 0 {
		c.kept++
	} else if w.leased(s) {
		return fmt.Errorf("%d reads failed although nothing has touched the bytes", failed)
	}
	return nil
}

// newWorlds makes file systems. Each is read by this user and by an unprivileged one.
func newWorlds(t *testing.T) (all []*world) {
	t.Helper()
	for _, system := range mutate.Systems {
		root, end, err := system.Mount(openTemp(t))
		if err != nil {
			if required("filesystems") {
				t.Fatal(err)
			}
			t.Logf("left out: no %s here: %v", system.Name, err)
			continue
		}
		t.Cleanup(func() {
			if err := end(); err != nil {
				t.Error(err)
			}
		})
		for _, nobody := range []bool{false, true} {
			sub := filepath.Join(root, map[bool]string{false: "owner", true: "nobody"}[nobody])
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			all = append(all, &world{system: system.Name, root: sub, nobody: nobody})
		}
	}
	if len(all) == 0 {
		t.Skip("no file system can be made")
	}
	return all
}

// openTemp makes a directory that every user may enter.
func openTemp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestMutationsOfASourceAreSeen mutates sources at random on every file system while they are
// mounted. Each read returns the old bytes or an errno, except for the changes that the README
// lists as unnoticed. If a lease shows that no bytes were touched, reads must not fail.
func TestMutationsOfASourceAreSeen(t *testing.T) {
	needFUSE(t)
	seed, count := size.Seeds(t)[0], size.Count(300, 10_000)
	all := newWorlds(t)
	m := newMutations(t) // its children end before the file systems
	for i := range uint64(count) {
		w, s := all[i%uint64(len(all))], newSequence(seed, i, int64(len(m.shard)))
		got, err := m.run(w, s)
		if err == nil {
			err = w.judge(s, got)
		}
		if err != nil {
			t.Errorf("%s: seed %d: %s: %v", w, seed, s, err)
		}
	}
	t.Logf("%d sequences of seed %d\n%s", count, seed, report(all))
}

// newMutations makes the source and the children.
func newMutations(t *testing.T) *mutations {
	t.Helper()
	pristine := openTemp(t)
	c := synth.DeepSeek(synth.Options{Layers: 2, Experts: 2, Hidden: 128, ExpertIntermediate: 96,
		DenseIntermediate: 128, Vocab: 64, Single: true})
	if err := c.Write(pristine); err != nil {
		t.Fatal(err)
	}
	m := &mutations{T: t, at: t.TempDir()}
	var err error
	if m.shard, err = os.ReadFile(filepath.Join(pristine, singleName)); err != nil {
		t.Fatal(err)
	}
	if m.config, err = os.ReadFile(filepath.Join(pristine, "config.json")); err != nil {
		t.Fatal(err)
	}
	if m.want, err = wholeViews(pristine); err != nil {
		t.Fatal(err)
	}
	if m.child, err = mutate.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.child.Close(); err != nil {
			t.Error(err)
		}
	})
	m.other = startNobody(t, pristine)
	return m
}

// report is a table of the outcomes of the sequences.
func report(all []*world) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w,
		"source\tsequences\tharmless: leased\tothers\tunseen\told reads\tother reads\terrors\t")
	for _, x := range all {
		t := x.seen
		fmt.Fprintf(w, "%s\t%d\t%d of %d\t%d of %d\t%d\t%d\t%d\t%v\t\n", x, t.sequences,
			t.proven.kept, t.proven.all, t.unproven.kept, t.unproven.all,
			t.unseen, t.old, t.other, t.errors)
	}
	w.Flush()
	return b.String()
}
