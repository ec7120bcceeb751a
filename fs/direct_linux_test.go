package fs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directFS is a tree with two views of several shards, whose cache is small.
func directFS(t *testing.T) *FS {
	t.Helper()
	_, dir := writeSynth(t, awkward[0])
	return openViews(t, dir, Options{CacheSize: 64 << 10}, layout("native", "native", 0),
		layout("hf", "hf", 0))
}

// Ranges are read by pread, O_DIRECT and shared mappings, and whole files privately mapped.
func TestADirectMountShowsTheSameBytes(t *testing.T) {
	f := directFS(t)
	whole := writeWhole(t, f, "native", "hf")
	m, root := mountFS(t, f, MountOptions{Direct: true})
	if !m.Maps() {
		t.Skip("this kernel does not map such files")
	}
	cmd, out := start(t, "random", "1s", root, whole)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s ranges", strings.TrimSpace(out.String()))
	for _, view := range []string{"native", "hf"} {
		for _, name := range shardsOf(t, f, view) {
			want := sumsOf(t, f, name)
			for how := range ways {
				wantEqualSums(t, how, sumsBy(t, how, []string{filepath.Join(root, name)}), want)
			}
		}
	}
	wantIdle(t, f)
}

// A file is mapped before it is read, since mapping it drops its pages.
func printCached(paths []string) error {
	cached := map[string]float64{}
	for _, path := range paths {
		share, err := cachedAfterReading(path)
		if err != nil {
			return err
		}
		cached[filepath.Base(path)] = share
	}
	return json.NewEncoder(os.Stdout).Encode(cached)
}

// cachedAfterReading reads a file and returns which share of its pages are in the page cache then.
func cachedAfterReading(path string) (float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(m)
	if data, err := os.ReadFile(path); err != nil || int64(len(data)) != st.Size() {
		return 0, fmt.Errorf("%d of %d bytes: %w", len(data), st.Size(), err)
	}
	pages := make([]byte, (len(m)+4095)/4096)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])),
		uintptr(len(m)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		return 0, errno
	}
	n := 0
	for _, page := range pages {
		n += int(page & 1)
	}
	return float64(n) / float64(len(pages)), nil
}

func TestReadsOfADirectMountLeaveThePageCacheAlone(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprint(direct), func(t *testing.T) {
			f := directFS(t)
			_, root := mountFS(t, f, MountOptions{Direct: direct})
			shards := inMount(t, f, root, "native")
			small := filepath.Join(root, "native", "config.json")
			cmd, out := start(t, "cached", append([]string{small}, shards...)...)
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			var got map[string]float64
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			for name, share := range got {
				switch keep := !direct || name == "config.json"; {
				case keep && share < 0.5: // the kernel may evict pages at any time
					t.Errorf("%s: only %v of its pages are cached", name, share)
				case !keep && share > 0:
					t.Errorf("%s: %v of its pages are cached", name, share)
				}
			}
			if len(got) != len(shards)+1 {
				t.Errorf("%d files, want %d", len(got), len(shards)+1)
			}
		})
	}
}

// Each read is a request for just its bytes: nothing is read ahead by the kernel.
func TestADirectMountIsAskedForWhatIsRead(t *testing.T) {
	f := directFS(t)
	_, root := mountFS(t, f, MountOptions{Direct: true})
	file, err := os.Open(inMount(t, f, root, "native")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before := f.Stats()
	for i := range 5 {
		if _, err := file.ReadAt(make([]byte, 8), 0); err != nil {
			t.Fatal(err)
		}
		s := f.Stats()
		if n, bytes := s.Requests-before.Requests, s.Bytes-before.Bytes; n != int64(i+1) ||
			bytes != 8*n {
			t.Errorf("%d reads of 8 bytes: %d requests, %d bytes", i+1, n, bytes)
		}
	}
}

// Without the capability the kernel behaves as one before 6.6.
func TestADirectMountSaysWhetherItsFilesCanBeMapped(t *testing.T) {
	for what, o := range map[string]MountOptions{
		"ordinary": {}, "direct": {Direct: true}, "not asked": {Direct: true, unmapped: true},
	} {
		t.Run(what, func(t *testing.T) {
			f := directFS(t)
			m, root := mountFS(t, f, o)
			file, err := os.Open(inMount(t, f, root, "native")[0])
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			for kind, want := range map[int]bool{
				unix.MAP_SHARED: m.Maps(), unix.MAP_PRIVATE: true,
			} {
				p, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ, kind)
				if err == nil {
					err = unix.Munmap(p)
				} else if !errors.Is(err, unix.ENODEV) {
					t.Error(err)
				}
				if (err == nil) != want {
					t.Errorf("kind %d: %v, but it is said to be possible: %v", kind, err, want)
				}
			}
			if m.Maps() && o.unmapped || !m.Maps() && !o.Direct {
				t.Errorf("Maps: %v", m.Maps())
			}
		})
	}
}

// Reads past the page cache do not need what is decoded into it.
func TestReadsOfADirectMountHaveNoForerun(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprint(direct), func(t *testing.T) {
			f, _ := layerFS(t, deepSeek, Options{CacheSize: smallBudget, Workers: 4})
			_, root := mountFS(t, f, MountOptions{Direct: direct})
			if err := exec.Command("cat", filepath.Join(root, singleName)).Run(); err != nil {
				t.Fatal(err)
			}
			r := f.ahead.Load()
			r.mu.Lock()
			read := r.read
			r.mu.Unlock()
			if stored := f.Stats().Ahead.Bytes; direct && (read > 0 || stored > 0) {
				t.Errorf("foreruns saw %d bytes and stored %d", read, stored)
			} else if !direct && read == 0 {
				t.Error("foreruns saw nothing: nothing is shown")
			}
		})
	}
}
