package adapter_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/testdata/hostile"
	"github.com/dequantfs/dequantfs/testdata/inmemory"
)

// updating says whether golden files are to be written anew: the flag is that of the
// tests inside the package.
func updating() bool { return flag.Lookup("update").Value.String() == "true" }

const hostileGolden = "../testdata/hostile/errors.txt"

// outcome says what opening and planning a source comes to: the first error, or that
// there is none.
func outcome(dir string) string {
	c, err := adapter.Open(context.Background(), dir, adapter.OpenOptions{})
	if err == nil {
		defer c.Close()
		for _, layout := range adapter.Layouts(c) {
			if _, err = adapter.NewPlan(c, adapter.Options{Layout: layout}); err != nil {
				err = fmt.Errorf("layout %s: %w", layout, err)
				break
			}
		}
	}
	if err == nil {
		return "opens"
	}
	return strings.ReplaceAll(err.Error(), dir, "SOURCE")
}

// hostileOutcomes writes every source, or only the big ones, in turn and says what became
// of it, by name.
func hostileOutcomes(t *testing.T, big bool) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, s := range hostile.All() {
		if s.Big != big {
			continue
		}
		dir := filepath.Join(inmemory.Dir(t), "source")
		if err := s.Write(dir); err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		if s.Big {
			debug.FreeOSMemory() // what the writing took is not to be counted
		}
		all[s.Name] = outcome(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// checkGolden compares outcomes with their lines in the golden file, or puts them there.
func checkGolden(t *testing.T, got map[string]string) {
	t.Helper()
	data, err := os.ReadFile(hostileGolden)
	if err != nil && !updating() {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		want[name] = text
	}
	for name, text := range got {
		if len(text) > 1000 {
			t.Errorf("%s: a message of %d bytes", name, len(text))
		}
		if !updating() && want[name] != text {
			t.Errorf("%s:\n got %s\nwant %s", name, text, want[name])
		}
		want[name] = text
	}
	if !updating() {
		return
	}
	var b strings.Builder
	for _, s := range hostile.All() {
		fmt.Fprintf(&b, "%s: %s\n", s.Name, want[s.Name])
	}
	if err := os.WriteFile(hostileGolden, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestHostileSourcesAreRefusedByName(t *testing.T) {
	got := hostileOutcomes(t, false)
	checkGolden(t, got)
	refused := 0
	for name, text := range got {
		if strings.Contains(text, "\n") {
			t.Errorf("%s: more than one line: %q", name, text)
		}
		if text != "opens" {
			refused++
		}
	}
	if refused < 60 {
		t.Errorf("%d sources are refused, expected 60 at least", refused)
	}
}

// TestBigHostileSourcesFitInMemory opens the sources of a hundred megabytes in a process
// of its own, whose memory is measured. With the race detector, which needs many times
// as much, it is the others that are opened there.
func TestBigHostileSourcesFitInMemory(t *testing.T) {
	t.Parallel()
	const inside = "DEQUANTFS_HOSTILE"
	if os.Getenv(inside) != "" {
		checkGolden(t, hostileOutcomes(t, !racing))
		return
	}
	c := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$",
		fmt.Sprintf("-update=%v", updating()))
	c.Env = append(os.Environ(), inside+"=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const most = 500 << 20
	if peak := peakMemory(c.ProcessState); peak > most && !racing {
		t.Errorf("%d MiB at the peak, %d MiB allowed", peak>>20, most>>20)
	} else {
		t.Logf("%d MiB at the peak", peak>>20)
	}
}

// peakMemory is the largest resident size of a process that has ended, in bytes.
func peakMemory(p *os.ProcessState) int64 {
	return p.SysUsage().(*syscall.Rusage).Maxrss << 10
}
