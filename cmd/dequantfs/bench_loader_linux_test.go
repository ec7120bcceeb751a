package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// reportOf makes a report of rates in GB/s. Each source byte gives two.
func reportOf(rates map[string]float64) *benchReport {
	r := &benchReport{SampleBytes: 2e9, SourceBytes: 1e9}
	for name, v := range rates {
		r.Measures = append(r.Measures, rate{measure: &measure{Name: name}, Median: v * 1e9})
	}
	return r
}

func TestALoaderIsBoundByTheLeast(t *testing.T) {
	for what, c := range map[string]struct {
		rates map[string]float64
		busy  float64
		ratio float64
		bound string
	}{
		"disk": {map[string]float64{
			"mmap-cold": 1.8, "mmap-warm": 8, "source-cold": 1, "virtual-warm-4": 9, "memory-mmap-cold": 3,
		}, 0.3, 0.9, "the disk"},
		"decoding": {map[string]float64{
			"mmap-cold": 1, "mmap-warm": 2, "source-cold": 4, "virtual-warm": 1, "virtual-warm-4": 1.2,
			"memory-mmap-cold": 3,
		}, 0.3, 0.5, "decoding"},
		"memory": {map[string]float64{
			"mmap-cold": 3.8, "mmap-warm": 4, "source-cold": 4, "virtual-warm-4": 9, "memory-mmap-cold": 2,
		}, 0.2, 0.95, "memory"},
		"FUSE": {map[string]float64{
			"mmap-cold": 1, "mmap-warm": 4, "source-cold": 4, "virtual-warm-4": 9, "memory-mmap-cold": 1.5,
		}, 0.2, 0.25, "FUSE"},
		"processors": {map[string]float64{
			"mmap-cold": 1, "mmap-warm": 4, "source-cold": 1, "virtual-warm-4": 3, "memory-mmap-cold": 2,
		}, 0.98, 0.5, "the processors"},
	} {
		t.Run(what, func(t *testing.T) {
			l := reportOf(c.rates).loader([]float64{c.busy})
			if l == nil || l.Ratio < c.ratio-1e-9 || l.Ratio > c.ratio+1e-9 {
				t.Fatalf("%+v, want the ratio %v", l, c.ratio)
			}
			if !strings.HasPrefix(l.BoundBy, c.bound) {
				t.Errorf("bound by %q, want %q", l.BoundBy, c.bound)
			}
		})
	}
}

func TestALoaderWithoutADiskHasARateOnly(t *testing.T) {
	l := reportOf(map[string]float64{"mmap-cold": 1, "mmap-warm": 4}).loader(nil)
	if l == nil || l.Rate != 1e9 || l.Ratio != 0 || l.BoundBy != "" {
		t.Errorf("%+v", l)
	}
	if l := reportOf(map[string]float64{"mount-cold": 1}).loader(nil); l != nil {
		t.Errorf("%+v without a loader", l)
	}
}

func TestProcessorTimeIsReadBehindTheName(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 250 150 20"
	for name, want := range map[string]time.Duration{
		"42 (dequantfs)" + rest:      4 * time.Second,
		"42 (a b) c) 1 2 (x)" + rest: 4 * time.Second,
		"42 (dequantfs) S 1":         0,
		"":                           0,
	} {
		if got := statTime(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
	before := processorTime(os.Getpid())
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
		bytes.Repeat([]byte{1}, 1<<16)
	}
	if got := processorTime(os.Getpid()); got <= before {
		t.Errorf("%v after work, %v before", got, before)
	}
}

// A folder of memory has the names, sizes and headers of the files of another one.
func TestFilesOfMemoryAreLikeThoseOfAFolder(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	files, err := memoryFiles(s.source)
	if err != nil {
		t.Fatal(err)
	}
	server, err := mountMemory(s.mnt, files)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Unmount()
	list, err := os.ReadDir(s.source)
	if err != nil {
		t.Fatal(err)
	}
	shards := 0
	for _, entry := range list {
		if entry.IsDir() {
			continue
		}
		want, err := os.ReadFile(filepath.Join(s.source, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		n := len(want)
		if filepath.Ext(entry.Name()) == ".safetensors" {
			h, err := safetensors.ReadHeader(bytes.NewReader(want), int64(n))
			if err != nil {
				t.Fatal(err)
			}
			n = int(h.DataOffset)
			shards++
		}
		sameHead(t, filepath.Join(s.mnt, entry.Name()), want, n)
	}
	if shards == 0 {
		t.Error("there was no shard")
	}
}

// sameHead compares the first n bytes of a file, and how many bytes are behind them.
func sameHead(t *testing.T, path string, want []byte, n int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(io.LimitReader(f, int64(n)))
	if err != nil || !bytes.Equal(got, want[:n]) {
		t.Errorf("%s: its first %d bytes differ: %v", path, n, err)
	}
	rest, err := io.ReadAll(f)
	if err != nil || len(rest) != len(want)-n {
		t.Errorf("%s: %d bytes behind the header, want %d: %v", path, len(rest), len(want)-n, err)
	}
}

func TestTheLoaderOfAReportIsJSON(t *testing.T) {
	r := reportOf(map[string]float64{"mmap-cold": 1, "mmap-warm": 4, "source-cold": 1})
	r.Loader = r.loader([]float64{0.5})
	data, err := json.Marshal(r)
	const want = `"loader":{"rate":1000000000,"allowed":2000000000,"ratio":0.5,"busy":0.5,"bound_by":`
	if err != nil || !bytes.Contains(data, []byte(want)) {
		t.Errorf("%s, %v", data, err)
	}
}
