//go:build !race

// The race detector takes many times the memory.

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/testdata/cgroup"
	trial "github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// large has experts of DeepSeek-V3's size, in holes.
var large = synth.Options{Layers: 2, Experts: 4, Hidden: 7168, ExpertIntermediate: 2048,
	DenseIntermediate: 18432, Vocab: 1024}

var neededMemory = regexp.MustCompile(`but (\d+) MiB are needed at least`)

// TestWhatIsNeededIsEnough mounts each layout in a memory cgroup that is too small, which is
// refused. The cgroup of the size that the refusal names then serves 16 readers.
func TestWhatIsNeededIsEnough(t *testing.T) {
	requireFUSE(t)
	plain := large
	plain.Plain = true
	for _, c := range []struct {
		layouts string
		o       synth.Options
	}{{"native", large}, {"hf", large}, {"native,hf,transformers", large}, {"hf-fp8", plain}} {
		t.Run(c.layouts, func(t *testing.T) {
			s := newSession(t)
			if err := errors.Join(os.RemoveAll(s.source),
				synth.Holes(c.o).Write(s.source)); err != nil {
				t.Fatal(err)
			}
			const tooSmall = 32
			_, out, err := s.mountWithin(tooSmall, c.layouts)
			wantRefusal(t, "32 MiB", out, err, "too little memory: ", "allows 32 MiB")
			m := neededMemory.FindSubmatch(out)
			if m == nil {
				t.Fatal("it does not say what is needed")
			}
			mib, _ := strconv.ParseInt(string(m[1]), 10, 64)
			end, out, err := s.mountWithin(mib, c.layouts)
			if err != nil {
				t.Fatalf("in the %d MiB that it needs: %v, %s", mib, err, out)
			}
			readHard(t, s.files())
			if err := end(); err != nil {
				t.Errorf("in the %d MiB that it needs: %v", mib, err)
			}
		})
	}
}

// mountWithin mounts in a memory cgroup. It returns a function that ends the mount, or the message
// of the refusal.
func (s *session) mountWithin(mib int64, layouts string) (end func() error, said []byte,
	err error) {
	s.t.Helper()
	group, err := cgroup.New(mib << 20)
	if err != nil {
		s.t.Skip(err)
	}
	s.t.Cleanup(func() {
		if err := group.Remove(); err != nil {
			s.t.Error(err)
		}
	})
	var out bytes.Buffer
	c := s.as(exec.Command("sh", "-c", `echo $$ >"$0" && exec "$@"`, group.Procs(), s.program,
		"mount", "-f", "--layout", layouts, s.source, s.mnt))
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		if all, _ := mountsBelow(s.mnt); len(all) > 0 {
			return func() error {
				return errors.Join(c.Process.Signal(unix.SIGTERM),
					<-ended)
			}, nil, nil
		}
		select {
		case err := <-ended:
			return nil, out.Bytes(), err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// readHard reads at random with 18 readers for a while, in the ways that take the most memory of a
// mount.
func readHard(t *testing.T, names []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(trial.Count(2, 60))*time.Second)
	defer cancel()
	var all atomic.Int64
	var readers sync.WaitGroup
	for _, seed := range trial.Seeds(t) {
		for i := range 6 {
			readers.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for ctx.Err() == nil {
					n, err := readStretch(ctx, names[rng.IntN(len(names))], rng)
					if err != nil {
						t.Error(err)
						return
					}
					all.Add(n)
				}
			})
		}
	}
	readers.Wait()
	if all.Load() == 0 {
		t.Error("nothing was read")
	}
}

func readStretch(ctx context.Context, name string, rng *rand.Rand) (n int64, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|rng.IntN(2)*unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !strings.HasSuffix(name, ".safetensors") {
		return 0, err
	}
	buf := make([]byte, 16<<20)
	off := rng.Int64N(info.Size()) &^ 4095
	for range 1 + rng.IntN(16) {
		piece := buf[:64<<10<<rng.IntN(9)]
		got, err := f.ReadAt(piece, off)
		if n, off = n+int64(got), off+int64(got); errors.Is(err, io.EOF) || ctx.Err() != nil {
			break
		}
		if err != nil {
			return n, err
		}
	}
	return n, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
