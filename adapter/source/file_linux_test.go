package source_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/mutate"
)

// file is what the files of a folder can do.
type file interface {
	source.File
	Advise(off, n int64, dontneed bool)
}

const fileName = "model-00002-of-00002.safetensors"

// opened opens a file of a folder until the test ends.
func opened(t testing.TB, path string) file {
	t.Helper()
	s, _, err := source.Open(filepath.Dir(path), source.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(t.Context(), filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return f.(file)
}

// fileBytes is how long the file is that aged makes.
const fileBytes = 84

// aged opens a file that is an hour old, so that whatever is done to it now shows in its times.
func aged(t *testing.T) (f file, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), fileName)
	data := make([]byte, fileBytes)
	for i := range data {
		data[i] = byte(i)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	return opened(t, path), path
}

// rewrite changes one byte in place.
func rewrite(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xee}, 50); err != nil {
		t.Fatal(err)
	}
}

// restamped repeats an action on a file until its time of change differs. That takes one tick of
// the file system's clock.
func restamped(t *testing.T, path string, do func()) {
	t.Helper()
	ctime := func() time.Duration {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return changeTime(t, f)
	}
	before := ctime()
	for deadline := time.Now().Add(30 * time.Second); ; {
		do()
		if ctime() != before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the time of change stands still")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestReadsFailOnceTheFileHasChanged(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, path string)
	}{
		{"rewritten in place", rewrite},
		{"truncated", func(t *testing.T, path string) {
			if err := os.Truncate(path, 50); err != nil {
				t.Fatal(err)
			}
		}},
		{"emptied", func(t *testing.T, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}},
		{"longer", func(t *testing.T, path string) {
			if err := os.Truncate(path, 1<<20); err != nil {
				t.Fatal(err)
			}
		}},
		{"touched", func(t *testing.T, path string) {
			if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
				t.Fatal(err)
			}
		}},
		{"rewritten with its time put back", func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			restamped(t, path, func() {
				rewrite(t, path)
				if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
					t.Fatal(err)
				}
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, path := aged(t)
			p := make([]byte, 8)
			if _, err := f.ReadAt(t.Context(), p, 0); err != nil {
				t.Fatal(err)
			}
			c.do(t, path)
			for range 2 { // it stays so
				for _, off := range []int64{0, f.Size() - 8} {
					n, err := f.ReadAt(t.Context(), p, off)
					if n != 0 || !errors.Is(err, source.ErrChanged) {
						t.Errorf("at %d: read %d bytes, %v", off, n, err)
					}
				}
				if err := f.Check(); !errors.Is(err, source.ErrChanged) {
					t.Errorf("check: %v", err)
				}
			}
		})
	}
}

// proven says whether it can be shown that a change of a file was harmless: where there are leases,
// since these tests own their files.
func proven(t *testing.T, path string) bool {
	t.Helper()
	is, err := mutate.Leases(path)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func TestReadsGoOnWhenTheNameChangesButNotTheBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(path string) error
	}{
		{"removed", os.Remove},
		{"linked", func(path string) error { return os.Link(path, path+"2") }},
		{"linked and removed", func(path string) error { return errors.Join(os.Link(path, path+"2"), os.Remove(path+"2")) }},
		{"renamed", func(path string) error { return os.Rename(path, path+"2") }},
		{"replaced", func(path string) error {
			if err := os.WriteFile(path+".new", []byte("other"), 0o644); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}},
		{"linked, then removed twice", func(path string) error {
			return errors.Join(os.Link(path, path+"2"), os.Remove(path), os.Remove(path+"2"))
		}},
		{"permissions changed", func(path string) error { return os.Chmod(path, 0o600) }},
		{"owner changed", func(path string) error { return os.Chown(path, os.Getuid(), os.Getgid()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, path := aged(t)
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			known := proven(t, path)
			if err := c.do(path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				r := io.NewSectionReader(source.Reader(t.Context(), f), 0, f.Size())
				got, err := io.ReadAll(r)
				if !known && errors.Is(err, source.ErrChanged) {
					continue
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("got %d bytes of %d, %v", len(got), len(want), err)
				}
				if err := f.Check(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestAChangeBesidesAHarmlessOneIsSeen changes the bytes and something harmless, which change the
// same time: each alone gives the file another time of change, and so does the other.
func TestAChangeBesidesAHarmlessOneIsSeen(t *testing.T) {
	harmless := map[string]func(path string) error{
		"removed": os.Remove,
		"linked":  func(path string) error { return os.Link(path, path+"2") },
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+"3", nil, 0o600), os.Rename(path+"3", path))
		},
		"chmod": func(path string) error { return os.Chmod(path, 0o600) },
	}
	for how, change := range changes {
		for what, do := range harmless {
			for _, read := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, read between %v", how, what, read), func(t *testing.T) {
					f, path := aged(t)
					info, err := os.Stat(path)
					if err != nil {
						t.Fatal(err)
					}
					change(t, path)
					if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
						t.Fatal(err)
					}
					if read {
						wantChanged(t, f)
					}
					if err := do(path); err != nil {
						t.Fatal(err)
					}
					wantChanged(t, f)
					wantChanged(t, f)
				})
			}
		}
	}
}

// changes leave the size as it is.
var changes = map[string]func(t *testing.T, path string){
	"rewritten": rewrite,
	"truncated and regrown": func(t *testing.T, path string) {
		if err := errors.Join(os.Truncate(path, 80), os.Truncate(path, fileBytes)); err != nil {
			t.Fatal(err)
		}
	},
	"emptied and written anew": func(t *testing.T, path string) {
		if err := os.WriteFile(path, make([]byte, fileBytes), 0o600); err != nil {
			t.Fatal(err)
		}
	},
}

// wantChanged checks that reads fail since the file has changed.
func wantChanged(t *testing.T, f file) {
	t.Helper()
	n, err := f.ReadAt(t.Context(), make([]byte, 8), 0)
	if n != 0 || !errors.Is(err, source.ErrChanged) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if err := f.Check(); !errors.Is(err, source.ErrChanged) {
		t.Errorf("check: %v", err)
	}
}

// TestAWriterOfARemovedFileIsSeen opens a removed file for writing by the descriptor that it is
// still reached by.
func TestAWriterOfARemovedFileIsSeen(t *testing.T) {
	f, path := aged(t)
	known := proven(t, path)
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := f.Check(); err != nil && known {
		t.Fatal(err)
	}
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", at), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	wantChanged(t, f)
}

func TestReadsEndWhereTheFileEnds(t *testing.T) {
	f, path := aged(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off  int64
		n    int
		want int
		err  error
	}{
		{0, len(whole), len(whole), nil},
		{0, len(whole) + 1, len(whole), io.EOF},
		{3, 5, 5, nil},
		{f.Size() - 1, 2, 1, io.EOF},
		{f.Size(), 1, 0, io.EOF},
		{f.Size(), 0, 0, nil},
		{f.Size() + 100, 1, 0, io.EOF},
	} {
		p := make([]byte, c.n)
		n, err := f.ReadAt(t.Context(), p, c.off)
		if n != c.want || !errors.Is(err, c.err) {
			t.Errorf("%d bytes at %d: %d, %v", c.n, c.off, n, err)
		} else if n > 0 && !bytes.Equal(p[:n], whole[c.off:c.off+int64(n)]) {
			t.Errorf("%d bytes at %d: wrong bytes", c.n, c.off)
		}
	}
	if _, err := f.ReadAt(t.Context(), make([]byte, 1), -1); err == nil {
		t.Error("no error at a negative offset")
	}
}

func TestReadingDoesNotAllocate(t *testing.T) {
	f, _ := aged(t)
	p := make([]byte, 16)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := f.ReadAt(t.Context(), p, 8); err != nil {
			t.Fatal(err)
		}
		if err := f.Check(); err != nil {
			t.Fatal(err)
		}
		f.Advise(0, 16, false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFilesTellTheirNameTimeAndMode(t *testing.T) {
	f, path := aged(t)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Name() != fileName || !f.ModTime().Equal(info.ModTime()) ||
		f.Mode() != info.Mode().Perm() || f.Size() != info.Size() {
		t.Errorf("%s %v %o %d, want %v", f.Name(), f.ModTime(), f.Mode(), f.Size(), info)
	}
	f.Advise(0, f.Size(), false)
	f.Advise(0, f.Size(), true)
	if err := f.Check(); err != nil {
		t.Error(err)
	}
}

// places are where a file may be. Readers with a context leave a server that does not answer.
var places = map[string]func(source.File){
	"local disk": func(source.File) {},
	"server":     source.OnServer,
}

// readUntil begins four readers that read the same bytes until they get an error, and returns when
// each has read once.
func readUntil(t *testing.T, f source.File, want []byte, end error) (readers *sync.WaitGroup) {
	t.Helper()
	readers = new(sync.WaitGroup)
	begun := make(chan struct{}, 4)
	for range cap(begun) {
		readers.Go(func() {
			p := make([]byte, len(want))
			for i := 0; ; i++ {
				_, err := f.ReadAt(t.Context(), p, 0)
				if i == 0 {
					begun <- struct{}{}
				}
				if errors.Is(err, end) {
					return
				}
				if err != nil || !bytes.Equal(p, want) {
					t.Errorf("other bytes, or %v", err)
					return
				}
				runtime.Gosched()
			}
		})
	}
	for range cap(begun) {
		<-begun
	}
	return readers
}

// TestNoMixtureIsReadWhileTheFileIsRewritten reads whole files of one byte value while
// they are filled with others: a read gives the first value or fails.
func TestNoMixtureIsReadWhileTheFileIsRewritten(t *testing.T) {
	for name, prepare := range places {
		t.Run(name, func(t *testing.T) {
			f, path := aged(t)
			prepare(f)
			want := make([]byte, f.Size())
			if _, err := f.ReadAt(t.Context(), want, 0); err != nil {
				t.Fatal(err)
			}
			readers := readUntil(t, f, want, source.ErrChanged)
			if err := os.WriteFile(path, bytes.Repeat([]byte{0xaa}, len(want)), 0o644); err != nil {
				t.Fatal(err)
			}
			readers.Wait()
		})
	}
}

func TestClosingWaitsForReadsAndDoesNotReadOtherFiles(t *testing.T) {
	for name, prepare := range places {
		t.Run(name, func(t *testing.T) {
			f, _ := aged(t)
			prepare(f)
			want := make([]byte, 16)
			if _, err := f.ReadAt(t.Context(), want, 0); err != nil {
				t.Fatal(err)
			}
			readers := readUntil(t, f, want, os.ErrClosed)
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			readers.Wait()
		})
	}
}

// changeTime gives a file's time of change.
func changeTime(t *testing.T, f *os.File) time.Duration {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return time.Duration(st.Ctim.Nano())
}
