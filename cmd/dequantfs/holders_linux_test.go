package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAProcessThatHasMappedAFileHoldsTheMount maps a file of a mount and closes it, as loaders do.
// The file is not read: a process that serves its own mapping would wait for itself.
func TestAProcessThatHasMappedAFileHoldsTheMount(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	s.run("mount", "--layout", "hf", s.source, s.mnt)
	f, err := os.Open(filepath.Join(s.mnt, "model-00001-of-000002.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	me, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.command("umount", s.mnt).CombinedOutput()
	want := "busy: used by " + strings.TrimSpace(string(me))
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("with a mapped file: %v, %s, want %q", err, out, want)
	}
	if err := unix.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	s.run("umount", s.mnt)
	if names := holders(s.mnt); len(names) > 0 {
		t.Errorf("held by %v", names)
	}
}
