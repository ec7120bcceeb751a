//go:build unix

package readback

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenWaitsForNoFIFO(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, target := range map[string]string{"to a fifo": fifo, "to a device": "/dev/zero"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"fifo": "a FIFO", "to a fifo": "a FIFO",
		"socket": "a socket", "to a device": "a device"} {
		f, err := Open(filepath.Join(dir, name))
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), name+" is "+want+", not a regular file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
