package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func readme(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReadmeNamesEveryCommandAndFlag(t *testing.T) {
	text := readme(t)
	flag := regexp.MustCompile(`--[a-z-]+`)
	for _, c := range allCommands()[1:] {
		if !strings.Contains(text, "    dequantfs "+c.Name()) {
			t.Errorf("the README does not list %s", c.CommandPath())
		}
		for _, f := range flag.FindAllString(c.LocalFlags().FlagUsages(), -1) {
			if f != "--help" && !regexp.MustCompile(f+`\b`).MatchString(text) {
				t.Errorf("the README does not mention %s %s", c.CommandPath(), f)
			}
		}
	}
	for _, command := range []string{"go run ./cmd/dequantfs demo", "go test ./..."} {
		if !strings.Contains(text, "\n    "+command) {
			t.Errorf("the README does not say %s", command)
		}
	}
}

// Every command line in the README, in the help texts and in the deployment files parses.
func TestCommandLinesInTextsParse(t *testing.T) {
	texts := map[string]string{"README.md": readme(t)}
	for _, c := range allCommands() {
		texts[c.CommandPath()+" --help"] = c.Example
	}
	n := 0
	for name, text := range texts {
		for _, line := range commandLines(text) {
			n++
			if err := parseOnly(line); err != nil {
				t.Errorf("%s: %s: %v", name, line, err)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d command lines were found", n)
	}
}

var (
	commandLine = regexp.MustCompile("(?m)(?:^ +|`|&& |\\$ |wrap ')(?:go run \\./cmd/)?dequantfs ([a-z][^\n`|#&']*)")
	comment     = regexp.MustCompile(`  +.*`)
)

// commandLines finds what is to be typed, less the usage lines that stand for many.
func commandLines(text string) (lines []string) {
	for _, m := range commandLine.FindAllStringSubmatch(text, -1) {
		line := comment.ReplaceAllString(m[1], "")
		if strings.ContainsAny(line, "[|") || strings.Contains(line, "  ") {
			continue
		}
		lines = append(lines, line)
	}
	return lines
}

// parseOnly finds the command and parses its flags and arguments, but does not run it.
func parseOnly(line string) error {
	args := strings.Fields(line)
	if args[0] == "help" || args[0] == "completion" {
		return nil
	}
	c, rest, err := newRoot().Find(args)
	if err != nil {
		return err
	}
	if c.Parent() == nil {
		return wrongUsage(c, "there is no command %q", args[0])
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if len(rest) == 0 || len(c.Flags().Args()) == 0 {
		return nil // the command's name in a sentence
	}
	return c.ValidateArgs(c.Flags().Args())
}

// What the README promises about security names tests that exist.
func TestReadmeNamesTestsThatExist(t *testing.T) {
	sources := goSources(t)
	names := regexp.MustCompile("`(Test[A-Za-z]+)(?:/([a-z]+))?`").FindAllStringSubmatch(readme(t), -1)
	if len(names) < 8 {
		t.Errorf("the README names %d tests", len(names))
	}
	for _, m := range names {
		if !strings.Contains(sources, "func "+m[1]+"(t *testing.T)") {
			t.Errorf("there is no test %s", m[1])
		}
		if m[2] != "" {
			if _, err := os.Stat(filepath.Join("..", "..", "testdata", "script", m[2]+".txtar")); err != nil {
				t.Error(err)
			}
		}
	}
}

// What the README says about messages is about messages that there are.
func TestReadmeExplainsMessagesThatExist(t *testing.T) {
	known := goSources(t) + exec.ErrNotFound.Error()
	for e := range syscall.Errno(200) {
		known += "\n" + e.Error()
	}
	_, text, _ := strings.Cut(readme(t), "## Troubleshooting")
	text, _, _ = strings.Cut(text, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| (`.*?) \\| ").FindAllStringSubmatch(text, -1)
	if len(rows) < 8 {
		t.Errorf("only %d messages are explained", len(rows))
	}
	for _, row := range rows {
		for _, part := range strings.Split(row[1], "`") {
			part = strings.TrimPrefix(part, "open /dev/fuse: ")
			if len(part) > 3 && !strings.Contains(known, part) {
				t.Errorf("nothing says %q", part)
			}
		}
	}
}

// goSources is the text of all Go files.
func goSources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(filepath.Join("..", ".."), func(name string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".go") {
			return err
		}
		data, err := os.ReadFile(name)
		all.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestEveryDependencyIsJustified(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	text := readme(t)
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(string(data), -1) {
		if !strings.Contains(text, "`"+m[1]+"`") {
			t.Errorf("the README does not say what %s is for", m[1])
		}
	}
}
