package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dequantfs/dequantfs/fp8"
)

// benchReport is the result of bench.
type benchReport struct {
	Version     int          `json:"version"`
	Source      string       `json:"source"`
	Layout      string       `json:"layout"`
	Machine     benchMachine `json:"machine"`
	SampleBytes int64        `json:"sample_bytes"`
	SourceBytes int64        `json:"source_bytes"` // that the sample is computed from
	Rounds      int          `json:"rounds"`
	Measures    []rate       `json:"measures"`
	Ratios      []ratio      `json:"ratios"`
	Resident    int64        `json:"resident_bytes,omitempty"` // of a mount, at most
	CacheBudget int64        `json:"cache_budget"`
	Bottleneck  string       `json:"bottleneck,omitempty"`
	Loader      *benchLoader `json:"loader,omitempty"`
	Notes       []string     `json:"notes,omitempty"`
}

type benchMachine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Kernels string `json:"kernels"`
}

// rate is a measure in bytes per second: the median, the slowest and the fastest of the rounds.
type rate struct {
	*measure
	Median  float64 `json:"median"`
	Slowest float64 `json:"slowest"`
	Fastest float64 `json:"fastest"`
}

// ratio is one rate divided by another.
type ratio struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
}

func (m *measure) rate() rate {
	var r []float64
	for _, s := range m.Seconds {
		r = append(r, float64(m.Bytes)/max(s, 1e-9))
	}
	return rate{m, median(r), slices.Min(r), slices.Max(r)}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// report computes the result.
func (b *bench) report() *benchReport {
	r := &benchReport{
		Version: jsonVersion,
		Source:  b.source.checkpoint.Path, Layout: b.source.views[0].Plan.Options.Layout,
		Machine:     benchMachine{cpuModel(), runtime.NumCPU(), fp8.Implementation()},
		SampleBytes: sampleBytes(b.sample), SourceBytes: sumRanges(b.ranges),
		Rounds:   b.benchFlags.rounds,
		Resident: b.resident, CacheBudget: b.source.fs.Stats().CacheBudget, Notes: b.notes,
	}
	for _, m := range b.measures {
		r.Measures = append(r.Measures, m.rate())
	}
	r.ratios(b.readers)
	r.bottleneck()
	r.Loader = r.loader(b.busy["mmap-cold"])
	return r
}

// of returns the median rate of a measure, or 0 if it was not measured.
func (r *benchReport) of(name string) float64 {
	for _, m := range r.Measures {
		if m.Name == name {
			return m.Median
		}
	}
	return 0
}

// disk returns the rate of the disk in bytes of output.
func (r *benchReport) disk() float64 {
	return r.of("source-cold") * float64(r.SampleBytes) / float64(max(r.SourceBytes, 1))
}

// ratios compares rates.
func (r *benchReport) ratios(readers int) {
	best := r.of("memory-cold")
	if d := r.disk(); d > 0 && best > 0 {
		best = min(best, d)
	}
	direct := fmt.Sprintf("direct-%d", readers)
	for _, q := range []struct {
		what  string
		value float64
		by    float64
	}{
		{"decoding by copying memory", r.of("decode-" + r.Machine.Kernels), r.of("memcpy")},
		{"the mount by the copy on disk, both cold", r.of("mount-cold"), r.of("copy-cold")},
		{"the mount by mmap by the copy on disk, both cold", r.of("mmap-cold"), r.of("copy-cold")},
		{"the mount, cold, by the most that disk and FUSE allow", r.of("mount-cold"), best},
		{"the mount by a FUSE file of memory, both warm", r.of("mount-warm"), r.of("memory-warm")},
		{"O_DIRECT with one reader by a FUSE file of memory", r.of("direct-1"),
			r.of("memory-direct-1")},
		{fmt.Sprintf("O_DIRECT with %s by a FUSE file of memory", readersText(readers)),
			r.of(direct), r.of("memory-" + direct)},
		{"mount --direct by O_DIRECT, both with " + readersText(readers), r.of("direct-mount"),
			r.of(direct)},
		{"export by dd conv=fsync", r.of("export"), r.of("dd")},
	} {
		if q.value > 0 && q.by > 0 {
			r.Ratios = append(r.Ratios, ratio{q.what, q.value / q.by})
		}
	}
}

// station is a step that every byte passes, with the rate that it allows.
type station struct {
	rate float64
	name string
}

// bottleneck names the slowest part of a cold read of the mount.
func (r *benchReport) bottleneck() {
	mount := r.of("mount-cold")
	stations := []station{
		{r.disk(), "the disk that the source is on"},
		{r.of("virtual-warm"), "computing (decoding, and transposing for grouped layouts)"},
		{r.of("memory-cold"), "FUSE: the kernel's requests and copies"},
	}
	stations = slices.DeleteFunc(stations, func(s station) bool { return s.rate == 0 })
	if mount == 0 || len(stations) < 3 {
		return
	}
	least := slices.MinFunc(stations, func(a, b station) int { return cmp.Compare(a.rate, b.rate) })
	r.Bottleneck = fmt.Sprintf("%s: it allows %s, and the mount reaches %.0f%% of that",
		least.name, gigabytes(least.rate), 100*mount/least.rate)
}

// gigabytes prints bytes per second in GB/s, as disks and networks are rated.
func gigabytes(r float64) string {
	return fmt.Sprintf("%.2f GB/s", r/1e9)
}

func (r *benchReport) write(w io.Writer) error {
	fmt.Fprintf(w, "%s as %s: %s of it, computed from %s of the source; medians of %d %s\n",
		oneLine(r.Source), r.Layout, formatSize(r.SampleBytes), formatSize(r.SourceBytes),
		r.Rounds, plural(r.Rounds, "round", "rounds"))
	fmt.Fprintf(w, "%s, %d cores, %s kernels\n\n", r.Machine.CPU, r.Machine.Cores,
		r.Machine.Kernels)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, m := range r.Measures {
		fmt.Fprintf(table, "%s\t%s\t(%.2f to %.2f)\n", m.What, gigabytes(m.Median), m.Slowest/1e9,
			m.Fastest/1e9)
	}
	fmt.Fprintln(table, "\t\t")
	for _, q := range r.Ratios {
		fmt.Fprintf(table, "%s\t%.2f×\t\n", q.What, q.Value)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if r.Resident > 0 {
		fmt.Fprintf(w, "\nmost memory of the process behind a mount: %s (cache budget %s)\n",
			formatSize(r.Resident), formatSize(r.CacheBudget))
	}
	if r.Bottleneck != "" {
		fmt.Fprintf(w, "bottleneck: %s\n", r.Bottleneck)
	}
	if r.Loader != nil {
		fmt.Fprintln(w, r.Loader)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	return nil
}

// cpuModel is the processor's name.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(),
			":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
