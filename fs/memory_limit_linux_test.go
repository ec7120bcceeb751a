//go:build !race

// Reading 4 GB under the race detector would take minutes.

package fs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/cgroup"
	"golang.org/x/sys/unix"
)

func init() { children["shuffle"] = readShuffled }

// serveEnv names the mountpoint for TestServeLimited.
const serveEnv = "DEQUANTFS_TEST_SERVE"

// TestServeLimited is not a test but the daemon of TestMemoryLimit. It mounts a view of 4 GB with
// the default budget until its input ends, and then prints its statistics.
func TestServeLimited(t *testing.T) {
	dir := os.Getenv(serveEnv)
	if dir == "" {
		return
	}
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil { // by now it is in its cgroup
		t.Fatal(err)
	}
	f, _ := layerFS(t, expertShape{experts: 48, hidden: 7168, intermediate: 2048}, Options{})
	m, err := f.Mount(dir, MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("mounted")
	io.Copy(io.Discard, in)
	if err := m.Unmount(false); err != nil {
		t.Error(err)
	}
	stats, err := json.Marshal(f.Stats())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s\n", stats)
}

// readShuffled reads its share of a file directly, a piece of 16 MiB after the other, in random
// order.
func readShuffled(args []string) error {
	reader, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	const piece = 16 << 20
	// the same for all
	pieces := rand.New(rand.NewPCG(1, 2)).Perm(int((st.Size + piece - 1) / piece))
	buf, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := reader; i < len(pieces); i += limitedReaders {
		off := int64(pieces[i]) * piece
		want := int(min(piece, st.Size-off))
		if n, err := unix.Pread(fd, buf, off); n != want || err != nil {
			return fmt.Errorf("piece %d: %d of %d bytes, %v", pieces[i], n, want, err)
		}
	}
	return nil
}

const limitedReaders = 8

func TestMemoryLimit(t *testing.T) {
	needFUSE(t)
	group, err := cgroup.New(512 << 20)
	if err != nil {
		t.Skip(err)
	}
	defer group.Remove()
	dir := t.TempDir()
	daemon := exec.Command(os.Args[0], "-test.run=^TestServeLimited$", "-test.timeout=10m")
	daemon.Env = append(os.Environ(), serveEnv+"="+dir)
	daemon.Stderr = os.Stderr
	in, _ := daemon.StdinPipe()
	pipe, _ := daemon.StdoutPipe()
	out := bufio.NewReader(pipe)
	if err := errors.Join(daemon.Start(), group.Join(daemon.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	defer detach(dir)
	fmt.Fprintln(in, "go")
	if line, err := out.ReadString('\n'); line != "mounted\n" {
		t.Fatalf("the daemon says %q, %v", line, err)
	}
	var wg sync.WaitGroup
	for i := range limitedReaders {
		wg.Go(func() {
			cmd, _ := start(t, "shuffle", filepath.Join(dir, singleName), strconv.Itoa(i))
			if err := cmd.Run(); err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	in.Close()
	line, _ := out.ReadString('\n')
	io.Copy(io.Discard, out)
	if err := daemon.Wait(); err != nil {
		t.Fatalf("the daemon: %v", err)
	}
	var s Stats
	if err := json.Unmarshal([]byte(strings.TrimSpace(line)), &s); err != nil {
		t.Fatal(err)
	}
	if s.Bytes < 4e9 || s.CacheUsed > s.CacheBudget || s.CacheBudget > 52<<20 || s.Pinned != 0 ||
		s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	t.Logf("%d bytes, %d of the source, %d fills, budget %d", s.Bytes, s.SourceBytes, s.Fills,
		s.CacheBudget)
}
