package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notRun are the commands in README and topics that no test runs, and why.
var notRun = []struct{ begin, why string }{
	{"git clone ", "needs the network"},
	{"pip install ", "needs the network"},
	{"hf download ", "needs the network"},
	{"dequantfs mount hf://", "needs the network"},
	{"dequantfs ls s3://", "needs the network"},
	{"dequantfs cache ", "needs a cache; the script cache runs it"},
	{"python -c ", "needs transformers; .ci/run loaders runs the like of it"},
	{"go test ./...", "it would run this test again; .ci/run readme compares it with the stage tests"},
	{"go test ./fp8 ", "takes minutes, and needs benchstat"},
}

// programs begin the lines of indented blocks that are commands. Other blocks show files.
var programs = regexp.MustCompile(`^(dequantfs|go|git|pip|hf|python|export|cd|apt|sudo|ln|systemctl) `)

// pageCommands lists the commands in indented blocks, but for the synopsis of the README.
func pageCommands(text string) (lines []string) {
	for line := range strings.Lines(text) {
		line, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		if !indented || !programs.MatchString(line) || synopsis.MatchString(line) {
			continue
		}
		line, _, _ = strings.Cut(line, "  ")
		lines = append(lines, line)
	}
	return lines
}

// synopsis is a line that says how a command is called.
var synopsis = regexp.MustCompile(`^dequantfs [a-z]+ +(\[?(SOURCE|MOUNTPOINT|DIRECTORY|COMMAND)|print)`)

// reasonNotToRun finds the row of a command in notRun.
func reasonNotToRun(line string) int {
	for i, n := range notRun {
		if strings.HasPrefix(line, n.begin) {
			return i
		}
	}
	return -1
}

// The commands in README and topics work one after the other. A small checkpoint in the Hub cache
// takes the place of the model that they name.
func TestCommandsInPagesWork(t *testing.T) {
	requireFUSE(t)
	used := make([]bool, len(notRun))
	ran := 0
	for name, text := range pages(t) {
		var script []string
		for _, line := range pageCommands(text) {
			if i := reasonNotToRun(line); i >= 0 {
				used[i] = true
				continue
			}
			script = append(script, line)
		}
		ran += len(script)
		t.Run(filepath.Base(name), func(t *testing.T) { runPage(t, script) })
	}
	for i, n := range notRun {
		if !used[i] {
			t.Errorf("no page says %s any more", n.begin)
		}
	}
	if ran < 8 {
		t.Errorf("only %d commands were run", ran)
	}
}

// runPage runs commands in the root of the repository.
func runPage(t *testing.T, script []string) {
	if len(script) == 0 {
		return
	}
	s := newSession(t)
	bin := filepath.Join(s.dir, "bin")
	cacheAsQwen(t, s)
	for _, err := range []error{
		os.Mkdir(bin, 0o755),
		os.Mkdir(filepath.Join(s.dir, "tmp"), 0o755),
		os.Symlink(s.program, filepath.Join(bin, "dequantfs")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	text := "set -ex\n" + strings.Join(script, "\n") + "\n"
	c := exec.Command("sh", "-c", strings.ReplaceAll(text, " /tmp/", " "+s.dir+"/tmp/"))
	env := goEnv(t) // HOME is another one in a session
	s.as(c)
	c.Env = slices.Concat(c.Env, env, []string{"PATH=" + bin + ":" + os.Getenv("PATH"),
		"GOBIN=" + filepath.Join(s.dir, "gobin"), "TMPDIR=" + filepath.Join(s.dir, "tmp"), "HF_HOME=", "HF_HUB_CACHE="})
	c.Dir = filepath.Join("..", "..")
	s.output(c)
	if slices.Contains(script, "go install ./cmd/dequantfs") {
		s.output(s.as(exec.Command(filepath.Join(s.dir, "gobin", "dequantfs"), "version")))
	}
	if out := s.run("status"); strings.Contains(out, "/tmp/") {
		t.Errorf("left mounted: %s", out)
	}
}

// goEnv keeps the caches of the go command where they are.
func goEnv(t *testing.T) (env []string) {
	t.Helper()
	for _, name := range []string{"GOPATH", "GOCACHE", "GOMODCACHE"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(out)))
	}
	return env
}

// cacheAsQwen puts the session's checkpoint into the Hub cache, as the model that the README names.
func cacheAsQwen(t *testing.T, s *session) {
	t.Helper()
	repository := filepath.Join(s.dir, ".cache", "huggingface", "hub",
		"models--Qwen--Qwen3-0.6B-FP8")
	snapshots := filepath.Join(repository, "snapshots")
	for _, dir := range []string{snapshots, filepath.Join(repository, "refs")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(snapshots, "0123abcd"), os.DirFS(s.source)); err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(repository, "refs", "main")
	if err := os.WriteFile(main, []byte("0123abcd"), 0o644); err != nil {
		t.Fatal(err)
	}
}
