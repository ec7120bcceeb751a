package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKernelReleases(t *testing.T) {
	for release, want := range map[string][2]int{
		"6.18.5":              {6, 18},
		"5.15.0-105-generic":  {5, 15},
		"4.18.0-553.el8":      {4, 18},
		"6.6":                 {6, 6},
		"nothing of the kind": {0, 0},
	} {
		if major, minor := parseRelease(release); major != want[0] || minor != want[1] {
			t.Errorf("%s: %d.%d", release, major, minor)
		}
	}
}

func TestFuseConf(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fuse.conf")
	for text, want := range map[string]bool{
		"":                                   false,
		"user_allow_other\n":                 true,
		"#user_allow_other\n":                false,
		"mount_max = 9\n  user_allow_other ": true,
		"user_allow_others":                  false,
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if fuseConf(name) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
	if fuseConf(name + ".missing") {
		t.Error("a missing file permits it")
	}
}

func TestOnlyKernelsWithoutAVX2CouldBeBetter(t *testing.T) {
	for kernels, want := range map[[2]string]string{
		{"avx512", "amd64"}:  "ok",
		{"avx2", "amd64"}:    "ok",
		{"generic", "amd64"}: "could be better",
		{"generic", "arm64"}: "ok",
	} {
		if got := examineKernels(kernels[0],
			kernels[1]); got.State != want || !strings.Contains(got.Says, kernels[0]) {
			t.Errorf("%v: %+v, want %s", kernels, got, want)
		}
	}
}

func TestSomethingBrokenIsAFailure(t *testing.T) {
	good := []finding{ok("a", "b"), better("c", "d", "e")}
	if err := worst(good); err != nil {
		t.Error(err)
	}
	if err := worst(append(good, broken("f", "g", "h"))); err != (quiet{1}) {
		t.Error(err)
	}
}
