package mounts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLinesOfTheTableAreRead(t *testing.T) {
	for line, want := range map[string]Entry{
		`36 35 0:52 / /mnt/a\040b rw,nosuid - fuse.dequantfs /src\134x rw`: {"0:52", "/mnt/a b",
			Type, `/src\x`},
		`36 35 0:52 / /mnt ro shared:1 master:2 - proc proc rw`: {"0:52", "/mnt", "proc",
			"proc"},
		`36 35 0:52 / /mnt\04 ro - tmpfs none rw`: {"0:52", `/mnt\04`,
			"tmpfs", "none"},
	} {
		if got, ok := parse(line); !ok || got != want {
			t.Errorf("%s: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "36 35", "36 35 0:52 / /mnt rw", "a - b", "- - -"} {
		if got, ok := parse(line); ok {
			t.Errorf("%q is read as %+v", line, got)
		}
	}
}

func TestATableWithOddLinesIsReadInFull(t *testing.T) {
	const table = "odd\n1 2 0:1 / /a rw - proc proc rw\n\n1 2 0:2 / /b rw - proc proc rw\n"
	all, err := read(strings.NewReader(table))
	if err != nil || len(all) != 2 || all[1].Mountpoint != "/b" {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestTheTopMountCounts mounts twice at one place, and unmounts both.
func TestTheTopMountCounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"below", "above"} {
		if err := unix.Mount(name, dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("mounting a tmpfs: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	for _, want := range []string{"above", "below"} {
		m, found, err := Top(dir)
		if err != nil || !found || m.Source != want || m.Type != "tmpfs" {
			t.Errorf("%+v, %v, %v, want %s", m, found, err, want)
		}
		if err := Unmount(t.Context(), dir, want == "above"); err != nil {
			t.Fatal(err)
		}
	}
	if m, found, err := Top(dir); err != nil || found {
		t.Errorf("unmounted, but there is %+v, %v", m, err)
	}
	if err := Unmount(t.Context(), dir, false); err == nil {
		t.Error("unmounting what is not mounted went well")
	}
}

func TestOnlyTheKernelsTableShowsItsMounts(t *testing.T) {
	dir := t.TempDir()
	link, copied := filepath.Join(dir, "link"), filepath.Join(dir, "copied")
	if err := os.Symlink("/proc/self/mounts", link); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(link)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, data, 0o644); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{
		link: true, copied: false, filepath.Join(dir, "missing"): false,
	} {
		if showsMounts(file) != want {
			t.Errorf("%s: %v", file, !want)
		}
	}
}
