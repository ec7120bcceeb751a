package main

import (
	"fmt"
	"os"
	"slices"
)

// run is what a test is to the packages: it ends what was started.
type run struct{ cleanups []func() }

// Helper does nothing.
func (t *run) Helper() {}

// Logf prints to the standard error.
func (t *run) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "remotebench: "+format+"\n", args...)
}

// Fatalf ends the program.
func (t *run) Fatalf(format string, args ...any) {
	t.Logf(format, args...)
	t.end()
	os.Exit(1)
}

// Skipf is an error too.
func (t *run) Skipf(format string, args ...any) { t.Fatalf(format, args...) }

// Cleanup keeps what is to be done at the end.
func (t *run) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// TempDir makes a folder that is removed at the end.
func (t *run) TempDir() string {
	dir, err := os.MkdirTemp("", "dequantfs-remotebench-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// end does what is to be done, the last first.
func (t *run) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
	t.cleanups = nil
}
