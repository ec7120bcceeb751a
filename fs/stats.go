package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/fs/units"
)

// counters count the work of a filesystem.
type counters struct {
	bytes, reads                  atomic.Int64
	requests, interrupted, errors atomic.Int64
	active, splits                atomic.Int64
	opened                        atomic.Int64
	last                          atomic.Int64 // unix ns of the last request's end
	kinds                         sync.Map     // errno name → *atomic.Int64
	latency                       [kinds]histogram
}

// Stats is a snapshot of what a filesystem has read, returned and kept.
type Stats struct {
	Bytes    int64 `json:"bytes"`    // given to readers
	Reads    int64 `json:"reads"`    // calls of ReadAt, READ requests among them
	Requests int64 `json:"requests"` // READ requests of the kernel
	Active   int64 `json:"active"`   // reads under way
	Splits   int64 `json:"splits"`   // pieces of reads given to other cores

	OpenFiles     int64         `json:"open_files"`     // handles that the kernel holds
	LastRequest   time.Time     `json:"last_request"`   // when the kernel's last request ended
	OldestRequest time.Duration `json:"oldest_request"` // age of the oldest read under way
	// some of the reads under way: file and tensor
	Reading []string `json:"reading"`

	// Decoding ahead of loaders, see forerun. Bytes leaves it out.
	Ahead AheadStats `json:"ahead"`

	units.Stats

	Errors      int64 `json:"errors"`      // reads that failed
	Interrupted int64 `json:"interrupted"` // reads given up by the reader
	// errors returned to the kernel, by name of the errno
	ErrorKinds map[string]int64 `json:"error_kinds"`

	Latency map[string]Histogram `json:"latency"` // of reads, by kind of recipe

	// Network is what was transferred from a source over a network. It is nil for other sources.
	Network *source.Traffic `json:"network,omitempty"`
}

// AheadStats is what was decoded ahead of loaders and stored in the kernel's page cache. Reads that
// the kernel answers from there are not seen, so it is not known which of it was read.
type AheadStats struct {
	Bytes  int64 `json:"bytes"`  // stored
	Unread int64 `json:"unread"` // of them, what no loader has come to yet
	Errors int64 `json:"errors"` // attempts that failed; no reader has seen them
}

// Histogram counts durations in seconds. Counts[i] of them are at most Bounds[i] and more than the
// bound before it. The last count is of durations beyond all bounds.
type Histogram struct {
	Bounds []float64 `json:"bounds"`
	Counts []uint64  `json:"counts"`
	Sum    float64   `json:"sum"`
	Count  uint64    `json:"count"`
}

// kind is the kind of work that a read takes.
type kind uint8

const (
	kindHeader kind = iota
	kindIdentity
	kindDequantize
	kindTranspose
	kinds
)

var kindNames = [kinds]string{"header", "identity", "dequantize", "transpose"}

// bounds is the number of bounds of a histogram: 100 µs, doubled up to 26 s.
const bounds = 19

// histogram collects the counts of a Histogram.
type histogram struct {
	counts [bounds + 1]atomic.Uint64
	ns     atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	i := 0
	for limit := 100 * time.Microsecond; i < bounds && d > limit; limit *= 2 {
		i++
	}
	h.counts[i].Add(1)
	h.ns.Add(int64(d))
}

func (h *histogram) snapshot() Histogram {
	s := Histogram{Sum: float64(h.ns.Load()) / 1e9}
	for i, limit := 0, 100e-6; i < bounds; i, limit = i+1, limit*2 {
		s.Bounds = append(s.Bounds, limit)
	}
	for i := range h.counts {
		n := h.counts[i].Load()
		s.Counts = append(s.Counts, n)
		s.Count += n
	}
	return s
}

// errorKind counts an errno that the kernel was given.
func (c *counters) errorKind(name string) {
	n, ok := c.kinds.Load(name)
	if !ok {
		n, _ = c.kinds.LoadOrStore(name, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
}

// Stats returns a snapshot of the counters and of the memory in use.
func (f *FS) Stats() Stats {
	c := &f.counters
	s := Stats{
		Bytes: c.bytes.Load(), Reads: c.reads.Load(), Requests: c.requests.Load(),
		Active: c.active.Load(), Splits: c.splits.Load(), OpenFiles: c.opened.Load(),
		Errors: c.errors.Load(), Interrupted: c.interrupted.Load(), Stats: f.units.Stats(),
		ErrorKinds: map[string]int64{}, Latency: map[string]Histogram{},
	}
	if ns := c.last.Load(); ns > 0 {
		s.LastRequest = time.Unix(0, ns)
	}
	c.kinds.Range(func(name, n any) bool {
		s.ErrorKinds[name.(string)] = n.(*atomic.Int64).Load()
		return true
	})
	for k := range kinds {
		s.Latency[kindNames[k]] = c.latency[k].snapshot()
	}
	f.live.stats(&s)
	s.Network = f.traffic()
	if r := f.ahead.Load(); r != nil {
		r.stats(&s.Ahead)
	}
	return s
}
