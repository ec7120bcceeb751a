package fs

import (
	"bytes"
	"maps"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs/pagecache"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// resident returns how many pages of a file are in memory, and how many it has.
func resident(t *testing.T, path string) (in, pages int) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	n, err := pagecache.Resident(file, pagecache.Range{Len: info.Size()})
	if err != nil {
		t.Fatal(err)
	}
	count := func(bytes int64) int { return int((bytes + pageSize - 1) / pageSize) }
	return count(n), count(info.Size())
}

// stat describes a file of a mount.
func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

// What one rank has read of the files without experts is in memory for all ranks, and no rank
// reads it again.
func TestRanksShareTheKernelsCache(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 3, Experts: 4, Shards: 2, Hidden: 256})
	for _, of := range []string{"hf", "native"} {
		for how := range ways {
			if how == "direct" { // does not fill the cache
				continue
			}
			t.Run(of+" "+how, func(t *testing.T) {
				f := openViews(t, dir, Options{}, ranks(of, 0, 3)...)
				_, root := mountFS(t, f, MountOptions{})
				var tensors []map[string]shown
				for r := range 3 {
					paths := inMount(t, f, root, rankDir(of, r))
					own, shared := sizesOf(t, paths)
					if r == 0 {
						own, shared = own+shared, 0
					}
					all := map[string]shown{}
					before := f.Stats().Bytes
					for _, shard := range tensorsBy(t, how, paths) {
						maps.Copy(all, shard)
					}
					read := f.Stats().Bytes - before
					if read < own*9/10 || read > own+own/10+shared/10 {
						t.Errorf("rank %d reads %d bytes: %d are its own, %d shared", r, read,
							own, shared)
					}
					tensors = append(tensors, all)
					wantResident(t, f, root, of, r)
				}
				wantSameTensors(t, tensors)
			})
		}
	}
}

// sizesOf adds up the sizes of the files that only one rank has, and of the others.
func sizesOf(t *testing.T, paths []string) (own, shared int64) {
	t.Helper()
	for _, path := range paths {
		if s := stat(t, path); s.Nlink > 1 {
			shared += s.Size
		} else {
			own += s.Size
		}
	}
	return own, shared
}

// isResident allows for pages that the kernel has dropped or is moving.
func isResident(in, pages int) bool { return in >= pages-max(pages/10, 1) }

// wantResident checks that rank r and no later rank has its experts in memory, and that every rank
// has the other files there.
func wantResident(t *testing.T, f *FS, root, of string, r int) {
	t.Helper()
	for other := range 3 {
		shared := 0
		for _, path := range inMount(t, f, root, rankDir(of, other)) {
			in, pages := resident(t, path)
			links := stat(t, path).Nlink
			switch {
			case links == 3 && !isResident(in, pages):
				t.Errorf("rank %d is read: %s: %d of %d pages are in memory", r, path, in, pages)
			case links == 3:
				shared++
			case links != 1:
				t.Errorf("%s has %d links", path, links)
			case other > r && in != 0:
				t.Errorf("rank %d is read: %s: %d pages are in memory", r, path, in)
			}
		}
		if shared == 0 {
			t.Errorf("rank %d shares nothing", other)
		}
	}
}

// wantSameTensors checks that what ranks have in common is the same.
func wantSameTensors(t *testing.T, ranks []map[string]shown) {
	t.Helper()
	common := 0
	for key, x := range ranks[0] {
		if y, ok := ranks[1][key]; ok && x.SHA256 == y.SHA256 {
			common++
		}
	}
	if common == 0 || common == len(ranks[0]) {
		t.Errorf("%d of %d tensors are the same in two ranks", common, len(ranks[0]))
	}
}

// A shared file is the same file under each of its names, also after the kernel forgot one of them.
func TestASharedFileHasOneInodeInAMount(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 3, Experts: 4})
	f := openViews(t, dir, Options{}, ranks("native", 0, 2)...)
	_, root := mountFS(t, f, MountOptions{})
	names := [2][]string{inMount(t, f, root, rankDir("native", 0)),
		inMount(t, f, root, rankDir("native", 1))}
	var total uint64
	seen := map[uint64]bool{}
	for i, path := range names[0] {
		if _, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		other := names[1][i]
		a, b := stat(t, path), stat(t, other)
		if shared := a.Ino == b.Ino; shared != (a.Nlink == 2) || shared && *a != *b {
			t.Errorf("%s is %+v, %s is %+v", path, a, other, b)
		}
		for path, s := range map[string]*syscall.Stat_t{path: a, other: b} {
			if want := readTree(t, f, path[len(root)+1:]); s.Size != int64(len(want)) {
				t.Errorf("%s has %d bytes, want %d", path, s.Size, len(want))
			}
			if !seen[s.Ino] {
				total += uint64(s.Size)
			}
			seen[s.Ino] = true
		}
	}
	if len(seen) == len(names[0])*2 {
		t.Error("no file is shared")
	}
	var fsStat unix.Statfs_t
	if err := unix.Statfs(root, &fsStat); err != nil {
		t.Fatal(err)
	}
	if size := fsStat.Blocks * uint64(fsStat.Bsize); size < total || size > total+1<<20 {
		t.Errorf("the mount has %d bytes, its shards %d", size, total)
	}
	forget(t, root)
	for i, path := range names[1] {
		if in, _ := resident(t, path); in != 0 {
			t.Errorf("%s: %d pages are still in memory", path, in)
		}
		if data, err := os.ReadFile(path); err != nil ||
			!bytes.Equal(data, readTree(t, f, path[len(root)+1:])) {
			t.Errorf("%s: other bytes, error %v", path, err)
		}
		a, b := stat(t, names[0][i]), stat(t, path)
		if shared := a.Ino == b.Ino; shared != (a.Nlink == 2) {
			t.Errorf("%s and %s: inodes %d and %d", names[0][i], path, a.Ino, b.Ino)
		}
		in, pages := resident(t, names[0][i])
		if shared := a.Ino == b.Ino; shared != isResident(in, pages) {
			t.Errorf("%s: %d of %d pages are in memory", names[0][i], in, pages)
		}
	}
}

// forget has the kernel forget the names and inodes of a mount.
func forget(t *testing.T, root string) {
	t.Helper()
	err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOEXEC|unix.MS_NOSUID|
		unix.MS_NODEV, "")
	if err == unix.EPERM && !required("root") {
		t.Skip("the kernel is only told to forget by root")
	}
	if err != nil {
		t.Fatal(err)
	}
}
