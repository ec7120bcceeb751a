package fs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// bomb panics where it is put, as long as it is armed, once it is released.
type bomb struct {
	armed   atomic.Bool
	release chan struct{}
}

func (b *bomb) tick() error {
	if b.armed.Load() {
		<-b.release
		panic("it went off")
	}
	return nil
}

// bombNode is a recipe that panics when it is read.
type bombNode struct {
	expr.Node
	bomb *bomb
}

func (n bombNode) ReadAt(env expr.Env, p []byte, off int64) error {
	n.bomb.tick()
	return n.Node.ReadAt(env, p, off)
}

// bombFile is a file each read of which needs a unit that panics.
type bombFile struct {
	*file
	bomb *bomb
}

// bombUnit is a unit of the tensor cache that panics when it is filled.
type bombUnit struct{ bomb *bomb }

func (u bombUnit) Key() expr.UnitKey { return expr.UnitKey{Offset: 1} }
func (u bombUnit) Size() int64       { return 1000 }
func (u bombUnit) String() string    { return "unit 1" }

func (u bombUnit) Fill(expr.FillEnv, []byte) error { return u.bomb.tick() }

func (f bombFile) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if !f.bomb.armed.Load() {
		return f.file.ReadAtContext(ctx, p, off)
	}
	s := f.fs.session(ctx, f.file, off, int64(len(p)))
	defer s.end(false)
	s.read.Want(bombUnit{f.bomb})
	return 0, s.read.Acquire()
}

// bombed are the places where a panic may happen, each with what it leaves in the log.
var bombed = map[string]struct {
	put   func(f *FS, source *memory, b *bomb)
	begin func(t *testing.T, f *FS, shard *os.File) // before the readers come
	wait  func(Stats) int64                         // readers that are at the place
	n     int                                       // bytes that each reader asks for
	log   []string
}{
	"handler": {
		put: func(f *FS, _ *memory, b *bomb) {
			s := f.find(singleName).content.(*file).segments[1]
			s.node = bombNode{s.node, b}
		},
		wait: func(s Stats) int64 { return s.Active },
		n:    512 << 10, log: []string{"in=" + singleName, "bombNode"},
	},
	"fill": {
		put: func(f *FS, _ *memory, b *bomb) {
			n := f.find(singleName)
			n.content = bombFile{n.content.(*file), b}
		},
		wait: func(s Stats) int64 { return s.Waiting },
		n:    4096, log: []string{`in="fill of unit 1"`, "bombUnit"},
	},
	"strip": {
		put: func(_ *FS, source *memory, b *bomb) {
			source.hook = func(int64, int) error { return b.tick() }
		},
		wait: func(s Stats) int64 { return s.Waiting },
		n:    4096, log: []string{"in=strip", "fillStrip"},
	},
	"prefetch": {
		put: func(_ *FS, source *memory, b *bomb) {
			source.hook = func(off int64, _ int) error {
				if off < bombShape.expertSize() {
					return nil
				}
				return b.tick()
			}
		},
		begin: readUntilAPrefetch,
		wait:  func(s Stats) int64 { return s.Waiting },
		n:     4096, log: []string{"in=strip", "fillStrip"},
	},
}

var bombShape = expertShape{experts: 4, hidden: 256, intermediate: 256}

// expertSize is what an expert takes in the source: three matrices of codes with their scales.
func (x expertShape) expertSize() int64 {
	return 3 * (x.hidden*x.intermediate + 4*(x.hidden/128)*(x.intermediate/128))
}

// readUntilAPrefetch reads the first expert from its start, until the second is being fetched
// ahead.
func readUntilAPrefetch(t *testing.T, f *FS, shard *os.File) {
	t.Helper()
	for off := range int64(enough) {
		if _, err := shard.ReadAt(make([]byte, 4096), 4096+off*4096); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the second expert is being fetched", func() bool {
		s := f.Stats()
		return s.Prefetches > 0 && s.Filling > 0
	})
}

// Whatever panics, each reader that waits gets EIO, the log has the stack, nothing stays pinned and
// the mount lives.
func TestAPanicReachesEveryWaiter(t *testing.T) {
	const readers = 8
	fresh, _ := layerFS(t, bombShape, Options{})
	want := readTree(t, fresh, singleName)
	for name, place := range bombed {
		t.Run(name, func(t *testing.T) {
			log := &logTo{}
			f, source := layerFS(t, bombShape,
				Options{Workers: 4, Logger: slog.New(slog.NewTextHandler(log, nil))})
			b := &bomb{release: make(chan struct{})}
			release := sync.OnceFunc(func() { close(b.release) })
			b.armed.Store(true)
			place.put(f, source, b)
			_, root := mountFS(t, f, MountOptions{})
			defer release()
			path := filepath.Join(root, singleName)
			shard, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer shard.Close()
			off := int64(4096)
			if place.begin != nil {
				place.begin(t, f, shard)
				off += 4 * bombShape.hidden * bombShape.intermediate // the second expert
			}
			var wg sync.WaitGroup
			for range readers {
				wg.Go(func() {
					if n, err := shard.ReadAt(make([]byte, place.n), off); n != 0 ||
						!errors.Is(err, unix.EIO) {
						t.Errorf("a reader got %d bytes, %v", n, err)
					}
				})
			}
			eventually(t, "all readers wait", func() bool {
				return place.wait(f.Stats()) == readers
			})
			release()
			wg.Wait()
			wantIdle(t, f)
			for _, part := range append(place.log, "it went off", "stack=") {
				if !strings.Contains(log.String(), part) {
					t.Errorf("no %q in the log: %s", part, log)
				}
			}
			if f.Stats().Panics == 0 {
				t.Error("no panic is counted")
			}
			b.armed.Store(false)
			if got, err := readDirect(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("afterwards: %d bytes of %d, or others, %v", len(got), len(want), err)
			}
		})
	}
}
