package fs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs/units"
)

// slowFS is a tree over a source that answers when it is released, and its log. What takes longer
// than a hundredth of a second is slow there.
func slowFS(t *testing.T, o Options,
	tensors func(*memory) []adapter.Tensor) (f *FS, log *logTo, release func()) {
	t.Helper()
	hold := make(chan struct{})
	file := &memory{name: "source"}
	file.hook = func(_ int64, n int) error {
		if n >= 4096 {
			<-hold
		}
		return nil
	}
	log = &logTo{}
	o.Logger, o.slowAfter = slog.New(slog.NewTextHandler(log, nil)), 10*time.Millisecond
	f = treeOf(t, o, tensors(file)...)
	release = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	return f, log, release
}

// wantLogged waits until one line of a log has all the parts.
func wantLogged(t *testing.T, log *logTo, parts ...string) {
	t.Helper()
	eventually(t, "a line with "+strings.Join(parts, ", ")+" in the log", func() bool {
		for line := range strings.Lines(log.String()) {
			all := true
			for _, p := range parts {
				all = all && strings.Contains(line, p)
			}
			if all {
				return true
			}
		}
		return false
	})
}

// plainTensor is a tensor that is shown as it is stored.
func plainTensor(t *testing.T, file *memory) []adapter.Tensor {
	t.Helper()
	file.size = 64 << 20
	n, err := expr.Load(&expr.Source{Key: "plain", File: file, DType: safetensors.U8,
		Shape: []int64{file.size}})
	if err != nil {
		t.Fatal(err)
	}
	return []adapter.Tensor{{Name: "plain", Node: n}}
}

func TestTheLogSaysWhatSlowReadsWaitFor(t *testing.T) {
	experts := func(x expertShape) func(*memory) []adapter.Tensor {
		return func(file *memory) []adapter.Tensor {
			gateUp, down := x.layer(t, file)
			return []adapter.Tensor{gateUp, down}
		}
	}
	small := expertShape{experts: 8, hidden: 256, intermediate: 256}
	t.Run("the source", func(t *testing.T) {
		f, log, release := slowFS(t, Options{}, func(file *memory) []adapter.Tensor {
			return plainTensor(t, file)
		})
		done := readInBackground(t, f, 1<<20)
		wantLogged(t, log, "a read is taking long", "what=\"model.safetensors: plain\"",
			"offset=1048576 bytes=8192", `waits_now_for="the source"`)
		release()
		<-done
		wantLogged(t, log, "a read took long", "the source ", "(1 times, at most ")
	})
	t.Run("a unit and room", func(t *testing.T) {
		f, log, release := slowFS(t, Options{CacheSize: 1}, experts(small))
		one := readInBackground(t, f, 8192)
		eventually(t, "one reads", func() bool { return f.Stats().Waiting == 1 })
		same := readInBackground(t, f, 8192)
		other := readInBackground(t, f, 8192+4*4*small.hidden*small.intermediate)
		wantLogged(t, log, "a read is taking long", `waits_now_for="a unit that is being computed"`)
		wantLogged(t, log, "a read is taking long", `waits_now_for="room in the tensor cache"`)
		release()
		for _, done := range []chan struct{}{one, same, other} {
			<-done
		}
		wantLogged(t, log, "a read took long", "a unit that is being computed ", "unit=")
		wantLogged(t, log, "a read took long", "room in the tensor cache ")
		wantLogged(t, log, "a unit took long to compute", "unit=", "the source ")
	})
	t.Run("a turn", func(t *testing.T) {
		f, log, release := slowFS(t, Options{}, experts(small))
		limit(f, func(l *units.Limits) { l.Strips = 0 })
		done := readInBackground(t, f, 8192)
		wantLogged(t, log, "a read is taking long")
		limit(f, func(l *units.Limits) { l.Strips = 1 })
		release()
		<-done
		wantLogged(t, log, "a unit took long to compute", "its turn to be computed ")
	})
	t.Run("read-ahead", func(t *testing.T) {
		f, log, release := slowFS(t, Options{}, func(file *memory) []adapter.Tensor {
			return plainTensor(t, file)
		})
		s := f.session(context.Background(), f.find(singleName).content.(*file), 4096, 4096)
		defer s.end(false)
		s.file.ranges(4096, 4096+1<<20, func(of expr.File, off, n int64) bool {
			if !s.read.ReadAhead(of, off, n, 4096+1<<20) {
				t.Fatal("nothing is read ahead")
			}
			go func() { time.Sleep(20 * time.Millisecond); release() }()
			_, e, _ := s.read.Lend(of, off, int(n), 1)
			if e == nil {
				t.Fatal("nothing was lent")
			}
			e.Release()
			return true
		})
		wantLogged(t, log, "reading ahead of the source took long", "file=source")
		if waited := fmt.Sprint(s.read.Waited()); !strings.Contains(waited,
			"source bytes that are being read ahead ") {
			t.Errorf("waited for %s", waited)
		}
	})
}

// readInBackground reads 8 KiB at an offset; the channel is closed when that is done.
func readInBackground(t *testing.T, f *FS, off int64) chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := f.ReaderAt(singleName)
		if err == nil {
			_, err = r.ReadAt(make([]byte, 8192), off)
		}
		if err != nil {
			t.Error(err)
		}
	}()
	return done
}

func TestSlowLinesAreFewInAMinute(t *testing.T) {
	var l fewLines
	now := time.Unix(6000, 0)
	for i := range 2 * slowLines {
		if _, ok := l.may(now); ok != (i < slowLines) {
			t.Errorf("line %d of a minute: %v", i, ok)
		}
	}
	if dropped, ok := l.may(now.Add(time.Minute)); dropped != slowLines || !ok {
		t.Errorf("a minute later: %d dropped, %v", dropped, ok)
	}
	if dropped, ok := l.may(now.Add(time.Minute)); dropped != 0 || !ok {
		t.Errorf("and the next line: %d dropped, %v", dropped, ok)
	}
}
