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

// pages are the README and the help topics, by their paths from this folder.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("help", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range append(names, filepath.Join("..", "..", "README.md")) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(data)
	}
	return all
}

// allPages is the text of all pages.
func allPages(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, text := range pages(t) {
		b.WriteString(text)
	}
	return b.String()
}

func TestReadmeIsShort(t *testing.T) {
	if n := len(readme(t)); n >= 12000 {
		t.Errorf("the README has %d bytes, not less than 12000: move something to a topic", n)
	}
}

func TestReadmeNamesEveryCommandAndFlag(t *testing.T) {
	text, all := readme(t), allPages(t)
	flag := regexp.MustCompile(`--[a-z-]+`)
	for _, c := range allCommands()[1:] {
		if !strings.Contains(text, "    dequantfs "+c.Name()) {
			t.Errorf("the README does not list %s", c.CommandPath())
		}
		for _, f := range flag.FindAllString(c.LocalFlags().FlagUsages(), -1) {
			if f != "--help" && !regexp.MustCompile(f+`\b`).MatchString(all) {
				t.Errorf("neither the README nor a topic mentions %s %s", c.CommandPath(), f)
			}
		}
	}
	for _, command := range []string{"go run ./cmd/dequantfs demo", "go test ./..."} {
		if !strings.Contains(text, "\n    "+command) {
			t.Errorf("the README does not say %s", command)
		}
	}
}

// Links lead to files that exist; the README leads to each topic.
func TestLinksInPagesResolve(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)]+)\)`)
	for name, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: the link to %s: %v", name, m[1], err)
			}
		}
	}
	for _, topic := range topics() {
		made := topic.name == "families" && strings.Contains(readme(t), "dequantfs help families")
		if !made && !strings.Contains(readme(t), "(cmd/dequantfs/help/"+topic.name+".md)") {
			t.Errorf("the README has no link to the topic %s", topic.name)
		}
	}
}

// A page that sends the reader to dequantfs help WORD names a command or a topic.
func TestPagesNameTopicsThatExist(t *testing.T) {
	n := 0
	all := allPages(t) + goSources(t)
	mention := regexp.MustCompile("dequantfs help ([a-z][a-z-]+)")
	for _, m := range mention.FindAllStringSubmatch(all, -1) {
		n++
		if status, _, stderr := runHere("help", m[1]); status != 0 {
			t.Errorf("%s: %s", m[0], stderr)
		}
	}
	if n < 5 {
		t.Errorf("only %d mentions of a topic were found", n)
	}
}

// Every command line in the README, in topics and in help texts parses.
func TestCommandLinesInTextsParse(t *testing.T) {
	texts := pages(t)
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
	commandLine = regexp.MustCompile("(?m)(?:^ +|`|&& |\\$ |wrap ')" +
		"(?:go run \\./cmd/)?dequantfs ([a-z][^\n`|#&']*)")
	comment = regexp.MustCompile(`  +.*`)
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

// What is promised about security names tests that exist.
func TestPagesNameTestsThatExist(t *testing.T) {
	sources := goSources(t)
	name := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z]+)(?:/([a-z]+))?`")
	names := name.FindAllStringSubmatch(allPages(t), -1)
	if len(names) < 60 {
		t.Errorf("the pages name %d tests", len(names))
	}
	for _, m := range names {
		if !strings.Contains(sources, "func "+m[1]+"(") {
			t.Errorf("there is no test %s", m[1])
		}
		if m[2] != "" {
			script := filepath.Join("..", "..", "testdata", "script", m[2]+".txtar")
			if _, err := os.Stat(script); err != nil {
				t.Error(err)
			}
		}
	}
}

// What the pages say about messages is about messages that there are.
func TestPagesExplainMessagesThatExist(t *testing.T) {
	known := goSources(t) + exec.ErrNotFound.Error()
	for e := range syscall.Errno(200) {
		known += "\n" + e.Error()
	}
	n := 0
	for name, text := range pages(t) {
		for _, message := range explainedMessages(text) {
			n++
			if !strings.Contains(known, message) {
				t.Errorf("%s: nothing says %q", name, message)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d messages are explained", n)
	}
}

// explainedMessages are the first cells of the tables of messages.
func explainedMessages(text string) (all []string) {
	for section := range strings.SplitSeq(text, "\n## ") {
		if !strings.HasPrefix(section, "Troubleshooting") &&
			!strings.HasPrefix(section, "Messages") {
			continue
		}
		row := regexp.MustCompile("(?m)^\\| (`.*?) \\| ")
		for _, row := range row.FindAllStringSubmatch(section, -1) {
			for part := range strings.SplitSeq(row[1], "`") {
				part = strings.TrimPrefix(part, "open /dev/fuse: ")
				if len(part) > 3 {
					all = append(all, part)
				}
			}
		}
	}
	return all
}

// goSources is the text of all Go files.
func goSources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(filepath.Join("..", ".."),
		func(name string, d os.DirEntry, err error) error {
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

func TestReadmeListsEveryPackage(t *testing.T) {
	text := readme(t)
	for name := range arrows {
		if name != "cmd/dequantfs/startup" && !strings.Contains(text, "| `"+name+"` | ") {
			t.Errorf("the README does not say what is in %s", name)
		}
	}
}

func TestEveryDependencyIsJustified(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	text := readme(t)
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	for _, m := range direct.FindAllStringSubmatch(string(data), -1) {
		if !strings.Contains(text, "`"+m[1]+"`") {
			t.Errorf("the README does not say what %s is for", m[1])
		}
	}
}
