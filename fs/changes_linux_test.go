package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/mutate"
	"github.com/dequantfs/dequantfs/testdata/synth"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// faults are injected into the reads of a faulty mount. They are safe for concurrent use.
type faults struct {
	mu   sync.Mutex
	err  syscall.Errno
	from int64         // err is for reads that reach beyond it
	flip bool          // reads give other bytes
	hold chan struct{} // reads wait until it is closed
	held atomic.Int64  // reads that wait
}

// fail makes every later read fail. With 0 they succeed again.
func (f *faults) fail(err syscall.Errno) { f.failFrom(0, err) }

// failFrom does the same for reads that reach beyond an offset.
func (f *faults) failFrom(from int64, err syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from, f.err = from, err
}

// lie makes every later read return other bytes.
func (f *faults) lie() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flip = true
}

// stall makes every later read wait for release.
func (f *faults) stall() (release func()) {
	hold := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = hold
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hold = nil
		close(hold)
	})
}

// meet applies the faults to a read up to end.
func (f *faults) meet(end int64) (flip bool, err syscall.Errno) {
	f.mu.Lock()
	err, hold, flip := f.err, f.hold, f.flip
	if end <= f.from {
		err = 0
	}
	f.mu.Unlock()
	if hold != nil {
		f.held.Add(1)
		<-hold
		f.held.Add(-1)
	}
	return flip, err
}

// faultyNode is a file or directory of a faulty mount.
type faultyNode struct {
	*gofs.LoopbackNode
	faults *faults
}

// WrapChild makes child nodes faulty, too.
func (n *faultyNode) WrapChild(_ context.Context, ops gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &faultyNode{ops.(*gofs.LoopbackNode), n.faults}
}

// Open makes every read reach the handle.
func (n *faultyNode) Open(ctx context.Context,
	flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	h, _, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &faultyHandle{h, n.faults}, fuse.FOPEN_DIRECT_IO, 0
}

// faultyHandle is an open file of a faulty mount.
type faultyHandle struct {
	file   gofs.FileHandle
	faults *faults
}

// Read reads the file unless a fault comes first.
func (h *faultyHandle) Read(ctx context.Context, dest []byte,
	off int64) (fuse.ReadResult, syscall.Errno) {
	flip, errno := h.faults.meet(off + int64(len(dest)))
	if errno != 0 {
		return nil, errno
	}
	got, errno := h.file.(gofs.FileReader).Read(ctx, dest, off)
	if errno != 0 || !flip {
		return got, errno
	}
	p, status := got.Bytes(make([]byte, len(dest)))
	for i := range p {
		p[i] ^= 0x5a
	}
	return fuse.ReadResultData(p), syscall.Errno(status)
}

// Release closes the file.
func (h *faultyHandle) Release(ctx context.Context) syscall.Errno {
	return h.file.(gofs.FileReleaser).Release(ctx)
}

// mountFaulty shows a directory at another place, where reads can be made to fail or to wait.
func mountFaulty(t *testing.T, dir string) (string, *faults) {
	t.Helper()
	needFUSE(t)
	f := &faults{}
	data := &gofs.LoopbackRoot{Path: dir}
	root := &faultyNode{&gofs.LoopbackNode{RootData: data}, f}
	data.RootNode = root
	at := t.TempDir()
	server, err := gofs.Mount(at, root,
		&gofs.Options{MountOptions: fuse.MountOptions{DirectMount: true, DisableSplice: true,
			FsName: "faulty"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		detach(at)
		server.Wait()
	})
	return at, f
}

// changing is a mounted view of a source that a test does something to.
type changing struct {
	fs    *FS
	log   *logTo
	shard string // the source's only one
	path  string // of the file in the mount
	off   int64  // of the tensor in the file
	want  []byte // the tensor
}

// tensorKinds are a transposed tensor, which is kept, and a tensor that is computed row by row into
// each reply.
var tensorKinds = map[string]struct{ layout, key string }{
	"transposed": {"native", "layers.1.mlp.experts.gate_and_up_projs"},
	"row by row": {"hf", "layers.1.self_attn.q_b_proj.weight"},
}

// smallSource writes a checkpoint of one shard that was last modified an hour ago.
func smallSource(t *testing.T) (dir, shard string) {
	t.Helper()
	_, dir = writeSynth(t, synth.Options{Layers: 2, Experts: 2, Hidden: 128, ExpertIntermediate: 96,
		Single: true})
	shard = filepath.Join(dir, singleName)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(shard, old, old); err != nil {
		t.Fatal(err)
	}
	return dir, shard
}

// mountChanging mounts a view of the source in dir. shard is the path at which its shard is
// changed.
func mountChanging(t *testing.T, which, dir, shard string) *changing {
	t.Helper()
	k := tensorKinds[which]
	c := &changing{log: &logTo{}, shard: shard}
	// The tensor is read through another tree, so this one has read nothing yet.
	before := openViews(t, dir, Options{}, layout("", k.layout, 0))
	c.fs = openViews(t, dir, Options{Logger: slog.New(slog.NewTextHandler(c.log, nil))},
		layout("", k.layout, 0))
	_, root := mountFS(t, c.fs, MountOptions{})
	for _, name := range shardsOf(t, before, ".") {
		if off, want := tensorIn(t, readTree(t, before, name), k.key); want != nil {
			c.path, c.off, c.want = filepath.Join(root, name), off, want
		}
	}
	if len(c.want) == 0 {
		t.Fatalf("no tensor %s", k.key)
	}
	return c
}

// tensorIn finds the tensor with this key suffix in a safetensors file. want is nil if there is
// none.
func tensorIn(t *testing.T, data []byte, key string) (off int64, want []byte) {
	t.Helper()
	h, err := safetensors.ReadHeader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range h.Tensors {
		if strings.HasSuffix(x.Name, key) {
			off, want = h.DataOffset+x.Begin, data[h.DataOffset+x.Begin:h.DataOffset+x.End]
		}
	}
	return off, want
}

// pread reads len(p) bytes, past the page cache if flags say O_DIRECT.
func pread(path string, flags int, p []byte, off int64) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// without read-ahead, the kernel asks for nothing else
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM); err != nil {
		return err
	}
	for {
		n, err := unix.Pread(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n < len(p) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
}

const changingStep = 16 << 10

// each reads the tensor in pieces that all reach the filesystem. Each read has to be right or to
// fail. It returns the errors.
func (c *changing) each(t *testing.T) (errs []error) {
	t.Helper()
	p := make([]byte, changingStep)
	for at := 0; at < len(c.want); at += len(p) {
		want := c.want[at:min(len(c.want), at+len(p))]
		err := pread(c.path, unix.O_DIRECT, p[:len(want)], c.off+int64(at))
		if err == nil && !bytes.Equal(p[:len(want)], want) {
			t.Errorf("wrong bytes at %d", at)
		}
		errs = append(errs, err)
	}
	return errs
}

// wants checks that every read of the tensor ends with that error. With nil all reads have to
// succeed.
func (c *changing) wants(t *testing.T, want error) {
	t.Helper()
	for i, err := range c.each(t) {
		if !errors.Is(err, want) {
			t.Errorf("piece %d: %v, want %v", i, err, want)
		}
	}
}

// wantLogged checks that the log has n causes.
func (c *changing) wantLogged(t *testing.T, n int) {
	t.Helper()
	if got := strings.Count(c.log.String(), "read failed"); got != n {
		t.Errorf("logged %d times, want %d: %s", got, n, c.log)
	}
}

// converse starts a child that reads requests and writes answers until its input ends.
func converse(t *testing.T, how string, paths ...string) (in io.WriteCloser, out io.ReadCloser) {
	t.Helper()
	cmd, _ := start(t, how, paths...)
	cmd.Stdout = nil
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err = cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	return in, out
}

// lockPages makes a child lock the first piece of the tensor in memory. So the kernel holds the
// piece until the test ends.
func (c *changing) lockPages(t *testing.T) {
	t.Helper()
	offset := binary.LittleEndian.AppendUint64(nil, uint64(c.off))
	in, out := converse(t, "lock", c.path)
	if _, err := in.Write(offset); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal("the pages were not locked")
	}
}

func init() { children["lock"] = holdPages }

// holdPages locks a piece of a file in memory, at an offset that it reads from its input. It
// reports that, and keeps the piece until its input ends.
func holdPages(paths []string) error {
	var off uint64
	if err := binary.Read(os.Stdin, binary.LittleEndian, &off); err != nil {
		return err
	}
	f, err := os.Open(paths[0])
	if err != nil {
		return err
	}
	defer f.Close()
	first := int64(off) &^ 4095
	m, err := unix.Mmap(int(f.Fd()), first, int(int64(off)+changingStep-first), unix.PROT_READ,
		unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if err := unix.Mlock(m); err != nil {
		return err
	}
	os.Stdout.WriteString("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// wantPages checks that the pages that lockPages locked are unchanged, without asking the
// filesystem.
func (c *changing) wantPages(t *testing.T) {
	t.Helper()
	p := make([]byte, changingStep)
	if err := pread(c.path, 0, p, c.off); err != nil || !bytes.Equal(p, c.want[:len(p)]) {
		t.Errorf("pages that the kernel held: other bytes, or %v", err)
	}
}

// rewriteBehind changes the shard's data in place and restores its time of modification. It repeats
// that until the time of change differs, which takes one tick of the file system's clock.
func rewriteBehind(t *testing.T, path string) {
	t.Helper()
	var before, after unix.Stat_t
	if err := unix.Stat(path, &before); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the time of change moves on", func() bool {
		err := errors.Join(overwrite(path),
			os.Chtimes(path, time.Time{}, time.Unix(before.Mtim.Unix())), unix.Stat(path, &after))
		if err != nil {
			t.Fatal(err)
		}
		return after.Ctim != before.Ctim
	})
	if after.Size != before.Size || after.Mtim != before.Mtim {
		t.Fatal("it can be told by its size or time of modification")
	}
}

// overwrite changes the last half of a file in place: data, since the header is shorter.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = f.WriteAt(bytes.Repeat([]byte{0x35}, int(st.Size()/2)), st.Size()/2)
	return err
}

// changes are the ways in which the bytes of a source can change.
var changes = map[string]func(t *testing.T, path string){
	"truncated": func(t *testing.T, path string) {
		if err := os.Truncate(path, 4096); err != nil {
			t.Fatal(err)
		}
	},
	"emptied": func(t *testing.T, path string) {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	},
	"rewritten in place": func(t *testing.T, path string) {
		if err := overwrite(path); err != nil {
			t.Fatal(err)
		}
	},
	"rewritten with its time put back": rewriteBehind,
}

// forKinds runs a test for each kind of tensor.
func forKinds(t *testing.T, test func(t *testing.T, which string)) {
	t.Helper()
	for which := range tensorKinds {
		t.Run(which, func(t *testing.T) { test(t, which) })
	}
}

// After the source has changed, no read that reaches the filesystem gets bytes, even if they were
// kept. The log says so once. Pages that the kernel holds stay unchanged.
func TestAMountOfASourceThatChanges(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			forKinds(t, func(t *testing.T, which string) {
				dir, shard := smallSource(t)
				kept, fresh := mountChanging(t, which, dir, shard),
					mountChanging(t, which, dir, shard)
				kept.wants(t, nil)
				kept.lockPages(t)
				change(t, shard)
				for _, c := range []*changing{kept, fresh} {
					c.wants(t, unix.ESTALE)
					c.wants(t, unix.ESTALE) // the error persists
					c.wantLogged(t, 1)
				}
				kept.wantPages(t)
			})
		})
	}
}

// A source that is deleted or replaced is still read, since its bytes exist until it is closed. The
// same holds if its links or permissions change. Without proof that only these changed, reads fail.
func TestAMountOfASourceThatGoesAway(t *testing.T) {
	for name, remove := range map[string]func(path string) error{
		"deleted": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("other"), 0o644),
				os.Rename(path+".new", path))
		},
		"its folder too": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"copied by links, and the copy removed": func(path string) error {
			return errors.Join(os.Link(path, path+".copy"), os.Remove(path+".copy"))
		},
		"deleted with all links": func(path string) error {
			return errors.Join(os.Link(path, path+".copy"), os.Remove(path),
				os.Remove(path+".copy"))
		},
		"given other permissions": func(path string) error { return os.Chmod(path, 0o400) },
	} {
		t.Run(name, func(t *testing.T) {
			forKinds(t, func(t *testing.T, which string) {
				dir, shard := smallSource(t)
				known, err := mutate.Leases(dir)
				if err != nil {
					t.Fatal(err)
				}
				kept, fresh := mountChanging(t, which, dir, shard),
					mountChanging(t, which, dir, shard)
				kept.wants(t, nil)
				if err := remove(shard); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					for _, c := range []*changing{kept, fresh} {
						if known {
							c.wants(t, nil)
							c.wantLogged(t, 0)
						} else {
							c.wants(t, unix.ESTALE)
						}
					}
				}
			})
		})
	}
}

// A rewrite is also seen if the source is then removed, replaced or linked, which changes the same
// time.
func TestAMountOfASourceThatChangesAndGoesAway(t *testing.T) {
	for name, then := range map[string]func(path string) error{
		"deleted": os.Remove,
		"linked":  func(path string) error { return os.Link(path, path+".copy") },
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("other"), 0o644),
				os.Rename(path+".new", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			forKinds(t, func(t *testing.T, which string) {
				dir, shard := smallSource(t)
				kept, fresh := mountChanging(t, which, dir, shard),
					mountChanging(t, which, dir, shard)
				kept.wants(t, nil)
				rewriteBehind(t, shard)
				if err := then(shard); err != nil {
					t.Fatal(err)
				}
				for _, c := range []*changing{kept, fresh} {
					c.wants(t, unix.ESTALE)
					c.wants(t, unix.ESTALE)
					c.wantLogged(t, 1)
				}
			})
		})
	}
}

// Readers get the old bytes while the source is rewritten, until they get an error.
func TestNoMixtureIsReadThroughAMount(t *testing.T) {
	forKinds(t, func(t *testing.T, which string) {
		dir, shard := smallSource(t)
		c := mountChanging(t, which, dir, shard)
		begun := make(chan struct{}, 3)
		var readers sync.WaitGroup
		for range cap(begun) {
			readers.Go(func() {
				for i := 0; ; i++ {
					err := errors.Join(c.each(t)...)
					if i == 0 {
						begun <- struct{}{}
					}
					if err != nil && !errors.Is(err, unix.ESTALE) {
						t.Error(err)
					}
					if err != nil || t.Failed() {
						return
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		if err := overwrite(shard); err != nil {
			t.Error(err)
		}
		readers.Wait()
		c.wantLogged(t, 1)
	})
}

// Neither the filesystem nor the kernel keeps the error of a read.
func TestAnErrorOfTheSourceDoesNotStick(t *testing.T) {
	forKinds(t, func(t *testing.T, which string) {
		dir, shard := smallSource(t)
		dir, faults := mountFaulty(t, dir)
		c := mountChanging(t, which, dir, shard)
		page := make([]byte, 4096)
		faults.fail(syscall.EIO)
		for range 2 {
			c.wants(t, unix.EIO)
			if err := pread(c.path, 0, page, c.off); !errors.Is(err, unix.EIO) {
				t.Errorf("through the page cache: %v", err)
			}
		}
		c.wantLogged(t, 1)
		wantIdle(t, c.fs) // the error of a read is also that of readers that joined it
		faults.fail(0)
		if err := pread(c.path, 0, page, c.off); err != nil ||
			!bytes.Equal(page, c.want[:len(page)]) {
			t.Errorf("through the page cache: other bytes, or %v", err)
		}
		c.wants(t, nil)
		faults.fail(syscall.EIO)
		for _, err := range c.each(t) { // kept bytes are still right
			if err != nil && !errors.Is(err, unix.EIO) {
				t.Error(err)
			}
		}
		wantIdle(t, c.fs)
		faults.fail(0)
		c.wants(t, nil)
		c.wantLogged(t, 1)
	})
}

// A file server that has lost a file returns ESTALE, and so does the mount.
func TestAStaleFileOfTheSourceIsStaleInTheMount(t *testing.T) {
	forKinds(t, func(t *testing.T, which string) {
		dir, shard := smallSource(t)
		dir, faults := mountFaulty(t, dir)
		c := mountChanging(t, which, dir, shard)
		faults.fail(syscall.ESTALE)
		c.wants(t, unix.ESTALE)
		c.wantLogged(t, 1)
		faults.fail(0)
		c.wants(t, nil)
	})
}

// Changes on a server that leave sizes and times alone are not noticed. The mount warns of them.
func TestAServerThatKeepsChangesQuietIsWarnedOf(t *testing.T) {
	forKinds(t, func(t *testing.T, which string) {
		dir, shard := smallSource(t)
		dir, faults := mountFaulty(t, dir)
		c := mountChanging(t, which, dir, shard)
		if said := c.log.String(); strings.Count(said, "level=WARN") != 1 ||
			!strings.Contains(said, "on fuse: reads do not notice") {
			t.Errorf("warned with %q", said)
		}
		faults.lie()
		p := make([]byte, 4096)
		if err := pread(c.path, unix.O_DIRECT, p, c.off); err != nil ||
			bytes.Equal(p, c.want[:len(p)]) {
			t.Errorf("the change was noticed: %v", err)
		}
	})
}

// The source fails in the middle of a read. With O_DIRECT the kernel returns only the error, and
// the buffer holds anything. Through the page cache it returns the bytes before the fault, and then
// the error.
func TestAReadThatFailsInTheMiddle(t *testing.T) {
	const key, whole = "model.embed_tokens.weight", 4 << 20 // requests are of a MiB at most
	_, dir := writeSynth(t, synth.Options{Layers: 1, Experts: 2, Hidden: 512, Vocab: whole / 1024,
		Single: true})
	before := openViews(t, dir, Options{}, layout("", "hf", 0))
	dir, faults := mountFaulty(t, dir)
	f := openViews(t, dir, Options{}, layout("", "hf", 0))
	_, root := mountFS(t, f, MountOptions{})
	name := shardsOf(t, f, ".")[0]
	off, want := tensorIn(t, readTree(t, before, name), key)
	source, ok := f.checkpoint.Tensor(key)
	if !ok || len(want) != whole {
		t.Fatalf("a tensor of %d bytes", len(want))
	}
	faults.failFrom(source.Offset+whole/2, syscall.EIO)
	p, err := unix.Mmap(-1, 0, whole, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(p) })
	path := filepath.Join(root, name)
	if err := pread(path, unix.O_DIRECT, p, off); !errors.Is(err, unix.EIO) {
		t.Errorf("with O_DIRECT: %v", err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n, err := unix.Pread(int(file.Fd()), p, off)
	if err != nil || n == 0 || n > whole/2+1<<20 || !bytes.Equal(p[:n], want[:n]) {
		t.Errorf("through the page cache: %d bytes, or wrong ones, %v", n, err)
	}
	if _, err := unix.Pread(int(file.Fd()), p, off+int64(n)); !errors.Is(err, unix.EIO) {
		t.Errorf("what follows: %v", err)
	}
}

// A read waits if its source does not answer, but the mount goes on. Afterwards the read is right,
// or fails if the source has changed.
func TestAMountOfAStalledSource(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"as it was":                        nil,
		"truncated meanwhile":              changes["truncated"],
		"rewritten with its time put back": rewriteBehind,
	} {
		t.Run(name, func(t *testing.T) {
			forKinds(t, func(t *testing.T, which string) {
				dir, shard := smallSource(t)
				dir, faults := mountFaulty(t, dir)
				c := mountChanging(t, which, dir, shard)
				release := faults.stall()
				t.Cleanup(release)
				p, read := make([]byte, 4096), make(chan error, 1)
				go func() { read <- pread(c.path, unix.O_DIRECT, p, c.off) }()
				eventually(t, "the read waits for its source", func() bool {
					return faults.held.Load() > 0
				})
				if text, err := os.ReadFile(filepath.Join(filepath.Dir(c.path),
					"config.json")); err != nil || len(text) == 0 {
					t.Errorf("another file, meanwhile: %d bytes, %v", len(text), err)
				}
				select {
				case err := <-read:
					t.Fatalf("the read did not wait: %v", err)
				default:
				}
				if change == nil {
					release()
					if err := <-read; err != nil || !bytes.Equal(p, c.want[:len(p)]) {
						t.Errorf("other bytes, or %v", err)
					}
					c.wants(t, nil)
					c.wantLogged(t, 0)
					return
				}
				change(t, shard)
				release()
				if err := <-read; !errors.Is(err, unix.ESTALE) {
					t.Errorf("got %v", err)
				}
				c.wants(t, unix.ESTALE)
				c.wantLogged(t, 1)
			})
		})
	}
}

// A user who may not read all of the source may not read a file made from it.
func TestNoFileIsMoreOpenThanItsSources(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 2, Experts: 2, Hidden: 128,
		ExpertIntermediate: 96, Shards: 3})
	shards, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil || len(shards) != 3 {
		t.Fatal(shards, err)
	}
	modes := map[string]os.FileMode{shards[0]: 0o640, shards[1]: 0o604, shards[2]: 0o777,
		filepath.Join(dir, "tokenizer_config.json"): 0o600}
	for path, mode := range modes {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	f := openViews(t, dir, Options{}, layout("native", "native", 0), layout("hf", "hf", 0))
	_, root := mountFS(t, f, MountOptions{})
	for _, view := range []string{"native", "hf"} {
		for _, path := range append(inMount(t, f, root, view),
			filepath.Join(root, view, "tokenizer_config.json")) {
			if st, err := os.Stat(path); err != nil || st.Mode() != 0o400 {
				t.Errorf("%s: %v, %v", path, st, err)
			}
		}
	}
}
