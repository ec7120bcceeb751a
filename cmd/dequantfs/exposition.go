package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	victoria "github.com/VictoriaMetrics/metrics"

	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/fs"
)

// exposition is the type of the text that Prometheus reads.
const exposition = "text/plain; version=0.0.4; charset=utf-8"

// writePage writes the statistics of a filesystem, and then those of Go and of the process.
func writePage(w io.Writer, s *fs.Stats) {
	writeStats(w, s)
	victoria.WriteFDMetrics(w)
	victoria.WriteProcessMetrics(w)
}

// metric is one statistic in the form of Prometheus.
type metric struct {
	name, kind, help string
	value            func(s *fs.Stats) float64
}

func counter(name, help string, value func(s *fs.Stats) int64) metric {
	return metric{"dequantfs_" + name, "counter", help,
		func(s *fs.Stats) float64 { return float64(value(s)) }}
}

func gauge(name, help string, value func(s *fs.Stats) float64) metric {
	return metric{"dequantfs_" + name, "gauge", help, value}
}

var metrics = []metric{
	counter("served_bytes_total", "Bytes given to readers; the kernel's page cache serves more.",
		func(s *fs.Stats) int64 { return s.Bytes }),
	counter("reads_total", "Reads answered.", func(s *fs.Stats) int64 { return s.Reads }),
	counter("ahead_bytes_total",
		"Bytes decoded ahead of loaders into the kernel's page cache.",
		func(s *fs.Stats) int64 { return s.Ahead.Bytes }),
	counter("ahead_errors_total", "Attempts to decode ahead that failed, seen by no reader.",
		func(s *fs.Stats) int64 { return s.Ahead.Errors }),
	gauge("ahead_unread_bytes", "Bytes decoded ahead that no loader has come to yet.",
		func(s *fs.Stats) float64 { return float64(s.Ahead.Unread) }),
	counter("source_read_bytes_total", "Bytes read from source files.",
		func(s *fs.Stats) int64 { return s.SourceBytes }),
	counter("source_reads_total", "Reads of source files.",
		func(s *fs.Stats) int64 { return s.Preads }),
	counter("source_unused_bytes_total", "Bytes read ahead from source files but not needed.",
		func(s *fs.Stats) int64 { return s.Unused }),
	counter("cache_hits_total", "Units found in the tensor cache.",
		func(s *fs.Stats) int64 { return s.Hits }),
	counter("cache_misses_total", "Units that had to be waited for.",
		func(s *fs.Stats) int64 { return s.Misses }),
	counter("cache_fills_total", "Units computed.", func(s *fs.Stats) int64 { return s.Fills }),
	counter("saturated_total", "Values beyond the largest FP8 code, each time they were computed.",
		func(s *fs.Stats) int64 { return s.Saturated }),
	counter("infinite_total", "Values that are infinite in F16, each time they were computed.",
		func(s *fs.Stats) int64 { return s.Infinite }),
	counter("cache_evictions_total", "Units evicted from the tensor cache.",
		func(s *fs.Stats) int64 { return s.Evictions }),
	counter("cache_refetches_total",
		"Units computed again that were evicted before they were read to the end.",
		func(s *fs.Stats) int64 { return s.Refetches }),
	counter("interrupted_total", "Reads given up by the reader.",
		func(s *fs.Stats) int64 { return s.Interrupted }),
	counter("panics_total", "Panics caught.", func(s *fs.Stats) int64 { return s.Panics }),
	gauge("read_ahead_bytes", "Bytes held for what is read ahead of the source.",
		func(s *fs.Stats) float64 { return float64(s.ReadAhead) }),
	gauge("cache_used_bytes", "Bytes in the tensor cache.",
		func(s *fs.Stats) float64 { return float64(s.CacheUsed) }),
	gauge("cache_budget_bytes", "Budget of the tensor cache.",
		func(s *fs.Stats) float64 { return float64(s.CacheBudget) }),
	gauge("cache_too_small", "1 if the budget is too small for what is read at once.",
		func(s *fs.Stats) float64 { return truth(s.TooSmall) }),
	gauge("waiting_readers", "Readers that wait for a unit.",
		func(s *fs.Stats) float64 { return float64(s.Waiting) }),
	gauge("active_reads", "Reads under way.",
		func(s *fs.Stats) float64 { return float64(s.Active) }),
	gauge("open_files", "Files that readers have open.",
		func(s *fs.Stats) float64 { return float64(s.OpenFiles) }),
	gauge("stalled_source_files", "Source files that have not answered for seconds.",
		func(s *fs.Stats) float64 { return float64(s.Stalled) }),
	gauge("oldest_request_seconds", "Age of the oldest read under way.",
		func(s *fs.Stats) float64 { return s.OldestRequest.Seconds() }),
}

// networkMetrics are those of mounts whose source comes over a network. Other mounts lack them.
var networkMetrics = []metric{
	received("network_bytes_total", "Bytes received from the source.",
		func(t *source.Traffic) int64 { return t.Bytes }),
	received("network_requests_total", "Requests sent to the source.",
		func(t *source.Traffic) int64 { return t.Requests }),
	received("network_retries_total", "Requests for bytes that an earlier one did not bring.",
		func(t *source.Traffic) int64 { return t.Retries }),
	received("network_throttled_total", "Answers of the source that asked for fewer requests.",
		func(t *source.Traffic) int64 { return t.Throttled }),
	gauge("network_requests_in_flight", "Requests to the source under way.",
		func(s *fs.Stats) float64 { return float64(s.Network.InFlight) }),
	gauge("network_requests_at_once", "Requests that may be under way at once.",
		func(s *fs.Stats) float64 { return float64(s.Network.AtOnce) }),
	gauge("network_bytes_per_second", "Bytes received in each of the last seconds.",
		func(s *fs.Stats) float64 { return s.Network.Rate }),
	gauge("network_memory_bytes", "Bytes of the source that are held in memory.",
		func(s *fs.Stats) float64 { return float64(s.Network.Memory) }),
	received("disk_cache_hits_total", "Blocks found in the disk cache.",
		func(t *source.Traffic) int64 { return t.CacheHits }),
	received("disk_cache_misses_total", "Blocks not found in the disk cache.",
		func(t *source.Traffic) int64 { return t.CacheMisses }),
	received("disk_cache_read_bytes_total", "Bytes read from the disk cache.",
		func(t *source.Traffic) int64 { return t.CacheBytes }),
}

func received(name, help string, value func(t *source.Traffic) int64) metric {
	return counter(name, help, func(s *fs.Stats) int64 { return value(s.Network) })
}

// Metrics with labels.
const (
	errorsMetric  = "dequantfs_errors_total"
	latencyMetric = "dequantfs_read_seconds"
)

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// writeStats writes the metrics in the order of the table, and then those with labels in the order
// of their labels.
func writeStats(w io.Writer, s *fs.Stats) {
	all := metrics
	if s.Network != nil {
		all = slices.Concat(metrics, networkMetrics)
	}
	for _, m := range all {
		writeHead(w, m.name, m.kind, m.help)
		writeSample(w, m.name, m.value(s))
	}
	writeHead(w, errorsMetric, "counter", "Reads that failed, by kind.")
	for _, kind := range slices.Sorted(maps.Keys(s.ErrorKinds)) {
		writeSample(w, errorsMetric, float64(s.ErrorKinds[kind]), "kind", kind)
	}
	writeHead(w, latencyMetric, "histogram", "How long reads took, by the kind of recipe.")
	for _, kind := range slices.Sorted(maps.Keys(s.Latency)) {
		writeHistogram(w, latencyMetric, s.Latency[kind], "recipe", kind)
	}
}

// writeHistogram writes a histogram. Prometheus wants the counts up to each bound, not between two.
func writeHistogram(w io.Writer, name string, h fs.Histogram, label, value string) {
	sum := uint64(0)
	for i, bound := range h.Bounds {
		sum += h.Counts[i]
		writeSample(w, name+"_bucket", float64(sum), label, value, "le", number(bound))
	}
	writeSample(w, name+"_bucket", float64(h.Count), label, value, "le", "+Inf")
	writeSample(w, name+"_sum", h.Sum, label, value)
	writeSample(w, name+"_count", float64(h.Count), label, value)
}

// writeHead writes what comes before the samples of a metric. The help is one line, without
// backslashes.
func writeHead(w io.Writer, name, kind, help string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// writeSample writes one value. Labels are names and values in turn.
func writeSample(w io.Writer, name string, value float64, labels ...string) {
	var pairs []string
	for pair := range slices.Chunk(labels, 2) {
		pairs = append(pairs, pair[0]+`="`+labelEscapes.Replace(pair[1])+`"`)
	}
	if pairs != nil {
		name += "{" + strings.Join(pairs, ",") + "}"
	}
	fmt.Fprintf(w, "%s %s\n", name, number(value))
}

// labelEscapes are those that Prometheus knows in the value of a label.
var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// number is the shortest text that gives the same number.
func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
