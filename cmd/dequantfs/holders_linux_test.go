package main

import (
	"os"
	"os/exec"
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

// TestUmountFromWithinTheMount types umount in a shell that is in the mount. The shell keeps the
// mount busy, but umount itself does not.
func TestUmountFromWithinTheMount(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	within := func(script string) (string, error) {
		s.run("mount", "--layout", "hf", s.source, s.mnt)
		c := s.as(exec.Command("sh", "-c", "cd \"$2\"\n"+script, "sh", s.program, s.mnt))
		out, err := c.CombinedOutput()
		return string(out), err
	}
	for _, path := range []string{".", `"$2"`} {
		out, err := within("exec \"$1\" umount " + path)
		if err != nil {
			t.Errorf("instead of the shell: umount %s: %v, %s", path, err, out)
		}
		out, err = within("echo $$; \"$1\" umount " + path + "; exit 1")
		shell, said, _ := strings.Cut(out, "\n")
		want := "dequantfs: " + s.mnt + ": device or resource busy: used by sh (" + shell + ")\n" +
			"dequantfs: hint: end what uses it, or detach it with dequantfs umount --lazy\n"
		if err == nil || said != want {
			t.Errorf("below the shell: umount %s: %v, got\n%s\nwant\n%s", path, err, said, want)
		}
		s.run("umount", s.mnt)
	}
	out, err := within(`exec "$1" umount "$2" <config.json`)
	if want := "busy: used by a file that this command was started with\n"; err == nil ||
		!strings.Contains(out, want) {
		t.Errorf("with an open file: %v, %s, want %q", err, out, want)
	}
	s.run("umount", s.mnt)
}
