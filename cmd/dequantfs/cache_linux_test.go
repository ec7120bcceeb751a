package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/remote/diskcache"
)

// inMemory is a folder on a disk of which a tenth is free, if there is one in memory.
func inMemory(t *testing.T) string {
	t.Helper()
	if info, err := os.Stat("/dev/shm"); err != nil || !info.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "dequantfs-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A second mount reads the disk cache of the first. Two mounts may share it, and it may be damaged
// and pruned meanwhile.
func TestServedASecondMountReadsTheDiskCache(t *testing.T) {
	requireFUSE(t)
	for _, kind := range []string{"http", "hub", "s3"} {
		t.Run(kind, func(t *testing.T) {
			s := newSession(t)
			cache := filepath.Join(inMemory(t), "cache")
			s.run("mount", s.source, s.mnt)
			want := tree(t, s.mnt)
			s.run("umount", s.mnt)
			url, at := storeKinds[kind](t, s.source)
			p := at(url)
			mount := func() int64 {
				t.Helper()
				s.output(p.from(s.command("mount", p.source, s.mnt, "--disk-cache", cache)))
				sameTree(t, tree(t, s.mnt), want)
				return s.status().Stats.Network.Bytes
			}
			first := mount()
			patiently(t, "the shards are kept", func() bool {
				return keptIn(t,
					cache) >= shardBytes(t, s)
			})
			s.run("umount", s.mnt)
			if second := mount(); second > first/10 {
				t.Errorf("the second mount transferred %d bytes, the first %d", second, first)
			}
			damage(t, cache)
			other := filepath.Join(s.dir, "mnt2")
			if err := os.Mkdir(other, 0o700); err != nil {
				t.Fatal(err)
			}
			s.output(p.from(s.command("mount", p.source, other, "--disk-cache", cache,
				"--disk-cache-size", "1MiB")))
			s.run("cache", "prune", cache, "--size", "100KiB")
			sameTree(t, tree(t, other), want)
			sameTree(t, tree(t, s.mnt), want)
			s.run("umount", "--all")
		})
	}
}

// keptIn is the bytes that a disk cache takes.
func keptIn(t *testing.T, dir string) (n int64) {
	t.Helper()
	all, err := diskcache.Sources(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		n += s.Bytes
	}
	return n
}

// shardBytes is the length of the shards of the source.
func shardBytes(t *testing.T, s *session) (n int64) {
	t.Helper()
	shards, err := filepath.Glob(filepath.Join(s.source, "*.safetensors"))
	if err != nil || len(shards) == 0 {
		t.Fatal(shards, err)
	}
	for _, name := range shards {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// damage changes one byte of each block in a disk cache.
func damage(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "v1", "??", "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2]++
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
