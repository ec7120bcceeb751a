package main

import (
	"bytes"
	"math/rand/v2"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/units"
	trial "github.com/dequantfs/dequantfs/testdata/size"
)

// exposed returns the page for these statistics.
func exposed(t *testing.T, s fs.Stats) string {
	t.Helper()
	w := httptest.NewRecorder()
	expose(func() fs.Stats { return s })(w, httptest.NewRequest("GET", "/metrics", nil))
	if got := w.Header().Get("Content-Type"); w.Code != 200 || got != exposition {
		t.Fatalf("status %d, Content-Type %q", w.Code, got)
	}
	return w.Body.String()
}

// parsed reads a page as Prometheus does.
func parsed(t *testing.T, page string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("%v:\n%s", err, page)
	}
	return families
}

func TestMetricsSayWhatStatsSay(t *testing.T) {
	page := exposed(t, fs.Stats{
		Bytes: 12345, Reads: 2, Active: 3, OpenFiles: 4, Interrupted: 5,
		Ahead: fs.AheadStats{Bytes: 21, Unread: 22, Errors: 23},
		Stats: units.Stats{
			SourceBytes: 678, Preads: 6, ReadAhead: 7, Unused: 8, Stalled: 9, Panics: 10,
			Saturated: 11, Infinite: 12, Hits: 13, Misses: 14, Fills: 15, Evictions: 16,
			Refetches: 17, CacheBudget: 1 << 34, CacheUsed: 18, Waiting: 19, TooSmall: true,
		},
		OldestRequest: 1500 * time.Millisecond,
		ErrorKinds:    map[string]int64{"EIO": 2, "ENOENT": 20},
		Latency: map[string]fs.Histogram{"dequantize": {
			Bounds: []float64{0.1, 1}, Counts: []uint64{2, 3, 1}, Count: 6, Sum: 4.5}},
	})
	for _, line := range []string{
		"served_bytes_total 12345",
		"reads_total 2",
		"ahead_bytes_total 21",
		"ahead_unread_bytes 22",
		"ahead_errors_total 23",
		"source_read_bytes_total 678",
		"source_reads_total 6",
		"source_unused_bytes_total 8",
		"cache_hits_total 13",
		"cache_misses_total 14",
		"cache_fills_total 15",
		"saturated_total 11",
		"infinite_total 12",
		"cache_evictions_total 16",
		"cache_refetches_total 17",
		"interrupted_total 5",
		"panics_total 10",
		"read_ahead_bytes 7",
		"cache_used_bytes 18",
		"cache_budget_bytes 1.7179869184e+10",
		"cache_too_small 1",
		"waiting_readers 19",
		"active_reads 3",
		"open_files 4",
		"stalled_source_files 9",
		"oldest_request_seconds 1.5",
		`errors_total{kind="EIO"} 2`,
		`errors_total{kind="ENOENT"} 20`,
		`read_seconds_bucket{recipe="dequantize",le="0.1"} 2`,
		`read_seconds_bucket{recipe="dequantize",le="1"} 5`,
		`read_seconds_bucket{recipe="dequantize",le="+Inf"} 6`,
		`read_seconds_sum{recipe="dequantize"} 4.5`,
		`read_seconds_count{recipe="dequantize"} 6`,
	} {
		if !strings.Contains(page, "\ndequantfs_"+line+"\n") {
			t.Errorf("no line dequantfs_%s", line)
		}
	}
}

// TestPrometheusReadsTheStats draws statistics, and compares what a parser of Prometheus finds.
func TestPrometheusReadsTheStats(t *testing.T) {
	for _, seed := range trial.Seeds(t) {
		r := rand.New(rand.NewPCG(seed, 1))
		for range 50 {
			s := drawStats(r)
			var page, again bytes.Buffer
			writeStats(&page, &s)
			writeStats(&again, &s)
			if page.String() != again.String() {
				t.Fatal("the same statistics give two pages")
			}
			families := parsed(t, page.String())
			compareMetrics(t, families, &s)
			compareErrors(t, families[errorsMetric], s.ErrorKinds)
			compareHistograms(t, families[latencyMetric], s.Latency)
			if len(families) != len(metrics)+2 {
				t.Errorf("%d families, want %d", len(families), len(metrics)+2)
			}
		}
	}
}

// labels are values of labels that are hard to write.
var labels = []string{"EIO", "", `a"b`, `a\b`, "a\nb", `\n`, `{le="1"} 2`, "Größe", " "}

// drawStats sets every number to one below 2^53, many of them small.
func drawStats(r *rand.Rand) fs.Stats {
	var s fs.Stats
	drawNumbers(r, reflect.ValueOf(&s).Elem())
	s.ErrorKinds, s.Latency = map[string]int64{}, map[string]fs.Histogram{}
	for _, i := range r.Perm(len(labels))[:1+r.IntN(len(labels))] {
		s.ErrorKinds[labels[i]] = r.Int64N(1 << 53)
		s.Latency[labels[i]] = drawHistogram(r)
	}
	return s
}

func drawNumbers(r *rand.Rand, v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Type() == reflect.TypeFor[units.Stats]():
			drawNumbers(r, f)
		case f.Kind() == reflect.Int64:
			f.SetInt(r.Int64N(1<<53) >> r.IntN(53))
		case f.Kind() == reflect.Bool:
			f.SetBool(r.IntN(2) == 1)
		}
	}
}

func drawHistogram(r *rand.Rand) fs.Histogram {
	h := fs.Histogram{Sum: r.ExpFloat64()}
	for i := range r.IntN(20) {
		h.Bounds = append(h.Bounds, float64(i)+r.Float64())
	}
	for range len(h.Bounds) + 1 {
		n := r.Uint64N(1000)
		h.Counts, h.Count = append(h.Counts, n), h.Count+n
	}
	return h
}

func compareMetrics(t *testing.T, families map[string]*dto.MetricFamily, s *fs.Stats) {
	t.Helper()
	for _, m := range metrics {
		f := families[m.name]
		if len(f.GetMetric()) != 1 || f.GetHelp() != m.help {
			t.Fatalf("%s: %v", m.name, f)
		}
		got, kind := f.Metric[0].GetGauge().GetValue(), dto.MetricType_GAUGE
		if strings.HasSuffix(m.name, "_total") {
			got, kind = f.Metric[0].GetCounter().GetValue(), dto.MetricType_COUNTER
		}
		if want := m.value(s); got != want || f.GetType() != kind {
			t.Errorf("%s: %v %v, want %v %v", m.name, f.GetType(), got, kind, want)
		}
	}
}

func compareErrors(t *testing.T, f *dto.MetricFamily, want map[string]int64) {
	t.Helper()
	got := map[string]int64{}
	for _, m := range f.GetMetric() {
		got[labelled(m, "kind")] = int64(m.GetCounter().GetValue())
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("errors %v, want %v", got, want)
	}
}

func compareHistograms(t *testing.T, f *dto.MetricFamily, want map[string]fs.Histogram) {
	t.Helper()
	got := map[string]fs.Histogram{}
	for _, m := range f.GetMetric() {
		read := m.GetHistogram()
		h := fs.Histogram{Sum: read.GetSampleSum(), Count: read.GetSampleCount()}
		buckets, before := read.GetBucket(), uint64(0)
		for i, b := range buckets {
			h.Counts = append(h.Counts, b.GetCumulativeCount()-before)
			before = b.GetCumulativeCount()
			if i < len(buckets)-1 { // the last bound is +Inf
				h.Bounds = append(h.Bounds, b.GetUpperBound())
			}
		}
		got[labelled(m, "recipe")] = h
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("histograms %v, want %v", got, want)
	}
}

// labelled returns the value of a label.
func labelled(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return "no label " + name
}
