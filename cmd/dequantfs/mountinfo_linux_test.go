package main

import "testing"

func TestMountinfoIsRead(t *testing.T) {
	for line, want := range map[string]mountEntry{
		`36 35 0:52 / /mnt/a\040b rw,nosuid - fuse.dequantfs /src\134x rw`: {"0:52", "/mnt/a b", "fuse.dequantfs", `/src\x`},
		`36 35 0:52 / /mnt ro shared:1 master:2 - proc proc rw`:            {"0:52", "/mnt", "proc", "proc"},
		`36 35 0:52 / /mnt\04 ro - tmpfs none rw`:                          {"0:52", `/mnt\04`, "tmpfs", "none"},
	} {
		if got, ok := parseMountinfo(line); !ok || got != want {
			t.Errorf("%s: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "36 35", "36 35 0:52 / /mnt rw", "a - b", "- - -"} {
		if got, ok := parseMountinfo(line); ok {
			t.Errorf("%q is read as %+v", line, got)
		}
	}
}
