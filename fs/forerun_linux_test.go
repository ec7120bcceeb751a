package fs

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/size"
	"golang.org/x/sys/unix"
)

func init() { children["loader"] = loadParts }

// loadParts does what it is told to, line by line, and prints the SHA-256 of what it has read:
//
//	map FILE OFFSET N    through a mapping
//	pread FILE OFFSET N  with pread
func loadParts(paths []string) error {
	var files []*os.File
	var maps [][]byte
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return err
		}
		m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		files, maps = append(files, f), append(maps, m)
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var how string
		var i, off, n int
		if _, err := fmt.Sscan(in.Text(), &how, &i, &off, &n); err != nil {
			return err
		}
		p := maps[i][off : off+n]
		if how == "pread" {
			p = make([]byte, n)
			if _, err := files[i].ReadAt(p, int64(off)); err != nil {
				fmt.Println(err)
				continue
			}
		}
		fmt.Printf("%x\n", sha256.Sum256(p))
	}
	return nil
}

// loader is a child that reads shards of a mount.
type loader struct {
	t      *testing.T
	fs     *FS
	shards []string
	in     io.Writer
	out    *bufio.Reader
}

// load mounts a tree and starts a loader of its shards.
func load(t *testing.T, f *FS, o MountOptions) *loader {
	t.Helper()
	_, root := mountFS(t, f, o)
	l := &loader{t: t, fs: f, shards: shardsOf(t, f, ".")}
	var paths []string
	for _, name := range l.shards {
		paths = append(paths, filepath.Join(root, name))
	}
	in, out := converse(t, "loader", paths...)
	l.in, l.out = in, bufio.NewReader(out)
	if got := l.answer(); got != "ready" {
		t.Fatal(got)
	}
	return l
}

func (l *loader) answer() string {
	line, err := l.out.ReadString('\n')
	if err != nil {
		l.t.Fatalf("the loader: %q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

// read makes the loader read a part of a shard, and compares it with what the tree has there.
func (l *loader) read(how string, shard int, off, n int64) {
	l.t.Helper()
	r, err := l.fs.ReaderAt(l.shards[shard])
	if err != nil {
		l.t.Fatal(err)
	}
	n = min(n, r.Size()-off)
	if got := l.do(how, shard, off, n); got != sumOf(l.t, l.fs, l.shards[shard], off, n) {
		l.t.Fatalf("%s, %d bytes at %d: other bytes: %s", l.shards[shard], n, off, got)
	}
}

// do makes the loader read a part of a shard.
func (l *loader) do(how string, shard int, off, n int64) string {
	fmt.Fprintln(l.in, how, shard, off, n)
	return l.answer()
}

// sumOf reads a part of a file without a mount and without the counters of the tree.
func sumOf(t *testing.T, f *FS, name string, off, n int64) string {
	t.Helper()
	p := make([]byte, n)
	file := f.find(name).content.(*file)
	if err := file.fill(&expr.Alone{}, p, off); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(p))
}

// settle waits until the foreruns have done all that they may do now.
func (l *loader) settle() {
	l.t.Helper()
	r := l.fs.ahead.Load()
	eventually(l.t, "the foreruns rest", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.run()
		return r.running == 0 && len(r.reading) == 0
	})
}

func (l *loader) size(shard int) int64 { return l.fs.find(l.shards[shard]).size() }

// plainView is a tree with some shards of some tensors each, which are shown as they are stored.
// Their sizes are odd, so that pages belong to two tensors.
func plainView(t *testing.T, shards, tensors int, n int64, hook func(off int64, n int) error) *FS {
	t.Helper()
	return viewOf(t, shards, tensors, n, "layers.%d.experts.%03d.w", hook)
}

// viewOf is plainView with tensors of these names.
func viewOf(t *testing.T, shards, tensors int, n int64, name string,
	hook func(off int64, n int) error) *FS {
	t.Helper()
	source := &memory{name: "source", size: int64(shards*tensors) * n, hook: hook}
	var list []adapter.Tensor
	for i := range shards * tensors {
		load, err := expr.Load(&expr.Source{Key: "x", File: source, DType: safetensors.U8,
			Offset: int64(i) * n, Shape: []int64{n}})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, adapter.Tensor{
			Name:  fmt.Sprintf(name, i/tensors, i%tensors),
			Group: fmt.Sprint("group ", i/tensors), Node: load,
		})
	}
	return treeOf(t, Options{Workers: 4}, list...)
}

const mib = 1 << 20

// A loader that maps the shards and reads them from the beginning sends few READs, and each byte
// that it reads is right, at marks and ends of files too.
func TestALoaderInTheOrderOfFilesIsRunAheadOf(t *testing.T) {
	f := plainView(t, 3, 7, 10*mib+12345, nil)
	l := load(t, f, MountOptions{})
	l.read("map", 0, 0, 60*mib)
	l.settle()
	if s := f.Stats().Ahead; s.Bytes < firstWindow-2*mib {
		t.Fatalf("%+v", s)
	}
	for shard := range l.shards {
		for off := int64(0); off < l.size(shard); off += 8 * mib {
			l.read("map", shard, off, 8*mib)
			l.settle()
		}
	}
	s := f.Stats()
	t.Logf("%d READs of %d bytes, %+v, source %d, unused %d, held %d", s.Requests, s.Bytes, s.Ahead,
		s.SourceBytes, s.Unused, s.ReadAhead)
	if s.Bytes > f.size/2 || s.Bytes+s.Ahead.Bytes > f.size*105/100 ||
		s.SourceBytes > f.size*105/100 {
		t.Errorf("of %d bytes, readers were given %d, and %d were stored; "+
			"the source was read for %d", f.size, s.Bytes, s.Ahead.Bytes, s.SourceBytes)
	}
	if s.Ahead.Unread > 20*mib || s.Ahead.Errors > 0 {
		t.Errorf("%+v", s.Ahead)
	}
}

// A loader that reads tensors in the order of their keys jumps about in the files.
func TestALoaderInTheOrderOfKeysIsRunAheadOf(t *testing.T) {
	f := viewOf(t, 2, 120, 1*mib+4321, "layers.%d.experts.%d.w", nil)
	l := load(t, f, MountOptions{ReadAhead: 2 * mib})
	keys := inKeys(filesOf(f))
	read := func(parts []shelfPart) {
		for _, p := range parts {
			shard := 0
			for l.shards[shard] != p.file.name {
				shard++
			}
			l.read("map", shard, p.off, p.n)
		}
	}
	read(keys.parts[:16])
	l.settle()
	if s := f.Stats().Ahead; s.Bytes < firstWindow-2*mib {
		t.Fatalf("%+v", s)
	}
	for i := 16; i < len(keys.parts); i += 8 {
		read(keys.parts[i : i+8])
		l.settle()
	}
	s := f.Stats()
	t.Logf("%d READs of %d bytes, %+v, source %d, unused %d, held %d", s.Requests, s.Bytes, s.Ahead,
		s.SourceBytes, s.Unused, s.ReadAhead)
	if s.Bytes > f.size/2 || s.SourceBytes > f.size*105/100 {
		t.Errorf("of %d bytes, readers were given %d, and %d were stored; "+
			"the source was read for %d", f.size, s.Bytes, s.Ahead.Bytes, s.SourceBytes)
	}
}

// filesOf lists the virtual files of a tree.
func filesOf(f *FS) (files []*file) {
	f.eachFile(func(_, _ string, v *file) { files = append(files, v) })
	return files
}

// What is decoded and never read is at most a tenth of what is read, or a window.
func TestLittleIsDecodedThatNobodyReads(t *testing.T) {
	const tensor = 10 * mib
	for name, read := range map[string]func(l *loader){
		"at random": func(l *loader) {
			rng := rand.New(rand.NewPCG(1, 2))
			for range size.Count(200, 3000) {
				n := int64(4096) << rng.IntN(9)
				shard := rng.IntN(len(l.shards))
				l.read([]string{"map", "pread"}[rng.IntN(2)], shard, rng.Int64N(l.size(shard)-n), n)
			}
		},
		"one tensor of each shard": func(l *loader) {
			for shard := range l.shards {
				l.read("map", shard, 3*tensor, tensor)
			}
		},
		"four places": func(l *loader) {
			for off := int64(0); off < 6*tensor; off += mib {
				for i := range int64(4) {
					l.read("map", int(i), i*tensor+off, mib)
				}
			}
		},
		"the beginning": func(l *loader) { l.read("map", 0, 0, 6*tensor) },
	} {
		t.Run(name, func(t *testing.T) {
			f := plainView(t, 4, 12, tensor, nil)
			l := load(t, f, MountOptions{})
			read(l)
			l.settle()
			s := f.Stats()
			readers := int64(1)
			if name == "four places" {
				readers = 4
			}
			most := max(s.Bytes/10, readers*(firstWindow+storeSize))
			if s.Ahead.Unread > most || s.Ahead.Errors > 0 {
				t.Errorf("%+v, at most %d; READs of %d bytes", s.Ahead, most, s.Bytes)
			}
			t.Logf("%+v; READs of %d bytes", s.Ahead, s.Bytes)
			if name != "at random" && name != "one tensor of each shard" && s.Ahead.Bytes == 0 {
				t.Error("nothing was decoded ahead")
			}
		})
	}
}

// Nothing of a mount without foreruns is decoded ahead, and nothing for readers with O_DIRECT.
func TestForerunsCanBeTurnedOff(t *testing.T) {
	f := plainView(t, 1, 10, 10*mib, nil)
	l := load(t, f, MountOptions{Ahead: AheadOff})
	l.read("map", 0, 0, 80*mib)
	if s := f.Stats(); s.Ahead != (AheadStats{}) {
		t.Errorf("%+v", s.Ahead)
	}
}

func TestDirectReadersHaveNoForerun(t *testing.T) {
	f := plainView(t, 1, 10, 10*mib, nil)
	_, root := mountFS(t, f, MountOptions{})
	sumsBy(t, "direct", inMount(t, f, root, "."))
	if s := f.Stats(); s.Ahead.Bytes > 0 {
		t.Errorf("%+v", s.Ahead)
	}
}

// An error of the source ahead of a reader is not its error, until it comes there itself.
func TestAnErrorAheadReachesNobody(t *testing.T) {
	var bad atomic.Bool
	bad.Store(true)
	from := int64(90 * mib)
	f := plainView(t, 1, 15, 10*mib, func(off int64, n int) error {
		if bad.Load() && off+int64(n) > from {
			return unix.EIO
		}
		return nil
	})
	l := load(t, f, MountOptions{ReadAhead: mib})
	for off := int64(0); off < 64*mib; off += mib {
		l.read("pread", 0, off, mib)
		l.settle()
	}
	if s := f.Stats(); s.Ahead.Errors == 0 || s.Errors != 0 {
		t.Errorf("%d errors, %+v", s.Errors, s.Ahead)
	}
	if got := l.do("pread", 0, from+mib, mib); !strings.Contains(got, "input/output error") {
		t.Errorf("a reader of the bad part: %s", got)
	}
	bad.Store(false)
	l.read("pread", 0, 0, l.size(0))
}

// holdNode is a recipe whose reads last until they are given up.
type holdNode struct {
	expr.Node
	held *atomic.Int64
}

func (n holdNode) ReadAt(env expr.Env, _ []byte, _ int64) error {
	n.held.Add(1)
	for env.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	return env.Err()
}

// A source that does not answer ahead of a reader keeps neither readers nor unmounting waiting.
func TestAStallAheadKeepsNobodyWaiting(t *testing.T) {
	var held atomic.Int64
	f := plainView(t, 2, 12, 10*mib, nil)
	for _, v := range filesOf(f)[:1] {
		for _, s := range v.segments[9:] {
			s.node = holdNode{s.node, &held}
		}
	}
	m, root := mountFS(t, f, MountOptions{ReadAhead: mib})
	cmd, _ := start(t, "loader", inMount(t, f, root, ".")...)
	in, _ := cmd.StdinPipe()
	cmd.Stdout = nil
	pipe, _ := cmd.StdoutPipe()
	l := &loader{t: t, fs: f, shards: shardsOf(t, f, "."), in: in, out: bufio.NewReader(pipe)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.answer()
	for off := int64(0); off < 40*mib; off += mib {
		fmt.Fprintln(l.in, "pread", 0, off, mib)
		l.answer()
	}
	eventually(t, "the source holds a forerun", func() bool { return held.Load() > 0 })
	for off := int64(0); off < 64*mib; off += 16 * mib {
		fmt.Fprintln(l.in, "pread", 1, off, mib)
		l.answer()
	}
	in.Close()
	cmd.Wait()
	if err := m.Unmount(false); err != nil {
		t.Fatal(err)
	}
	m.Wait()
}

// Foreruns that store never make a mount busy, and they end with it.
func TestUnmountingWhileForerunsStore(t *testing.T) {
	f := plainView(t, 3, 12, 10*mib, nil)
	rng := rand.New(rand.NewPCG(1, 2))
	for range size.Count(10, 200) {
		m, root := mountFS(t, f, MountOptions{ReadAhead: 4 * mib})
		cmd, _ := start(t, "mmap", inMount(t, f, root, ".")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		least := f.Stats().Bytes + rng.Int64N(100*mib)
		eventually(t, "the reader has come somewhere", func() bool {
			return f.Stats().Bytes > least ||
				f.ahead.Load().stored.Load() > least
		})
		cmd.Process.Kill()
		cmd.Wait()
		if err := m.Unmount(false); err != nil {
			t.Fatal(err)
		}
		m.Wait()
	}
}
