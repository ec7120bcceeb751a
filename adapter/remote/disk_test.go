package remote

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/remote/diskcache"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/stores"
)

// roomyDir is a folder on a disk of which a tenth is free, if there is one in memory.
func roomyDir(t *testing.T) string {
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

// modelFiles is what readModel reads, and modelBytes how much that is.
var modelFiles = []string{"model-1.safetensors", "model-2.safetensors", "tokenizer.json"}

const modelBytes = 20_000 + 2

// readModel opens a web folder with a disk cache, and reads files. It waits until the cache has as
// many blocks as are wanted.
func readModel(t *testing.T, url, cache string, blocks int) source.Traffic {
	t.Helper()
	s, _, err := Open(t.Context(), url, Options{DiskCache: cache})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range modelFiles {
		f, err := s.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.(source.Sectioned).Cut(nil)
		p := make([]byte, f.Size())
		if _, err := f.ReadAt(t.Context(), p, 0); err != nil || string(p) != model[name] {
			t.Errorf("%s has other bytes (%v)", name, err)
		}
	}
	eventually(t, fmt.Sprint(blocks, " blocks are kept"), func() bool {
		all, err := diskcache.Sources(cache)
		n := 0
		for _, s := range all {
			if s.Origin != "" {
				n += s.Blocks
			}
		}
		return err == nil && n == blocks
	})
	return s.(source.Networked).Traffic()
}

func TestASecondOpeningReadsTheDiskCache(t *testing.T) {
	without(t)
	server := stores.Files(t, webFolder(t, model), stores.FileOptions{})
	cache := filepath.Join(roomyDir(t), "cache")
	if got := readModel(t, server.URL+"/", cache, 3); got.Bytes != modelBytes ||
		got.CacheHits != 0 {
		t.Errorf("the first time: %+v", got)
	}
	if got := readModel(t, server.URL+"/", cache, 3); got.Bytes != 0 ||
		got.CacheBytes != modelBytes {
		t.Errorf("the second time: %+v", got)
	}

	// Damaged blocks are fetched again, and so is an object that has changed.
	files, err := filepath.Glob(filepath.Join(cache, "v1", "??", "*", "*"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-1] ^= 4
		if err := os.WriteFile(f, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := readModel(t, server.URL+"/", cache, 3); got.Bytes != modelBytes ||
		got.CacheHits != 0 {
		t.Errorf("after damage: %+v", got)
	}
	old := model["model-1.safetensors"]
	defer func() { model["model-1.safetensors"] = old }()
	model["model-1.safetensors"] = strings.Repeat("9876543210", 1000)
	server.Write(t, "model-1.safetensors", []byte(model["model-1.safetensors"]))
	if got := readModel(t, server.URL+"/", cache, 4); got.Bytes != 10_000 ||
		got.CacheBytes != modelBytes-10_000 {
		t.Errorf("after a change: %+v", got)
	}
}

// Objects whose changes go unseen are not kept.
func TestObjectsWithoutAVersionAreNotKept(t *testing.T) {
	without(t)
	server := stores.Files(t, webFolder(t, model), stores.FileOptions{NoETag: true})
	cache := filepath.Join(roomyDir(t), "cache")
	for range 2 {
		if got := readModel(t, server.URL+"/", cache, 0); got.Bytes != modelBytes ||
			got.CacheHits != 0 {
			t.Errorf("%+v", got)
		}
	}
}

func TestADiskCacheThatCannotBeOpened(t *testing.T) {
	without(t)
	server := stores.Files(t, webFolder(t, model), stores.FileOptions{})
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, _, err := Open(t.Context(), server.URL+"/", Options{DiskCache: dir})
	if err == nil || !strings.HasPrefix(err.Error(), "disk cache: "+dir+": its mode") {
		t.Errorf("error %v", err)
	}
}

func TestKeysOfTheDiskCache(t *testing.T) {
	endpoint, _ := url.Parse("http://me:secret@127.0.0.1:9000/base?X-Signature=secret")
	o := &object{name: "sub/x.safetensors", version: "v"}
	for _, c := range []struct {
		b    backend
		o    object
		want diskcache.Key
	}{
		{&s3{bucket: "b", prefix: "p/"}, *o, diskcache.Key{Origin: "s3://b/p/", Object: o.name,
			Version: "v"}},
		{&s3{bucket: "b", prefix: "p/", site: s3Site{endpoint: endpoint}}, *o,
			diskcache.Key{Origin: "s3://b/p/", Object: o.name,
				Version: "v http://127.0.0.1:9000/base"}},
		{&gcs{bucket: "b", base: googleStorage}, *o, diskcache.Key{Origin: "gs://b/",
			Object: o.name, Version: "v"}},
		{&gcs{bucket: "b", base: "http://127.0.0.1:4443"}, *o,
			diskcache.Key{Origin: "gs://b/", Object: o.name, Version: "v http://127.0.0.1:4443"}},
		{&azure{account: "a", container: "c", endpoint: endpoint}, *o,
			diskcache.Key{Origin: "az://a/c/", Object: o.name,
				Version: "v http://127.0.0.1:9000/base"}},
		{&azure{account: "a", container: "c", endpoint: endpoint}, object{name: o.name},
			diskcache.Key{Origin: "az://a/c/", Object: o.name}},
		{&gcs{bucket: "b", base: googleStorage}, object{name: o.name, version: "v",
			unseen: "changes"},
			diskcache.Key{Origin: "gs://b/", Object: o.name}},
	} {
		d, err := openDisk(c.b, Options{DiskCache: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.key(&c.o); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.b.name(), got, c.want)
		}
		if err := d.cache.Close(); err != nil {
			t.Error(err)
		}
	}
	if d, err := openDisk(&gcs{}, Options{}); d != nil || err != nil {
		t.Errorf("without a folder: %v, %v", d, err)
	}
}

func TestRevisionsShareBlocks(t *testing.T) {
	for name, want := range map[string]string{
		"hf://org/name@abc":            "hf://org/name",
		"hf://org/name@abc/sub/folder": "hf://org/name/sub/folder",
		"hf://org/name":                "hf://org/name",
		"https://host/a@b/":            "https://host/a@b/",
		"s3://b/a@b/":                  "s3://b/a@b/",
	} {
		if got := withoutRevision(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// A disk that does not answer holds up neither readers nor the end.
func TestADiskThatHangs(t *testing.T) {
	hung := &diskInMemory{blocks: map[int64][]byte{}, gate: make(chan bool)}
	s := serve(t, 4<<20, Options{}, nil)
	s.fetcher.cache = hung
	tab := s.shard()
	s.check(t, tab, 0, 4<<20)
	done := make(chan bool)
	go func() { s.fetcher.close(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * closePatience):
		t.Error("closing hangs")
	}
	close(hung.gate)
	if got := slices.Clone(s.ranges()); len(got) == 0 {
		t.Error("nothing was fetched")
	}
}
