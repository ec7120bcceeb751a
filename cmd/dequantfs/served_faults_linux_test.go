package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/fs/mounts"
	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	trial "github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/stores"
)

// faulty is a store behind proxies: the Hub has one, and its storage another one.
type faulty struct {
	place
	proxies []*faultproxy.Proxy
}

// faultyKinds put a folder into each store, behind proxies.
var faultyKinds = map[string]func(t *testing.T, folder string) *faulty{
	"s3":    behindProxy(func(t *testing.T) *stores.Server { return stores.S3(t, "") }),
	"moto":  behindProxy(func(t *testing.T) *stores.Server { return stores.Moto(t) }),
	"gcs":   behindProxy(func(t *testing.T) *stores.Server { return stores.GCS(t) }),
	"azure": behindProxy(func(t *testing.T) *stores.Server { return stores.Azure(t) }),
	"https": func(t *testing.T, folder string) *faulty {
		a := stores.NewAuthority(t)
		s := stores.Files(t, "", stores.FileOptions{Authority: a})
		p := faultproxy.NewTLS(t, s.URL, faultproxy.Plan{}, a.Certificate, a.Pool)
		return asFaulty(t, s, p, folder)
	},
	"hub": func(t *testing.T, folder string) *faulty {
		storage := stores.S3(t, "")
		behind := faultproxy.New(t, storage.URL, faultproxy.Plan{})
		h := stores.StartHub(t, stores.HubOptions{Storage: storage.At(behind.URL)})
		h.Put(t, "org/model", folder)
		front := faultproxy.New(t, h.URL, faultproxy.Plan{})
		return &faulty{place{h.Source("org/model"), h.EnvAt(front.URL)},
			[]*faultproxy.Proxy{front, behind}}
	},
}

func behindProxy(start func(*testing.T) *stores.Server) func(*testing.T, string) *faulty {
	return func(t *testing.T, folder string) *faulty {
		s := start(t)
		return asFaulty(t, s, faultproxy.New(t, s.URL, faultproxy.Plan{}), folder)
	}
}

func asFaulty(t *testing.T, s *stores.Server, p *faultproxy.Proxy, folder string) *faulty {
	s.Put(t, "org/model", folder)
	through := s.At(p.URL)
	return &faulty{place{through.Source("org/model"), through.Env()}, []*faultproxy.Proxy{p}}
}

func (f *faulty) set(plan faultproxy.Plan) {
	for _, p := range f.proxies {
		p.Set(plan)
	}
}

func (f *faulty) faults() (n int) {
	for _, p := range f.proxies {
		n += p.Faults()
	}
	return n
}

// counts adds the faults of all proxies to others.
func (f *faulty) counts(to map[faultproxy.Kind]int) {
	for _, p := range f.proxies {
		for k, n := range p.Counts() {
			to[k] += n
		}
	}
}

// Bounds of a mount that has faults. The timeout makes faults cheap, and no test needs it to be
// short. A hang is what lasts longer than all tries of a read can take.
const (
	faultTimeout = "100ms"
	faultRate    = 0.35
	faultReaders = 8
	faultHang    = 2 * time.Minute
	quietFaults  = 2 * time.Second
)

// Through faults of all kinds, a mount of each store shows the bytes of the local mount or an
// error, every read ends, and the mount can be ended at any moment. A mount has all files, or is
// refused.
func TestServedFaultsGiveNoWrongBytes(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	models := []string{filepath.Join(s.dir, "large"), golden4bit(t, s.dir)}
	if err := writeLarge(models[0]); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"generation_config.json", "tokenizer_config.json"} {
		if err := os.WriteFile(filepath.Join(models[0], name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var wants []map[string][]byte
	for _, model := range models {
		s.run("mount", model, s.mnt, "--layout", "hf")
		wants = append(wants, tree(t, s.mnt))
		s.run("umount", s.mnt)
	}
	seeds := trial.Seeds(t)
	most := trial.Count(300, 10_000)/len(faultyKinds)/len(models) + 1
	var mu sync.Mutex
	total := map[faultproxy.Kind]int{}
	t.Run("stores", func(t *testing.T) {
		for kind, start := range faultyKinds {
			t.Run(kind, func(t *testing.T) {
				t.Parallel() // it waits most of the time
				for i, model := range models {
					r := &faultRun{session: newSession(t), store: start(t, model), want: wants[i]}
					r.run(t, seeds[i], most)
					mu.Lock()
					r.store.counts(total)
					mu.Unlock()
				}
			})
		}
	})
	delete(total, faultproxy.None)
	sum := 0
	for _, n := range total {
		sum += n
	}
	t.Logf("%d faults: %v", sum, total)
	if sum < trial.Count(300, 10_000) && !t.Failed() {
		t.Errorf("only %d faults", sum)
	}
}

// faultRun mounts one checkpoint of one store again and again.
type faultRun struct {
	*session
	store *faulty
	want  map[string][]byte

	mounted, refused    int
	right, failed       atomic.Int64
	longest, longestEnd time.Duration // of a read, and of an end
	mu                  sync.Mutex
}

// run mounts until there were enough faults.
func (r *faultRun) run(t *testing.T, seed uint64, most int) {
	for i := uint64(0); r.store.faults() < most && !t.Failed(); i++ {
		rng := rand.New(rand.NewPCG(seed, i))
		plan := faultproxy.Plan{Seed: seed + i<<32, Rate: faultRate * rng.Float64(), InARow: 4,
			Storm: 1 + rng.IntN(4)}
		if i%2 == 1 { // opened without faults, and read with more
			plan.Rate = 0
		}
		r.store.set(plan)
		if !r.mount(t) {
			continue
		}
		plan.Rate = faultRate + 0.4*rng.Float64()
		plan.InARow = 0
		r.store.set(plan)
		r.read(t, rng, r.store.faults()+20+rng.IntN(40))
	}
	t.Logf("%d mounts, %d refused; %d reads, %d failed; the longest read %v, the longest end %v",
		r.mounted, r.refused, r.right.Load()+r.failed.Load(), r.failed.Load(), r.longest,
		r.longestEnd)
	if r.mounted == 0 || r.right.Load() == 0 {
		t.Error("nothing was read")
	}
}

// mount mounts the source, and reports whether that was possible. Then all files are there.
func (r *faultRun) mount(t *testing.T) bool {
	c := r.store.from(r.command("mount", r.store.source, r.mnt, "--layout", "hf", "--drain",
		"100ms",
		"--remote-timeout", faultTimeout, "--remote-memory", "8MiB", "--cache-size", "0",
		"--quiet"))
	c.Stderr = new(bytes.Buffer)
	if err := c.Run(); err != nil {
		r.refused++
		if _, found, _ := mounts.Top(r.mnt); found {
			t.Errorf("refused, but mounted: %s", c.Stderr)
		}
		return false
	}
	r.mounted++
	names := map[string]bool{}
	for _, f := range r.files() {
		rel, err := filepath.Rel(r.mnt, f)
		if err != nil {
			t.Fatal(err)
		}
		names[rel] = true
	}
	for name, data := range r.want {
		info, err := os.Stat(filepath.Join(r.mnt, name))
		if err != nil {
			t.Error(err)
		} else if info.Size() != int64(len(data)) {
			r.unreadable(t, name)
		}
	}
	if len(names) != len(r.want) {
		t.Errorf("%d files, want %d", len(names), len(r.want))
	}
	return true
}

// unreadable requires that a file of a wrong size cannot be read. A web server that says it in the
// first answer is not contradicted by a listing.
func (r *faultRun) unreadable(t *testing.T, name string) {
	t.Helper()
	if data, err := os.ReadFile(filepath.Join(r.mnt, name)); err == nil {
		t.Errorf("%s has %d bytes, want %d", name, len(data), len(r.want[name]))
	}
}

// read reads with several readers until there were so many faults, or none for a while since all is
// in memory. Then it ends the mount, while it is read.
func (r *faultRun) read(t *testing.T, rng *rand.Rand, until int) {
	pid := r.status().PID
	var end atomic.Bool
	var group sync.WaitGroup
	for i := range uint64(faultReaders) {
		seed := rng.Uint64()
		group.Go(func() {
			reader := rand.New(rand.NewPCG(seed, i))
			for !end.Load() && !t.Failed() {
				r.readSome(t, reader)
			}
		})
	}
	for n, last := 0, time.Now(); n < until && time.Since(last) < quietFaults; {
		time.Sleep(time.Duration(1+rng.IntN(20)) * time.Millisecond)
		if now := r.store.faults(); now > n {
			n, last = now, time.Now()
		}
	}
	r.end(t, pid, rng.IntN(2) == 0)
	end.Store(true)
	group.Wait()
}

// readSome reads a range of a file, mostly past the kernel's cache.
func (r *faultRun) readSome(t *testing.T, rng *rand.Rand) {
	names := make([]string, 0, len(r.want))
	for name := range r.want {
		names = append(names, name)
	}
	slices.Sort(names)
	name := names[rng.IntN(len(names))]
	want := r.want[name]
	hung := time.AfterFunc(faultHang, func() { panic("a read hangs: " + name) })
	defer hung.Stop()
	began := time.Now()
	flags := os.O_RDONLY
	if rng.IntN(8) > 0 {
		flags |= syscall.O_DIRECT
	}
	f, err := os.OpenFile(filepath.Join(r.mnt, name), flags, 0)
	if err != nil {
		time.Sleep(time.Millisecond) // the mount has ended
		return
	}
	defer f.Close()
	off := rng.Int64N(int64(len(want)))
	p := make([]byte, 1+rng.Int64N(min(int64(len(want))-off, 4<<20)))
	n, err := f.ReadAt(p, off)
	r.note(time.Since(began), &r.longest)
	if !bytes.Equal(p[:n], want[off:off+int64(n)]) {
		t.Errorf("%s: wrong bytes in [%d, %d)", name, off, off+int64(n))
	}
	switch {
	case err == nil || err == io.EOF && off+int64(n) == int64(len(want)):
		r.right.Add(1)
	case isReadError(err):
		r.failed.Add(1)
	default:
		t.Errorf("%s: %v", name, err)
	}
}

// isReadError reports whether a read may fail so. The last ones are those of a mount that has
// ended.
func isReadError(err error) bool {
	for _, e := range []error{syscall.EIO, syscall.ESTALE, syscall.ENOTCONN, syscall.ECONNABORTED,
		syscall.EINTR, syscall.ENODEV} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (r *faultRun) note(d time.Duration, longest *time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*longest = max(*longest, d)
}

// endsWithin is how long the end of a mount may take, although its reads wait for the network.
const endsWithin = 5 * time.Second

// end ends the mount while it is read.
func (r *faultRun) end(t *testing.T, pid int, lazily bool) {
	t.Helper()
	began := time.Now()
	var err error
	if lazily {
		var out []byte
		if out, err = r.command("umount", "--lazy", r.mnt).CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	} else {
		err = syscall.Kill(pid, syscall.SIGTERM)
	}
	if err != nil {
		t.Fatal(err)
	}
	patiently(t, "the mount is gone", func() bool {
		_, found, _ := mounts.Top(r.mnt)
		return !found
	})
	took := time.Since(began)
	r.note(took, &r.longestEnd)
	if took > endsWithin {
		t.Errorf("the mount is gone after %v (lazily: %v)", took, lazily)
	}
	patiently(t, "the process has ended", func() bool { return ended(pid) })
}
