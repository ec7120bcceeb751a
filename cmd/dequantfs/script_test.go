package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// TestMain runs the tests, or this binary as the command: under its names, and when it
// starts itself, which gives it a subcommand where tests have flags.
func TestMain(m *testing.M) {
	// The race detector sleeps a second at the end of each process, of which there are many.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	names := map[string]func(){"dequantfs": main, "mount.fuse.dequantfs": main}
	_, known := names[filepath.Base(os.Args[0])]
	if !known && len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		os.Args[0] = "dequantfs"
	}
	testscript.Main(hearing{m}, names)
}

// hearing runs tests whose children hear SIGHUP, also where nohup has it ignored: a signal that is
// caught is at its default in a child.
type hearing struct{ *testing.M }

func (h hearing) Run() int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	return h.M.Run()
}

// TestScripts runs the sessions in testdata/script. Beside testscript's own
// commands they have
//
//	checkpoint DIR [EDIT…]    write a small DeepSeek-V3 checkpoint, see writeCheckpoint
//	golden NAME…              copy checkpoints of testdata/golden/formats
//	[!] mounted MOUNTPOINT    wait until a checkpoint is mounted there, or none
//	used MOUNTPOINT           wait until a process uses the mount
//	[!] signal NAME MOUNTPOINT  send a signal to the process behind the mount, which ends or stays
//	json FILE                 the file is JSON
//	cached DIR SOURCE OBJECTS  fill a disk cache, see scriptCached
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: true,
		Setup:               setupScript,
		Condition:           scriptCondition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"checkpoint": scriptCheckpoint,
			"golden":     scriptGolden,
			"mounted":    scriptMounted,
			"signal":     scriptSignal,
			"json":       scriptJSON,
			"used":       scriptUsed,
			"cached":     scriptCached,
		},
	})
}

func setupScript(env *testscript.Env) error {
	run := filepath.Join(env.WorkDir, "run")
	env.Setenv("XDG_RUNTIME_DIR", run)
	env.Setenv("GORACE", os.Getenv("GORACE"))
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("HF_HOME", filepath.Join(env.WorkDir, "hf"))
	env.Defer(func() { clearMounts(env.WorkDir) })
	return os.Mkdir(run, 0o700)
}

// scriptCondition knows [root], and [fuse]: whether there is FUSE; where it is required
// it is a failure that there is none.
func scriptCondition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Getuid() == 0, nil
	case "fuse":
	default:
		return false, fmt.Errorf("unknown condition %q", name)
	}
	err := fuseMissing()
	if err != nil && required("fuse") {
		return false, err
	}
	return err == nil, nil
}

// required says whether the environment asks for a thing, so that a test without it fails and is
// not skipped.
func required(thing string) bool {
	list := strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ",")
	return slices.Contains(list, thing) || slices.Contains(list, "all")
}

// requireFUSE skips a test on a machine without FUSE.
func requireFUSE(t *testing.T) {
	t.Helper()
	if err := fuseMissing(); err != nil {
		if required("fuse") {
			t.Fatalf("FUSE is required: %v", err)
		}
		t.Skipf("no FUSE: %v", err)
	}
}

// clearMounts unmounts everything that a failed test has left mounted below dir.
func clearMounts(dir string) {
	all, _ := mountsBelow(dir)
	for _, mountpoint := range all {
		exec.Command("umount", "-l", mountpoint).Run()
	}
}

// scriptCheckpoint writes a checkpoint: checkpoint DIR [EDIT…].
func scriptCheckpoint(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: checkpoint DIR [EDIT…]")
	}
	ts.Check(writeCheckpoint(ts.MkAbs(args[0]), args[1:]...))
}

// scriptGolden copies checkpoints of other quantized formats: golden NAME….
func scriptGolden(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: golden NAME…")
	}
	for _, name := range args {
		from := filepath.Join("..", "..", "testdata", "golden", "formats", name)
		ts.Check(os.CopyFS(ts.MkAbs(name), os.DirFS(from)))
	}
}

// writeCheckpoint writes a small DeepSeek-V3 checkpoint with edits, each NAME=VALUE:
//
//	shards=N experts=N mtp=N single noindex plain
//	drop=REGEX          leave tensors out
//	clone=OLD:NEW       add tensors under a name with NEW for OLD, in the last shard
//	retype=KEY:DTYPE    another dtype, zeros for data
//	reshape=KEY:AxB     another shape, zeros for data
//	add=KEY:DTYPE:AxB   add a tensor of zeros
//	config.KEY=JSON     change config.json; empty: remove the key
func writeCheckpoint(dir string, edits ...string) error {
	o := synth.Options{Layers: 2, Vocab: 64, Hidden: 128, ExpertIntermediate: 64,
		DenseIntermediate: 128, Heads: 2, QRank: 64, KVRank: 64, Nope: 32, Rope: 32, VHead: 32}
	numbers := map[string]*int{"shards": &o.Shards, "experts": &o.Experts, "mtp": &o.MTP,
		"layers": &o.Layers}
	switches := map[string]*bool{"single": &o.Single, "noindex": &o.NoIndex, "plain": &o.Plain}
	var later []string
	for _, e := range edits {
		name, value, _ := strings.Cut(e, "=")
		if n, ok := numbers[name]; ok {
			var err error
			if *n, err = strconv.Atoi(value); err != nil {
				return err
			}
		} else if b, ok := switches[name]; ok {
			*b = true
		} else {
			later = append(later, e)
		}
	}
	c := synth.DeepSeek(o)
	for _, e := range later {
		if err := editCheckpoint(c, e); err != nil {
			return err
		}
	}
	return c.Write(dir)
}

func editCheckpoint(c *synth.Checkpoint, edit string) error {
	name, value, _ := strings.Cut(edit, "=")
	key, to, _ := strings.Cut(value, ":")
	field, isConfig := strings.CutPrefix(name, "config.")
	switch {
	case isConfig && value == "":
		delete(c.Config, field)
		return nil
	case isConfig:
		var v any
		defer func() { c.Config[field] = v }()
		return json.Unmarshal([]byte(value), &v)
	case name == "drop":
		re, err := regexp.Compile(value)
		c.Tensors = slices.DeleteFunc(c.Tensors,
			func(t synth.Tensor) bool { return re.MatchString(t.Name) })
		return err
	case name == "clone":
		last := c.Shards() - 1
		for _, t := range slices.Clone(c.Tensors) {
			if strings.Contains(t.Name, key) {
				t.Name, t.Shard = strings.ReplaceAll(t.Name, key, to), last
				c.Tensors = append(c.Tensors, t)
			}
		}
		return nil
	case name == "add":
		dtype, shape, _ := strings.Cut(to, ":")
		c.Tensors = append(c.Tensors, synth.Tensor{Name: key, DType: dtype})
		return reshape(&c.Tensors[len(c.Tensors)-1], shape)
	case c.Find(key) == nil:
		return fmt.Errorf("%s: no tensor %q", edit, key)
	case name == "retype":
		t := c.Find(key)
		t.DType, t.Data = to, nil
		return nil
	case name == "reshape":
		return reshape(c.Find(key), to)
	}
	return fmt.Errorf("unknown edit %q", edit)
}

func reshape(t *synth.Tensor, shape string) error {
	t.Shape, t.Data = nil, nil
	for _, d := range strings.Split(shape, "x") {
		n, err := strconv.ParseInt(d, 10, 64)
		if err != nil {
			return err
		}
		t.Shape = append(t.Shape, n)
	}
	return nil
}

// scriptMounted waits until a checkpoint is mounted, or until there is none and no process that
// served one: [!] mounted MOUNTPOINT.
func scriptMounted(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] mounted MOUNTPOINT")
	}
	mountpoint := ts.MkAbs(args[0])
	dir := filepath.Join(ts.Getenv("XDG_RUNTIME_DIR"), "dequantfs")
	eventually(ts.Fatalf, func() error {
		all, err := mountsBelow(mountpoint)
		if err != nil {
			return err
		}
		serving := 0 // records are written once the mount is ready
		for _, r := range recordsOf(dir, mountpoint) {
			if !ended(r.PID) {
				serving++
			}
		}
		if (len(all) > 0) == neg || (serving > 0) == neg {
			return fmt.Errorf("mounted: %v, by %d processes", all, serving)
		}
		return nil
	})
}

// scriptSignal signals the process behind a mount and waits until it is gone, unless it is to stay:
// [!] signal TERM|INT|HUP|KILL MOUNTPOINT.
func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT,
		"KILL": syscall.SIGKILL, "HUP": syscall.SIGHUP}
	if len(args) != 2 || signals[args[0]] == 0 {
		ts.Fatalf("usage: [!] signal TERM|INT|HUP|KILL MOUNTPOINT")
	}
	records, err := filepath.Glob(filepath.Join(ts.Getenv("XDG_RUNTIME_DIR"), "dequantfs",
		"*.json"))
	ts.Check(err)
	for _, name := range records {
		var r record
		data, err := os.ReadFile(name)
		ts.Check(err)
		ts.Check(json.Unmarshal(data, &r))
		if r.Mountpoint == ts.MkAbs(args[1]) {
			p, err := os.FindProcess(r.PID)
			ts.Check(err)
			ts.Check(p.Signal(signals[args[0]]))
			if neg {
				return
			}
			eventually(ts.Fatalf, func() error {
				if !ended(r.PID) {
					return fmt.Errorf("process %d lives", r.PID)
				}
				return nil
			})
			return
		}
	}
	ts.Fatalf("no checkpoint is mounted at %s", args[1])
}

// scriptJSON checks that a file is JSON: json FILE.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: json FILE")
	}
	if !json.Valid([]byte(ts.ReadFile(args[0]))) != neg {
		ts.Fatalf("%s: JSON is %v", args[0], neg)
	}
}

// eventually tries until try succeeds; the time it may take is far more than it ever needs.
func eventually(fatalf func(string, ...any), try func() error) {
	var err error
	end := time.Now().Add(time.Minute)
	for ; time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	fatalf("still after a minute: %v", err)
}
