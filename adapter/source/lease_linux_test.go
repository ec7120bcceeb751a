package source

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// leasable makes a file that a lease can be had on, and opens it.
func leasable(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("some bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// taken takes a lease until the test ends.
func taken(t *testing.T, f *os.File) *lease {
	t.Helper()
	l, err := takeLease(f.Fd())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.release)
	if !l.holds() {
		t.Fatal("it does not hold")
	}
	return l
}

func TestALeaseIsGivenUpToWhoeverWantsToWrite(t *testing.T) {
	for name, write := range map[string]func(path string) error{
		"opened for writing": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			return errors.Join(err, f.Close())
		},
		"truncated": func(path string) error { return os.Truncate(path, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			one, two := leasable(t), leasable(t)
			again, err := os.Open(one.Name())
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			l, other, second := taken(t, one), taken(t, two), taken(t, again)
			if err := write(one.Name()); err != nil {
				t.Fatal(err)
			}
			if l.holds() || second.holds() || !l.lost.Load() || !second.lost.Load() {
				t.Error("a lease still holds")
			}
			if !other.holds() {
				t.Error("the lease of another file does not hold any more")
			}
		})
	}
}

func TestWhatIsNotWritingLeavesALeaseAlone(t *testing.T) {
	f := leasable(t)
	l := taken(t, f)
	path := f.Name()
	for _, do := range []func() error{
		func() error { _, err := os.ReadFile(path); return err },
		func() error { return os.Chmod(path, 0o400) },
		func() error { return os.Link(path, path+"2") },
		func() error { return os.Rename(path, path+"3") },
		func() error { return errors.Join(os.Remove(path+"2"), os.Remove(path+"3")) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if !l.holds() {
			t.Fatal("it does not hold any more")
		}
	}
}

func TestThereIsNoLeaseOnAFileThatIsOpenForWriting(t *testing.T) {
	f := leasable(t)
	w, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := takeLease(f.Fd()); err != unix.EAGAIN {
		t.Errorf("got %v", err)
	}
	m, err := unix.Mmap(int(w.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := takeLease(f.Fd()); err != unix.EAGAIN {
		t.Errorf("mapped for writing: got %v", err)
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	taken(t, f)
}

// TestLeasesAndWatchesLeaveNothing wants no goroutine and no descriptor when the last one is
// released.
func TestLeasesAndWatchesLeaveNothing(t *testing.T) {
	use := func() {
		f := leasable(t)
		l, err := takeLease(f.Fd())
		if err != nil {
			t.Fatal(err)
		}
		w, err := watchFile(f.Fd())
		if err != nil {
			t.Fatal(err)
		}
		l.release()
		w.release()
	}
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	use() // the runtime keeps a goroutine for signals
	before, goroutines := open(), runtime.NumGoroutine()
	for range 10 {
		use()
	}
	if leases.stop != nil || len(leases.held) > 0 || watches.users > 0 ||
		len(watches.byNumber) > 0 {
		t.Errorf("left: %d leases, %d users of watches", len(leases.held), watches.users)
	}
	if got := open() - before; got > 10 { // leasable leaves one each
		t.Errorf("%d descriptors more", got)
	}
	for tries := 0; runtime.NumGoroutine() > goroutines; tries++ {
		if tries > 1e6 {
			t.Fatal("goroutines are left")
		}
		runtime.Gosched()
	}
}

// watching watches a file until the test ends.
func watching(t *testing.T, f *os.File) *watched {
	t.Helper()
	w, err := watchFile(f.Fd())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.release)
	return w
}

func TestAWatchTellsOfModificationsOnly(t *testing.T) {
	f, other := leasable(t), leasable(t)
	path := f.Name()
	w, quiet := watching(t, f), watching(t, other)
	for _, do := range []func() error{
		func() error { return os.Chmod(path, 0o600) },
		func() error { return os.Link(path, path+"2") },
		func() error { return os.Remove(path) },
		func() error { _, err := os.ReadFile(path + "2"); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if !w.unmodified(false) {
			t.Fatal("said to be modified")
		}
	}
	if err := os.Truncate(path+"2", 3); err != nil {
		t.Fatal(err)
	}
	again := watching(t, f) // from now on
	for range 2 {
		if w.unmodified(false) || !again.unmodified(false) || !quiet.unmodified(false) {
			t.Errorf("modified: %v, since then %v, another file %v", !w.unmodified(false),
				!again.unmodified(false), !quiet.unmodified(false))
		}
	}
	if err := os.Truncate(path+"2", 4); err != nil {
		t.Fatal(err)
	}
	if again.unmodified(false) {
		t.Error("the second user is not told")
	}
}

func TestAWatchThatTheKernelEndsIsNoProof(t *testing.T) {
	f := leasable(t)
	path := f.Name()
	w := watching(t, f)
	if err := errors.Join(os.Link(path, path+"2"), os.Remove(path),
		os.Remove(path+"2")); err != nil {
		t.Fatal(err)
	}
	if w.unmodified(false) || !w.unmodified(true) {
		t.Errorf("a file that has a name: %v; one that has none: %v", w.unmodified(false),
			w.unmodified(true))
	}
	again := watching(t, f)
	if again.watch == w.watch || !again.unmodified(false) {
		t.Error("it cannot be watched again")
	}
}

// TestLostEventsCountAsModifications writes to two files in turn until the kernel's queue is full.
// Then events of a third file are lost.
func TestLostEventsCountAsModifications(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	third := watching(t, leasable(t))
	var files []*os.File
	for range 2 {
		f := leasable(t)
		watching(t, f)
		w, err := os.OpenFile(f.Name(), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		files = append(files, w)
	}
	if !third.unmodified(false) {
		t.Fatal("modified at first")
	}
	for i := range most + 2 {
		if _, err := files[i%2].WriteAt([]byte{1}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if third.unmodified(false) {
		t.Error("said to be unmodified although events were lost")
	}
}

// TestAFileIsIdentifiedAfterTheTickOfItsLastChange wants any change after opening to get another
// time.
func TestAFileIsIdentifiedAfterTheTickOfItsLastChange(t *testing.T) {
	for range 20 {
		file, err := os.Open(leasable(t).Name())
		if err != nil {
			t.Fatal(err)
		}
		f, err := newFile(new(folder), "file", file)
		if err != nil {
			t.Fatal(err)
		}
		if ticking(f.was.ctime) {
			t.Error("a change now might get the time that the file has")
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATickIsASecondWhereTimesAreWholeSeconds(t *testing.T) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
		t.Fatal(err)
	}
	const second = 1e9
	for age, want := range map[int64]bool{-3600 * second: false, 2 * second: false,
		3600 * second: false} {
		if got := ticking(now.Nano() - age); got != want {
			t.Errorf("%d ns old: %v", age, got)
		}
	}
	for _, ahead := range []int64{0, 1} { // the clock may pass the second between the calls
		if ticking((now.Sec + ahead) * second) {
			return
		}
	}
	t.Error("this second is not seen as one that goes on")
}
