package source_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// slowNode is a file of a FUSE file system whose reads wait until it is let go.
type slowNode struct {
	gofs.Inode
	asked   chan struct{} // told of each read
	release chan struct{}
}

const slowBytes = 1 << 20

// slowByte is what every byte of the file is.
const slowByte = 0x5a

func (n *slowNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o444|syscall.S_IFREG, slowBytes
	return 0
}

func (n *slowNode) Open(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (n *slowNode) Read(
	_ context.Context, _ gofs.FileHandle, dest []byte, _ int64,
) (fuse.ReadResult, syscall.Errno) {
	n.asked <- struct{}{}
	<-n.release
	return fuse.ReadResultData(bytes.Repeat([]byte{slowByte}, len(dest))), 0
}

// slowFile mounts a file that does not answer, and opens it. Let go lets all reads end.
func slowFile(t *testing.T) (f source.File, n *slowNode, letGo func()) {
	t.Helper()
	dir := t.TempDir()
	n = &slowNode{asked: make(chan struct{}, 1000), release: make(chan struct{})}
	root := &gofs.Inode{}
	server, err := gofs.Mount(dir, root, &gofs.Options{
		OnAdd: func(ctx context.Context) {
			attr := gofs.StableAttr{Mode: syscall.S_IFREG}
			root.AddChild("slow", root.NewPersistentInode(ctx, n, attr), true)
		},
	})
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ","), "fuse") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	letGo = sync.OnceFunc(func() { close(n.release) })
	t.Cleanup(func() {
		letGo()
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	f = opened(t, filepath.Join(dir, "slow"))
	t.Cleanup(letGo) // before the file is closed
	return f, n, letGo
}

// mute is a context that has no channel, as that of a READ of a mount.
type mute struct{ context.Context }

func (mute) Done() <-chan struct{} { return nil }

func TestAReaderLeavesASourceThatDoesNotAnswer(t *testing.T) {
	f, n, letGo := slowFile(t)
	for name, wrap := range map[string]func(context.Context) context.Context{
		"a channel":  func(ctx context.Context) context.Context { return ctx },
		"no channel": func(ctx context.Context) context.Context { return mute{ctx} },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		p := make([]byte, 4096)
		end := make(chan error)
		go func() {
			_, err := f.ReadAt(wrap(ctx), p, 0)
			end <- err
		}()
		<-n.asked
		cancel()
		err := <-end
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "slow") {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(p, make([]byte, len(p))) {
			t.Errorf("%s: bytes were written", name)
		}
		defer func() {
			if !bytes.Equal(p, make([]byte, len(p))) {
				t.Errorf("%s: bytes were written after the read", name)
			}
		}()
	}
	letGo()
	for _, size := range []int{1, 4096, 300_000} { // also more than one errand reads
		p := make([]byte, size)
		m, err := f.ReadAt(t.Context(), p, 5)
		if m != size || err != nil || bytes.Count(p, []byte{slowByte}) != size {
			t.Errorf("%d bytes, %v", m, err)
		}
	}
}

// Each read that the source does not answer keeps a thread, so there must not be more and more.
func TestReadersThatLeaveDoNotPileUp(t *testing.T) {
	f, n, letGo := slowFile(t)
	const readers, most = 200, 32
	ctx, cancel := context.WithCancel(t.Context())
	var left sync.WaitGroup
	for i := range readers {
		left.Go(func() {
			_, err := f.ReadAt(ctx, make([]byte, 16), int64(i)*16)
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for range most {
		<-n.asked
	}
	before := runtime.NumGoroutine()
	cancel()
	left.Wait()
	if got := runtime.NumGoroutine(); got > before-readers+10 {
		t.Errorf("%d goroutines are left of %d", got, before)
	}
	if got := len(n.asked); got > 0 {
		t.Errorf("%d reads more than %d were begun", got, most)
	}
	letGo()
	if _, err := f.ReadAt(t.Context(), make([]byte, 16), 0); err != nil {
		t.Error(err)
	}
}

// Readers that can leave read by errands, the others at once.
func TestPatientAndImpatientReadersGetTheSameBytes(t *testing.T) {
	f, want, path := large(t)
	source.OnServer(f)
	all := len(want)
	parts := [][2]int{{0, 1}, {4095, 4098}, {100, 1 << 20}, {0, all}, {all - 7, all}}
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		for _, cold := range []bool{true, false} {
			for _, part := range parts {
				if cold {
					forget(t, path)
				}
				p := make([]byte, part[1]-part[0])
				n, err := f.ReadAt(ctx, p, int64(part[0]))
				if n != len(p) || err != nil || !bytes.Equal(p, want[part[0]:part[1]]) {
					t.Errorf("%v: %d bytes, or others, %v", part, n, err)
				}
			}
		}
	}
}

func TestColdReadsDoNotAllocateForLong(t *testing.T) {
	f, _, path := large(t)
	source.OnServer(f)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	p := make([]byte, 64<<10)
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		_ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
		if _, err := f.ReadAt(ctx, p, 8); err != nil {
			t.Fatal(err)
		}
	}); n > 2 { // the pool may lose errands
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkReadAt reads a file that is in memory, with and without a context that may end.
func BenchmarkReadAt(b *testing.B) {
	path := filepath.Join(b.TempDir(), fileName)
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o644); err != nil {
		b.Fatal(err)
	}
	f := opened(b, path)
	for _, size := range []int{4 << 10, 128 << 10, 1 << 20} {
		for _, ctx := range []context.Context{context.Background(), b.Context()} {
			name := map[bool]string{true: "forever", false: "patient"}[ctx == context.Background()]
			b.Run(fmt.Sprintf("%s/%dk", name, size>>10), func(b *testing.B) {
				p := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := f.ReadAt(ctx, p, 0); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
