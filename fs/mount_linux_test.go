package fs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs/mounts"
	"github.com/dequantfs/dequantfs/testdata/mutate"
	"github.com/dequantfs/dequantfs/testdata/synth"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a reader of mounts. It has to be a separate process, since a
// process that faults on its own mount can deadlock.
const childEnv = "DEQUANTFS_TEST_CHILD"

func TestMain(m *testing.M) {
	if mutate.IsChild() {
		if err := mutate.Serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if how := os.Getenv(childEnv); how != "" {
		if err := child(how, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ways are the ways in which a child reads files whole.
var ways = map[string]func(path string) ([]byte, error){
	"pread": os.ReadFile, "mmap": readMapped, "direct": readDirect,
}

// child prints the SHA-256 of each tensor of the safetensors files as JSON.
func child(how string, paths []string) error {
	read, ok := ways[how]
	if !ok {
		return children[how](paths)
	}
	sums := map[string]string{}
	for _, path := range paths {
		data, err := read(path)
		if err != nil {
			return err
		}
		h, err := safetensors.ReadHeader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return err
		}
		for _, x := range h.Tensors {
			sum := sha256.Sum256(data[h.DataOffset+x.Begin : h.DataOffset+x.End])
			sums[x.Name] = hex.EncodeToString(sum[:])
		}
	}
	return json.NewEncoder(os.Stdout).Encode(sums)
}

// children are other tasks for a child.
var children = map[string]func([]string) error{
	"hold":   holdFile,
	"random": readRandomly,
	"cached": printCached,
}

func readMapped(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(m)
	return bytes.Clone(m), nil
}

func readDirect(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	var all []byte
	for {
		n, err := unix.Pread(fd, buf, int64(len(all)))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return all, err
		}
		all = append(all, buf[:n]...)
	}
}

// holdFile opens a file, reports that, and keeps it open until its input ends.
func holdFile(paths []string) error {
	f, err := os.Open(paths[0])
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Println("open")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// readersEach is the number of readers in one child.
const readersEach = 50

// readRandomly reads ranges of the files in a mount for a while, in 50 goroutines. It compares them
// with the files of the same names in a folder, and prints the number of ranges. Its arguments are
// the duration, the mount and the folder.
func readRandomly(args []string) error {
	length, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	want, err := readFolder(args[2])
	if err != nil {
		return err
	}
	// A reader that waits for a page of a mapping keeps a processor, so each reader needs one. The
	// mount has the processors that GOMAXPROCS gives it.
	runtime.GOMAXPROCS(readersEach)
	var ranges atomic.Int64
	errs, end := make(chan error), time.Now().Add(length)
	for g := range readersEach {
		rng := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(g)))
		go func() { errs <- readRanges(args[1], want, end, &ranges, rng) }()
	}
	for range readersEach {
		err = errors.Join(err, <-errs)
	}
	fmt.Println(ranges.Load())
	return err
}

// readFolder reads all files below a folder.
func readFolder(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	return files, err
}

// readRanges visits one file after the other until the end, but at least one.
func readRanges(root string, want map[string][]byte, end time.Time, ranges *atomic.Int64,
	rng *rand.Rand) error {
	names := slices.Sorted(maps.Keys(want))
	for more := true; more; more = time.Now().Before(end) {
		name := names[rng.IntN(len(names))]
		if err := visit(filepath.Join(root, name), want[name], ranges, rng); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// visit opens a file, reads 20 ranges of it in every way, and closes it. First it drops the
// kernel's pages of the file, so that reads still reach the mount.
func visit(path string, want []byte, ranges *atomic.Int64, rng *rand.Rand) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	direct, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer direct.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return err
	}
	for range 20 {
		off := rng.IntN(len(want))
		// both small and large ranges
		buf := make([]byte, min(1+rng.IntN(1<<(8+rng.IntN(11))), len(want)-off))
		switch rng.IntN(3) {
		case 0:
			_, err = f.ReadAt(buf, int64(off))
		case 1:
			_, err = direct.ReadAt(buf, int64(off))
		case 2:
			err = copyMapped(f, buf, int64(off))
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(buf, want[off:][:len(buf)]) {
			return fmt.Errorf("[%d, %d) is wrong", off, off+len(buf))
		}
		ranges.Add(1)
	}
	return nil
}

// copyMapped reads a range out of a mapping of it.
func copyMapped(f *os.File, p []byte, off int64) error {
	first := off &^ 4095
	m, err := unix.Mmap(int(f.Fd()), first, int(off-first)+len(p), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(p, m[off-first:])
	return unix.Munmap(m)
}

// start runs a child.
func start(t *testing.T, how string, paths ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], paths...)
	cmd.Env = append(os.Environ(), childEnv+"="+how)
	cmd.Stderr = os.Stderr
	var out bytes.Buffer
	cmd.Stdout = &out
	return cmd, &out
}

// sumsBy reads files in a child.
func sumsBy(t *testing.T, how string, paths []string) map[string]string {
	t.Helper()
	cmd, out := start(t, how, paths...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v", how, err)
	}
	var sums map[string]string
	if err := json.Unmarshal(out.Bytes(), &sums); err != nil {
		t.Fatal(err)
	}
	return sums
}

// needFUSE skips a test if there is no FUSE, unless FUSE is required.
func needFUSE(t testing.TB) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if required("fuse") {
			t.Fatal(err)
		}
		t.Skipf("no FUSE: %v", err)
	}
	unix.Close(fd)
}

// mountFS mounts a tree at a new place until the test ends.
func mountFS(t testing.TB, f *FS, o MountOptions) (*Mount, string) {
	t.Helper()
	needFUSE(t)
	dir := t.TempDir()
	m, err := f.Mount(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		detach(dir)
		m.Wait()
	})
	return m, dir
}

// inMount returns the paths of a view's shards in a mount.
func inMount(t *testing.T, f *FS, root, dir string) (paths []string) {
	for _, name := range shardsOf(t, f, dir) {
		paths = append(paths, filepath.Join(root, name))
	}
	return paths
}

func wantEqualSums(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d tensors, want %d", what, len(got), len(want))
	}
	for name, sum := range want {
		if got[name] != sum {
			t.Errorf("%s: %s differs", what, name)
		}
	}
}

func TestMountedTensorsEqualTheGoldens(t *testing.T) {
	dir := writeGolden(t)
	f := openViews(t, dir, Options{}, layout("bf16", "native", dtypes["BF16"]),
		layout("f16", "native", dtypes["F16"]), layout("f32", "native", dtypes["F32"]))
	for how := range ways {
		t.Run(how, func(t *testing.T) {
			_, root := mountFS(t, f, MountOptions{})
			for name := range dtypes {
				view := strings.ToLower(name)
				wantEqualSums(t, name, sumsBy(t, how, inMount(t, f, root, view)), golden(t, name))
			}
		})
	}
}

func TestOneReadsWhileManyDo(t *testing.T) {
	_, dir := writeSynth(t, awkward[0])
	f := openViews(t, dir, Options{CacheSize: 64 << 10}, layout("native", "native", 0),
		layout("hf", "hf", 0))
	_, root := mountFS(t, f, MountOptions{})
	want := map[string]map[string]string{}
	for _, view := range []string{"native", "hf"} {
		want[view] = map[string]string{}
		for _, name := range shardsOf(t, f, view) {
			for key, data := range cutTensors(t, readTree(t, f, name)) {
				sum := sha256.Sum256(data)
				want[view][key] = hex.EncodeToString(sum[:])
			}
		}
	}
	var wg sync.WaitGroup
	for i := range 17 {
		wg.Go(func() {
			view := []string{"native", "hf"}[i%2]
			how := []string{"pread", "mmap", "direct"}[i%3]
			cmd, out := start(t, how, inMount(t, f, root, view)...)
			if err := cmd.Run(); err != nil {
				t.Errorf("%s of %s: %v", how, view, err)
				return
			}
			var got map[string]string
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Error(err)
			}
			wantEqualSums(t, how+" of "+view, got, want[view])
		})
	}
	wg.Wait()
	eventually(t, "nothing is in use", func() bool {
		s := f.Stats()
		return s.Active == 0 && s.Pinned == 0 && s.Filling == 0 && s.Waiting == 0 &&
			s.OpenFiles == 0
	})
}

// The kernel may evict pages between two passes. READs are excused only for pages that the kernel
// counts as evicted and wanted again. One of ten tries must need no excuse.
func TestASecondPassSendsNoRead(t *testing.T) {
	f := openViews(t, writeGolden(t), Options{}, layout("", "native", 0))
	_, root := mountFS(t, f, MountOptions{})
	paths := inMount(t, f, root, ".")
	first := sumsBy(t, "pread", paths)
	if f.Stats().Requests == 0 {
		t.Error("the first pass sent no READ")
	}
	for range 10 {
		before, gone := f.Stats().Requests, evicted(t)
		for _, how := range []string{"pread", "mmap"} {
			wantEqualSums(t, how, sumsBy(t, how, paths), first)
		}
		again := f.Stats().Requests - before
		if again == 0 {
			return
		}
		eventually(t, fmt.Sprintf("the kernel counts %d pages that it had evicted and wanted again",
			again), func() bool {
			return evicted(t)-gone >= again
		})
		t.Logf("the kernel had evicted pages, and %d READs were sent for them", again)
	}
	t.Error("READs were sent in each of ten later passes")
}

// needHelper skips a test that needs fusermount3 where it is not installed.
func needHelper(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("fusermount3"); err != nil {
		if required("fuse") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func TestUnmounting(t *testing.T) {
	run := func(name string, args ...string) error { return exec.Command(name, args...).Run() }
	for name, unmount := range map[string]func(m *Mount, dir string) error{
		"umount":      func(_ *Mount, dir string) error { return run("umount", dir) },
		"fusermount3": func(_ *Mount, dir string) error { return run("fusermount3", "-u", dir) },
		"Unmount":     func(m *Mount, _ string) error { return m.Unmount(false) },
		"lazily":      func(m *Mount, _ string) error { return m.Unmount(true) },
		"Shutdown":    func(m *Mount, _ string) error { return m.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "fusermount3" {
				needHelper(t)
			}
			f := openViews(t, writeGolden(t), Options{}, layout("", "native", 0))
			m, dir := mountFS(t, f, MountOptions{})
			if _, err := os.Stat(filepath.Join(dir, "config.json")); err != nil {
				t.Fatal(err)
			}
			if err := unmount(m, dir); err != nil {
				t.Fatal(err)
			}
			m.Wait()
			if m, found, _ := mounts.Top(dir); found {
				t.Errorf("still mounted: %s", m.Type)
			}
			if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
				t.Errorf("left behind: %v, %v", list, err)
			}
		})
	}
}

func TestShutdownDetachesAMountInUse(t *testing.T) {
	f := openViews(t, writeGolden(t), Options{}, layout("", "native", 0))
	m, dir := mountFS(t, f, MountOptions{})
	cmd, _ := start(t, "hold", filepath.Join(dir, "config.json"))
	cmd.Stdout = nil
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if _, found, _ := mounts.Top(dir); found {
		t.Error("still mounted")
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	m.Wait() // the mount ends when the last file is closed
}

func TestMountpointsThatAreRefused(t *testing.T) {
	needFUSE(t)
	source := writeGolden(t)
	inside := filepath.Join(source, "mnt")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	f := openViews(t, source, Options{}, layout("", "native", 0))
	_, mounted := mountFS(t, f, MountOptions{})
	for dir, want := range map[string]error{
		inside: ErrOverlaps, source: ErrOverlaps, filepath.Dir(source): ErrOverlaps, mounted: ErrMounted,
		filepath.Join(source, "absent"): os.ErrNotExist,
	} {
		if m, err := f.Mount(dir, MountOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", dir, err, want)
			if m != nil {
				m.Unmount(true)
			}
		}
	}
}

func TestADeadMountIsCleaned(t *testing.T) {
	needFUSE(t)
	f := openViews(t, writeGolden(t), Options{}, layout("", "native", 0))
	dir := t.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.Mount("dead", dir, "fuse.dequantfs", 0,
		fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd))
	unix.Close(fd) // no request is ever answered
	if err != nil {
		t.Skipf("cannot mount by hand: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("the mount is not dead: %v", err)
	}
	m, err := f.Mount(dir, MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "config.json")); err != nil {
		t.Error(err)
	}
	if err := m.Unmount(false); err != nil {
		t.Error(err)
	}
	if m, found, _ := mounts.Top(dir); found {
		t.Errorf("still mounted: %s", m.Type)
	}
}

func TestTheMountIsReadOnly(t *testing.T) {
	f := openViews(t, writeGolden(t), Options{}, layout("", "native", 0))
	_, root := mountFS(t, f, MountOptions{})
	name := filepath.Join(root, "config.json")
	for what, err := range map[string]error{
		"create": func() error { _, err := os.Create(filepath.Join(root, "new")); return err }(),
		"write":  func() error { _, err := os.OpenFile(name, os.O_WRONLY, 0); return err }(),
		"remove": os.Remove(name),
		"rename": os.Rename(name, name+"2"),
		"chmod":  os.Chmod(name, 0o777),
		"mkdir":  os.Mkdir(filepath.Join(root, "dir"), 0o755),
		"trunc":  os.Truncate(name, 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAttributes(t *testing.T) {
	source := writeGolden(t)
	old := time.Unix(1_700_000_000, 0)
	for name, mode := range map[string]os.FileMode{"model.safetensors": 0o640,
		"tokenizer.json": 0o600} {
		path := filepath.Join(source, name)
		if name != "model.safetensors" {
			if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.Chmod(path, mode), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	f := openViews(t, source, Options{}, layout("", "native", 0))
	uid, gid := uint32(12), uint32(34)
	_, root := mountFS(t, f, MountOptions{UID: &uid, GID: &gid})
	var inos [2]map[string]uint64
	for pass := range inos {
		inos[pass] = map[string]uint64{}
		for name, mode := range map[string]uint32{"model.safetensors": 0o100440,
			"tokenizer.json": 0o100400, "config.json": 0o100440, ".": 0o40555} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(root, name), &st); err != nil {
				t.Fatal(err)
			}
			if st.Mode != mode || st.Nlink != 1 || st.Uid != uid || st.Gid != gid ||
				st.Blocks == 0 || st.Mtim.Sec != old.Unix() {
				t.Errorf("%s: %+v", name, st)
			}
			inos[pass][name] = st.Ino
		}
		if pass == 0 { // another mount of the same source
			_, root = mountFS(t, openViews(t, source, Options{}, layout("", "native", 0)),
				MountOptions{UID: &uid, GID: &gid})
		}
	}
	if fmt.Sprint(inos[0]) != fmt.Sprint(inos[1]) {
		t.Errorf("inode numbers change: %v, %v", inos[0], inos[1])
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil || st.Bsize != 4096 || st.Blocks == 0 ||
		st.Namelen != 255 {
		t.Errorf("statfs: %+v, %v", st, err)
	}
}

func TestTheKernelReadsAhead(t *testing.T) {
	f := openViews(t, writeGolden(t), Options{}, layout("", "native", 0))
	for want, o := range map[string]MountOptions{"16384": {}, "1024": {ReadAhead: 1 << 20}} {
		_, root := mountFS(t, f, o)
		m, _, _ := mounts.Top(root)
		got, err := os.ReadFile("/sys/class/bdi/" + m.Device + "/read_ahead_kb")
		if err != nil || os.Geteuid() != 0 {
			t.Skipf("not to be seen here: %v", err)
		}
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("%s KiB, want %s", got, want)
		}
	}
}

func TestErrorsBecomeErrnos(t *testing.T) {
	log := &logTo{}
	_, dir := writeSynth(t, awkward[1])
	f := openViews(t, dir, Options{Logger: slog.New(slog.NewTextHandler(log, nil))},
		layout("", "native", 0))
	_, root := mountFS(t, f, MountOptions{})
	names, _ := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	for _, name := range names { // a source that changes
		if err := os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	path := inMount(t, f, root, ".")[0]
	for range 3 {
		if _, err := readDirect(path); !errors.Is(err, unix.ESTALE) {
			t.Errorf("got %v", err)
		}
	}
	if n := strings.Count(log.String(), "read failed"); n == 0 || n > 3 {
		t.Errorf("logged %d times: %s", n, log)
	}
	if n := f.Stats().ErrorKinds["ESTALE"]; n == 0 {
		t.Error("not counted")
	}
}

// The kernel may evict pages that it has read ahead before they are read, and then asks for them
// again. It does so when memory is short, or when DAMON takes new pages for idle ones. At this
// small budget their units may be gone by then.
//
// So the bound is for a pass in which nothing was asked for twice, or in which the source was read
// once all the same. In other passes, only evicted pages may be asked for again.
func TestSequentialReadingThroughTheMountReadsTheSourceOnce(t *testing.T) {
	for range 10 {
		f, source := layerFS(t, deepSeek, Options{CacheSize: smallBudget})
		m, root := mountFS(t, f, MountOptions{})
		size := f.find(singleName).size()
		before := evicted(t)
		if out, err := exec.Command("cat", filepath.Join(root, singleName)).Output(); err != nil ||
			int64(len(out)) != size {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
		if err := m.Unmount(true); err != nil {
			t.Fatal(err)
		}
		m.Wait()
		s := f.Stats()
		if s.Bytes == size || s.SourceBytes*100 <= source.size*105 {
			wantOnce(t, f, source)
			return
		}
		again := (s.Bytes - size) / int64(os.Getpagesize())
		eventually(t, fmt.Sprintf("the kernel counts %d pages that it had evicted and wanted again",
			again), func() bool {
			return evicted(t)-before >= again
		})
		t.Logf("the kernel had evicted %d pages; %d bytes were read of a source of %d", again,
			s.SourceBytes, source.size)
		f.Close()
	}
	t.Fatal("in each of ten passes the source was read again for pages that the kernel evicted")
}

// evicted counts the pages, of all files, that were wanted again after the kernel had evicted them.
// The number is up to a second old.
func evicted(t *testing.T) (n int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if _, err := fmt.Sscanf(line, "workingset_refault_file %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("/proc/vmstat has no workingset_refault_file")
	return 0
}

func TestControlFilesOfAMount(t *testing.T) {
	f := openViews(t, writeGolden(t), Options{}, layout("", "native", 0))
	_, root := mountFS(t, f, MountOptions{})
	for _, name := range []string{"stats.json", "plan.json", "report.json"} {
		data, err := os.ReadFile(filepath.Join(root, ControlDir, name))
		if err != nil || !json.Valid(data) {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
	if list, err := os.ReadDir(root); err != nil || len(list) != 2 {
		t.Errorf("listed: %v, %v", list, err)
	}
}

// stalledScalesFS is a tree with a quantized matrix and its scales. Its source does not answer
// before it is released.
func stalledScalesFS(t *testing.T) (f *FS, name string, release func()) {
	t.Helper()
	hold := make(chan struct{})
	source := &memory{name: "bad", size: 2 * 512 * 512, hook: func(int64, int) error {
		<-hold
		return nil
	}}
	load, err := expr.Load(&expr.Source{Key: "w", File: source, DType: safetensors.BF16,
		Shape: []int64{512, 512}})
	if err != nil {
		t.Fatal(err)
	}
	codes, scales, err := expr.Quantize(load, expr.QuantizeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f = treeOf(t, Options{}, adapter.Tensor{Name: "w", Node: codes},
		adapter.Tensor{Name: "w_scale_inv", Node: scales})
	release = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	return f, shardsOf(t, f, ".")[0], release
}

func TestAKilledReaderIsLetGo(t *testing.T) {
	for what, open := range map[string]func(*testing.T) (*FS, string, func()){
		"a unit": func(t *testing.T) (*FS, string, func()) {
			f, names, release := stalledFS(t,
				expertShape{experts: 4, hidden: 256, intermediate: 256}, Options{})
			return f, names[1], release
		},
		"computed scales": stalledScalesFS,
	} {
		t.Run(what, func(t *testing.T) {
			f, name, release := open(t)
			_, root := mountFS(t, f, MountOptions{})
			cmd, _ := start(t, "direct", filepath.Join(root, name))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it waits", func() bool { return f.Stats().Waiting > 0 })
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait() // it dies although the source does not answer
			eventually(t, "no reader waits", func() bool { return f.Stats().Waiting == 0 })
			other := make(chan map[string]string)
			go func() { other <- sumsBy(t, "direct", []string{filepath.Join(root, name)}) }()
			eventually(t, "another waits", func() bool { return f.Stats().Waiting > 0 })
			release()
			wantEqualSums(t, "after the kill", <-other, sumsOf(t, f, name))
			wantIdle(t, f)
		})
	}
}

// sumsOf computes the sums that a child would print for a file.
func sumsOf(t *testing.T, f *FS, name string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for key, data := range cutTensors(t, readTree(t, f, name)) {
		sum := sha256.Sum256(data)
		sums[key] = hex.EncodeToString(sum[:])
	}
	return sums
}

func TestSignalsThatAReaderHandlesDoNotFailItsReads(t *testing.T) {
	x := expertShape{experts: 4, hidden: 256, intermediate: 256}
	for _, how := range []string{"direct", "mmap", "pread"} {
		f, names, release := stalledFS(t, x, Options{})
		_, root := mountFS(t, f, MountOptions{})
		cmd, out := start(t, how, filepath.Join(root, names[1]))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it waits", func() bool { return f.Stats().Waiting > 0 })
		for range 20 {
			cmd.Process.Signal(unix.SIGURG) // Go preempts goroutines by this signal
			time.Sleep(time.Millisecond)
		}
		release()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		var got map[string]string
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		wantEqualSums(t, how, got, sumsOf(t, f, names[1]))
	}
}

// panicking is content that cannot be read.
type panicking struct{ *file }

func (panicking) ReadAtContext(context.Context, []byte, int64) (int, error) {
	panic("in the handler")
}

func TestAPanicInAHandlerIsAnErrno(t *testing.T) {
	log := &logTo{}
	f := openViews(t, writeGolden(t), Options{Logger: slog.New(slog.NewTextHandler(log, nil))},
		layout("a", "native", 0), layout("b", "native", 0))
	n := f.find("a/" + singleName)
	n.content = panicking{n.content.(*file)}
	_, root := mountFS(t, f, MountOptions{})
	if _, err := readDirect(filepath.Join(root, "a", singleName)); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	if got := log.String(); !strings.Contains(got, "in the handler") ||
		!strings.Contains(got, "panicking") {
		t.Errorf("log: %s", got)
	}
	wantEqualSums(t, "the mount lives",
		sumsBy(t, "mmap", []string{filepath.Join(root, "b", singleName)}), golden(t, "BF16"))
}

func TestMountOfADescriptor(t *testing.T) {
	needFUSE(t)
	f := openViews(t, writeGolden(t), Options{}, layout("", "native", 0))
	dir := t.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.Mount("given", dir, "fuse.dequantfs", 0,
		fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd))
	if err != nil {
		t.Skipf("cannot mount by hand: %v", err)
	}
	m, err := f.Mount(fmt.Sprintf("/dev/fd/%d", fd), MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantEqualSums(t, "given", sumsBy(t, "mmap", inMount(t, f, dir, ".")), golden(t, "BF16"))
	if err := detach(dir); err != nil {
		t.Fatal(err)
	}
	m.Wait()
}

// descriptors counts the open descriptors of the process.
func descriptors() int {
	list, _ := os.ReadDir("/proc/self/fd")
	return len(list)
}

func TestNothingIsLeftBehind(t *testing.T) {
	needFUSE(t)
	source := writeGolden(t)
	use := func() {
		f := openViews(t, source, Options{}, layout("", "native", 0))
		m, root := mountFS(t, f, MountOptions{})
		sumsBy(t, "pread", inMount(t, f, root, "."))
		if err := m.Unmount(false); err != nil {
			t.Error(err)
		}
		f.Close()
		f.checkpoint.Close()
	}
	use() // fill the pools
	goroutines, open := runtime.NumGoroutine(), descriptors()
	for range 5 {
		use()
	}
	eventually(t, "goroutines and descriptors are gone", func() bool {
		return runtime.NumGoroutine() <= goroutines && descriptors() <= open
	})
}

// readersFor is how long TestTwoHundredReadersLeaveNothing reads: go test ./fs -args -readers 60s
var readersFor = flag.Duration("readers", 2*time.Second, "how long two hundred readers read")

// writeWhole writes the shards of views to a new folder.
func writeWhole(t *testing.T, f *FS, views ...string) string {
	t.Helper()
	whole := t.TempDir()
	for _, view := range views {
		for _, name := range shardsOf(t, f, view) {
			path := filepath.Join(whole, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700),
				os.WriteFile(path, readTree(t, f, name), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return whole
}

// readByTwoHundred reads a mount in children and returns how many ranges they have compared.
func readByTwoHundred(t *testing.T, root, whole string) int64 {
	t.Helper()
	var ranges atomic.Int64
	var wg sync.WaitGroup
	for range 200 / readersEach {
		wg.Go(func() {
			cmd, out := start(t, "random", readersFor.String(), root, whole)
			err := cmd.Run()
			n, _ := strconv.ParseInt(strings.TrimSpace(out.String()), 10, 64)
			ranges.Add(n)
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return ranges.Load()
}

// moreReaders is how many goroutines go-fuse may add after the start. At most that many wait for
// requests, besides one that always does.
func moreReaders() int { return min(max(runtime.GOMAXPROCS(0), 2), 16) }

// The sources are real files, so leaked descriptors show. The cache holds only five of their units.
func TestTwoHundredReadersLeaveNothing(t *testing.T) {
	o := synth.Options{Layers: 2, Experts: 6, Hidden: 512, ExpertIntermediate: 384, Shards: 3}
	_, source := writeSynth(t, o)
	f := openViews(t, source, Options{CacheSize: 5 * o.Hidden * o.ExpertIntermediate},
		layout("native", "native", 0), layout("hf", "hf", 0))
	whole := writeWhole(t, f, "native", "hf")
	_, root := mountFS(t, f, MountOptions{})
	wantIdle(t, f)
	before, goroutines, open := f.Stats(), runtime.NumGoroutine(), descriptors()
	ranges := readByTwoHundred(t, root, whole)
	wantIdle(t, f)
	// go-fuse has one descriptor from the beginning. It opens no pipes, since splicing is off. A
	// shard gets a second descriptor when it is first read past the page cache.
	eventually(t,
		"all is closed, and all goroutines but those of go-fuse that wait for requests are gone",
		func() bool {
			return f.Stats().OpenFiles == 0 && descriptors() <= open+o.Shards &&
				runtime.NumGoroutine() <= goroutines+moreReaders()
		})
	after := f.Stats()
	requests, fills, read := after.Requests-before.Requests, after.Fills-before.Fills,
		after.SourceBytes-before.SourceBytes
	t.Logf("%d ranges in %v: %d requests, %d fills, %d bytes of the source", ranges, *readersFor,
		requests, fills, read)
	if ranges < 200*20 || requests < 200 || fills == 0 || read == 0 {
		t.Error("the mount was asked for too little to show anything")
	}
}
