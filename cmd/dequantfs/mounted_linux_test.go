package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/dequantfs/dequantfs/fs"
)

// The hint about /etc/fuse.conf is for the helper's refusal only, whose reason is not in the error.
func TestOnlyAnUnexplainedRefusalIsLaidToAllowOther(t *testing.T) {
	if mayAllowOther() {
		defer actAs(t, 65534)()
	}
	if mayAllowOther() {
		t.Skip("every user may use --allow-other here")
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("fusermount exited with code 256"), "user_allow_other"},
		{&fs.MemoryError{By: "a limit"}, "raise the limit"},
		{&os.PathError{Op: "mkdir", Path: "/p", Err: syscall.EACCES}, "permissions"},
		{&exec.Error{Name: "fusermount3", Err: exec.ErrNotFound}, "install fuse3"},
		{fs.ErrMounted, ""},
	} {
		got := hintFor(permitOthers(test.err, fs.MountOptions{AllowOther: true}))
		if !strings.Contains(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%v: hint %q, want %q", test.err, got, test.want)
		}
		if test.want == "user_allow_other" {
			continue
		}
		if plain := hintFor(permitOthers(test.err, fs.MountOptions{})); got != plain {
			t.Errorf("%v: hint %q, without --allow-other %q", test.err, got, plain)
		}
	}
}

// actAs gives the process the effective user until the function that it returns is called. All
// threads change, so no other test may run at the same time.
func actAs(t *testing.T, uid int) (back func()) {
	t.Helper()
	if err := syscall.Seteuid(uid); err != nil {
		t.Skip(err)
	}
	return func() {
		if err := syscall.Seteuid(0); err != nil {
			t.Fatal(err)
		}
	}
}
