package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
	dfs "github.com/dequantfs/dequantfs/fs"
)

// runHere runs a command line in this process.
func runHere(args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	status = run(context.Background(), args, strings.NewReader(""), &out, &err)
	return status, out.String(), err.String()
}

func TestMountHelperTakesWhatMountPasses(t *testing.T) {
	for _, c := range []struct{ argv, want string }{
		{"mount.fuse.dequantfs src mnt", "mount src mnt"},
		{"/sbin/mount.fuse.dequantfs src mnt -o rw,layout=hf", "mount src mnt -o rw,layout=hf"},
		{"mount.fuse.dequantfs src mnt -sfnv -o rw -t fuse.dequantfs", "mount src mnt -o rw"},
		{"mount.fuse.dequantfs -o ro src mnt", "mount -o ro src mnt"},
		{"dequantfs mount src mnt", "mount src mnt"},
	} {
		if got := strings.Join(arguments(strings.Fields(c.argv)), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.argv, got, c.want)
		}
	}
}

func TestErrorsAreOneLineWithTheirHint(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		want   string
	}{
		{nil, 0, ""},
		{errors.New("a\nb\x1b[31m"), 1, "dequantfs: a b [31m\n"},
		{withHint(errors.New("x"), "do %d", 2), 1, "dequantfs: x\ndequantfs: hint: do 2\n"},
		{fmt.Errorf("y: %w", withHint(errors.New("x"), "do")), 1,
			"dequantfs: y: x\ndequantfs: hint: do\n"},
		{usageError{errors.New("x")}, 2, "dequantfs: x\n"},
		{usageError{withHint(errors.New("x"), "do")}, 2, "dequantfs: x\ndequantfs: hint: do\n"},
		{quiet{1}, 1, ""},
		{fmt.Errorf("x: %w", context.Canceled), 130, "dequantfs: interrupted\n"},
		{withHint(errInterrupted, "go on"), 130,
			"dequantfs: interrupted\ndequantfs: hint: go on\n"},
		{&fs.PathError{Op: "open", Path: "f", Err: syscall.EMFILE}, 1,
			"dequantfs: open f: too many open files\n" +
				"dequantfs: hint: raise the limit of open files: ulimit -n 65536\n"},
	} {
		var b bytes.Buffer
		if status := report(&b, c.err); status != c.status || b.String() != c.want {
			t.Errorf("%v: status %d, %q; want %d, %q", c.err, status, b.String(), c.status, c.want)
		}
	}
}

// TestHintsFitTheirKinds: each kind of error has a hint, unless its text says how to go on.
func TestHintsFitTheirKinds(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string // part of the hint
	}{
		{adapter.ErrNoWeight, "give their folder"},
		{adapter.ErrNoPart, "give their folder"},
		{adapter.ErrNoConfig, "layout hf needs no config.json"},
		{adapter.ErrNoCheckpoint, "ORG/NAME in the local cache"},
		{adapter.ErrAbsentTensor, "--exclude"},
		{adapter.ErrNotObject, "correct the file"},
		{adapter.ErrUnknownLayout, ""},
		{&adapter.LayoutError{Layout: "transformers"}, "reads layout hf"},
		{&adapter.LayoutError{Layout: "torchtitan"}, ""},
		{source.ErrMissing, "fetch what is missing"},
		{source.ErrNotDownloaded, ""},
		{&source.IncompleteError{Err: source.ErrMissing}, ""},
		{source.ErrOutsideLink, "--follow-links"},
		{safetensors.ErrTruncated, "fetch what is missing"},
		{safetensors.ErrDamaged, "download it again"},
		{&exec.Error{Name: "fusermount3", Err: exec.ErrNotFound}, "install fuse3"},
		{&exec.Error{Name: "/bin/fusermount", Err: exec.ErrNotFound}, "install fuse3"},
		{&exec.Error{Name: "dd", Err: exec.ErrNotFound}, ""},
		{new(dfs.MemoryError), "raise the limit"},
		{syscall.EBUSY, "fuser -vm"},
		{syscall.EACCES, "permissions"},
		{syscall.ESTALE, "mount it again"},
		{syscall.ENOENT, ""},
	} {
		got := hintFor(fmt.Errorf("x: %w", c.err))
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v: hint %q, want %q", c.err, got, c.want)
		}
	}
}

func TestLogForPeople(t *testing.T) {
	var b bytes.Buffer
	late := newLateHandler(newPeopleHandler(&b, slog.LevelInfo))
	log := slog.New(late).With("shard", 3)
	log.Debug("not this")
	log.Info("hello", "n", 1)
	log.Warn("odd\nname")
	log.Error("bad", "err", errors.New("x"))
	want := "dequantfs: hello, shard 3, n 1\n" +
		"dequantfs: warning: odd name, shard 3\n" +
		"dequantfs: error: bad, shard 3, err x\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	late.become((&logFlags{format: "json"}).lasting(&b))
	log.Info("later")
	if !strings.Contains(b.String(), `"msg":"later","shard":3`) {
		t.Errorf("after the change: %q", b.String())
	}
}

func TestHelpFitsAScreen(t *testing.T) {
	for _, c := range allCommands() {
		_, out, _ := runHere(append(strings.Fields(c.CommandPath())[1:], "--help")...)
		lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
		if len(lines) > 40 {
			t.Errorf("%s: the help has %d lines", c.CommandPath(), len(lines))
		}
		for _, l := range lines {
			if len([]rune(l)) > 100 {
				t.Errorf("%s: a line of %d columns: %s", c.CommandPath(), len([]rune(l)), l)
			}
		}
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s: no example or no description", c.CommandPath())
		}
	}
}

// allCommands lists the root and every command below it that help shows.
func allCommands() []*cobra.Command {
	root := newRoot()
	all := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if !c.Hidden && c.Name() != "help" {
			all = append(all, c)
		}
	}
	return all
}

func TestDemoIsTheGolden(t *testing.T) {
	for name, golden := range map[string]string{
		"model.safetensors":  "aligned-hf.safetensors",
		"config.json":        "aligned-config.json",
		"native-sha256.json": "aligned-native-sha256.json",
	} {
		got, err := readDemo(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", golden))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("demo/%s is not %s", name, golden)
		}
	}
}

func TestDemoWithoutAMount(t *testing.T) {
	var out, errs bytes.Buffer
	c := newDemo()
	c.SetContext(context.Background())
	c.SetOut(&out)
	c.SetErr(&errs)
	if err := demoWithoutMount(c, errors.New("a reason")); err != nil {
		t.Fatal(err, errs.String())
	}
	if proofs := regexp.MustCompile(`every SHA-256 equals`).FindAllString(out.String(),
		-1); len(proofs) != 3 {
		t.Errorf("%d views proved:\n%s", len(proofs), &out)
	}
}

func TestDemoFindsAWrongTensor(t *testing.T) {
	reference := map[string][]any{"a": {"torch.bfloat16", []any{1.0}, "00"}}
	for _, got := range []map[string]string{{"a": "01"}, {}, {"b": "00"}, {"a": "00", "b": "00"}} {
		if compareSums(got, reference) == nil {
			t.Errorf("%v passes for %v", got, reference)
		}
	}
	if err := compareSums(map[string]string{"a": "00"}, reference); err != nil {
		t.Error(err)
	}
}

func TestMountOptionsSetFlags(t *testing.T) {
	c := newMount()
	err := applyOptions(c,
		[]string{"rw", "_netdev", "layout=native+hf", "cache_size=1MiB", "allow_other",
			"x-mount.mkdir", "read-ahead=2MiB"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, name := range []string{"layout", "cache-size", "allow-other", "read-ahead"} {
		got[name] = c.Flags().Lookup(name).Value.String()
	}
	want := map[string]string{"layout": "[native,hf]", "cache-size": "1MiB", "allow-other": "true",
		"read-ahead": "2MiB"}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %s, want %s", name, got[name], v)
		}
	}
}

func TestFirstFewSaysHowManyMore(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f", "g"}
	if got := firstFew(names); got != "a, b, c, d, e and 2 more" {
		t.Error(got)
	}
	if got := firstFew(names[:5]); got != "a, b, c, d, e" {
		t.Error(got)
	}
	if !slices.Equal(names, []string{"a", "b", "c", "d", "e", "f", "g"}) {
		t.Error("the names were changed")
	}
}
