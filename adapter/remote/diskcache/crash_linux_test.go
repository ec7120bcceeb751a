package diskcache

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/mutate"
	"github.com/dequantfs/dequantfs/testdata/size"
)

// fillEnv tells a child to fill a cache: its folder. With endlessEnv it does not stop.
const (
	fillEnv    = "DEQUANTFS_TEST_CACHE"
	limitEnv   = "DEQUANTFS_TEST_CACHE_SIZE"
	endlessEnv = "DEQUANTFS_TEST_ENDLESS"
)

// filling is what children fill a cache with.
var filling = world{objects: 12, blocks: 6, length: 9*pieceSize + 5}

const workers = 3 // of each child

// filled is the bytes of all of it.
func filled() (n int64) {
	for i := range filling.objects {
		for j := range filling.blocks {
			_, length := filling.block(i, j)
			n += onDisk(length)
		}
	}
	return n
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(fillEnv); dir != "" {
		fillAsChild(dir)
		return
	}
	if mutate.IsChild() {
		if err := mutate.Serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fillAsChild reads and writes blocks in random order. It checks what it reads.
func fillAsChild(dir string) {
	limit, _ := strconv.ParseInt(os.Getenv(limitEnv), 10, 64)
	c, err := Open(dir, Options{Size: limit, Free: 1})
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	fmt.Println("ready")
	t := &childT{}
	for {
		var all sync.WaitGroup
		for range workers {
			all.Go(func() { filling.visit(t, c) })
		}
		all.Wait()
		if t.failed {
			os.Exit(4)
		}
		if os.Getenv(endlessEnv) == "" {
			os.Exit(0)
		}
	}
}

// childT reports failures of a child.
type childT struct {
	testing.TB
	failed bool
}

func (c *childT) Helper() {}
func (c *childT) Errorf(format string, args ...any) {
	c.failed = true
	fmt.Printf(format+"\n", args...)
}

// child is a process that fills a cache.
type child struct {
	*exec.Cmd
	output io.ReadCloser
}

func startChild(t *testing.T, dir string, limit int64, endless bool) *child {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), fillEnv+"="+dir, fmt.Sprint(limitEnv, "=", limit))
	if endless {
		c.Env = append(c.Env, endlessEnv+"=1")
	}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &child{c, out}
}

// wait requires that a child ends well, or is killed.
func (c *child) wait(t *testing.T, killed bool) {
	t.Helper()
	said, _ := io.ReadAll(c.output)
	err := c.Wait()
	var status *exec.ExitError
	if killed && errors.As(err, &status) &&
		status.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		err = nil
	}
	if err != nil {
		t.Errorf("a child: %v: %s", err, said)
	}
}

// ready waits until a child begins.
func (c *child) ready(t *testing.T) {
	t.Helper()
	if line, err := bufio.NewReader(c.output).ReadString('\n'); line != "ready\n" {
		t.Fatalf("a child: %q, %v", line, err)
	}
}

// A process is killed at random moments while it fills a cache. What it leaves are whole blocks,
// and temporary files of blocks in flight.
func TestKilledWhileFilling(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(size.Seeds(t)[0], 0))
	limit := filled() / 2
	for range size.Count(12, 100) {
		c := startChild(t, dir, limit, true)
		c.ready(t)
		time.Sleep(time.Duration(r.Int64N(int64(40 * time.Millisecond))))
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.wait(t, true)
		if n := bound(t, dir); n > limit {
			t.Fatalf("%d bytes are left, limit %d", n, limit)
		}
	}
	cache, w := openCache(t, dir, 0)
	files, _ := filesIn(t, dir)
	if n := filling.count(t, cache); n == 0 || n != len(files) {
		t.Errorf("%d blocks are right, of %d files", n, len(files))
	}
	w.want(t)
	filling.visit(t, cache)
	if n := filling.count(t, cache); n != int(filling.objects*filling.blocks) {
		t.Errorf("after it was filled again, %d blocks are there", n)
	}
}

// Processes fill one folder at once, with blocks that the others want too.
func TestProcessesFillOneFolder(t *testing.T) {
	for _, limit := range []int64{0, filled() / 3} {
		dir := t.TempDir()
		var all []*child
		for range size.Count(2, 8) {
			all = append(all, startChild(t, dir, limit, false))
		}
		for _, c := range all {
			c.ready(t)
		}
		for _, c := range all {
			c.wait(t, false)
		}
		files, _ := filesIn(t, dir)
		if want := int(filling.objects * filling.blocks); limit == 0 && len(files) != want {
			t.Errorf("%d files, want %d", len(files), want)
		}
		if n := bound(t, dir); limit > 0 && n > limit {
			t.Errorf("%d bytes are left, limit %d", n, limit)
		}
		if temps, _ := os.ReadDir(filepath.Join(dir, "v1", "tmp")); len(temps) > 0 {
			t.Errorf("temporary files are left: %v", temps)
		}
		c, w := openCache(t, dir, 0)
		if n := filling.count(t, c); n != len(files) {
			t.Errorf("%d blocks are right, of %d files", n, len(files))
		}
		w.want(t)
	}
}
