package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/fs"
)

// traffic has another number in each field.
var traffic = source.Traffic{
	Bytes: 3 << 30, Requests: 400, Retries: 5, Throttled: 6, InFlight: 7, AtOnce: 64,
	Rate: 200 << 20, Memory: 128 << 20, MemoryLimit: 1 << 30, CacheHits: 9, CacheMisses: 1,
	CacheBytes: 72 << 20,
}

func TestStatusSaysWhatComesOverANetwork(t *testing.T) {
	m := mountState{State: stateAlive}
	m.Mountpoint, m.Started, m.Time = "/mnt/v3", time.Now(), time.Now()
	m.Stats.Network = &traffic
	var out bytes.Buffer
	if err := writeStatus(&out, []mountState{m}, nil); err != nil {
		t.Fatal(err)
	}
	const want = "/mnt/v3: network: 200MiB/s, 7 of 64 requests in flight, 3GiB in 400 requests, " +
		"5 sent again, 6 refused as too many, 128MiB of 1GiB in memory, " +
		"disk cache: 72MiB from 9 of 10 blocks\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("%s\nwant %s", &out, want)
	}
}

func TestMetricsSayWhatComesOverANetwork(t *testing.T) {
	page := exposed(t, fs.Stats{Network: &traffic})
	parsed(t, page)
	for _, line := range []string{
		"network_bytes_total 3.221225472e+09",
		"network_requests_total 400",
		"network_retries_total 5",
		"network_throttled_total 6",
		"network_requests_in_flight 7",
		"network_requests_at_once 64",
		"network_bytes_per_second 2.097152e+08",
		"network_memory_bytes 1.34217728e+08",
		"disk_cache_hits_total 9",
		"disk_cache_misses_total 1",
		"disk_cache_read_bytes_total 7.5497472e+07",
	} {
		if !strings.Contains(page, "\ndequantfs_"+line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
	if page := exposed(t, fs.Stats{}); strings.Contains(page, "network") {
		t.Error("a local mount has metrics of a network")
	}
}

func TestMisspelledAddressesAreExplained(t *testing.T) {
	for name, want := range map[string]string{
		"hf:org/name":               "did you mean hf://org/name?",
		"HF://org/name":             "did you mean hf://org/name?",
		"huggingface://org/name":    "did you mean hf://org/name?",
		"huggingface.co/org/name":   "did you mean https://huggingface.co/org/name?",
		"htps://host/folder/":       "did you mean https://host/folder/?",
		"s3:/bucket/prefix":         "did you mean s3://bucket/prefix?",
		"gcs://bucket/prefix":       "did you mean gs://bucket/prefix?",
		"abfss://account/container": "did you mean az://account/container?",
		"s3://bucket/prefix":        "",
		"C:/models/x":               "",
		"./model":                   "",
	} {
		err := explainName(name, errors.New("x"))
		if got := hintFor(err); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	err := explainName("org/name", fmt.Errorf("x: %w", source.ErrNotDownloaded))
	if got := hintFor(err); !strings.Contains(got, "hf://org/name") {
		t.Errorf("not downloaded: %q", got)
	}
	err = explainName("s3://b/x", fmt.Errorf("x: %w", source.ErrMissing))
	if got := hintFor(err); got != "" {
		t.Errorf("missing in a store: %q", got)
	}
}

func TestSourceFlagsAreChecked(t *testing.T) {
	for _, c := range []struct {
		flags sourceFlags
		wrong bool
	}{
		{sourceFlags{cacheSize: 1 << 30}, true},
		{sourceFlags{cacheSize: 1 << 30, cache: "d"}, false},
		{sourceFlags{memory: 1 << 20}, false},
	} {
		o, err := c.flags.check()
		if (err != nil) != c.wrong {
			t.Errorf("%+v: %v", c.flags, err)
		}
		if err == nil &&
			(o.remote.Memory <= 0 || o.remote.DiskCacheSize != int64(c.flags.cacheSize)) {
			t.Errorf("%+v: %+v", c.flags, o.remote)
		}
	}
	names := slices.Sorted(slices.Values(sourceFlagNames))
	var registered []string
	v := viewOf(t)
	for _, name := range names {
		if v.set.Lookup(name) != nil {
			registered = append(registered, name)
		}
	}
	if !slices.Equal(names, registered) {
		t.Errorf("registered: %v", registered)
	}
}

func TestHashesOfASourceAreCompared(t *testing.T) {
	found := judge("hf://o/n@c", []adapter.PublishedFile{
		{Name: "a", Size: 10, SHA256: "AA", Got: "aa"},
		{Name: "b", Size: 20, SHA256: "bb", Got: "cc"},
		{Name: "c", Size: 30, SHA256: "dd", Err: errors.New("it hangs")},
		{Name: "d", Size: 40},
	})
	var out bytes.Buffer
	if err := found.write(&out); err != nil {
		t.Fatal(err)
	}
	const want = "b: its SHA-256 is cc, and its publisher tells bb\n" +
		"c: cannot be read: it hangs\n" +
		"no SHA-256 is published for d\n" +
		"hf://o/n@c against the SHA-256 of its publisher: 3 files, 60B: 2 differences\n"
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}
