package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func TestTopicsAreTheFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("help", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".md")
	}
	files = append(files, "families") // made of the table
	slices.Sort(files)
	if got := topicNames(); !slices.Equal(got, files) {
		t.Errorf("topics %v, files %v", got, files)
	}
	for _, want := range strings.Fields("loaders layouts formats tuning semantics security " +
		"without-fuse library") {
		if !slices.Contains(files, want) {
			t.Errorf("there is no topic %s", want)
		}
	}
	for _, c := range allCommands() {
		if slices.Contains(files, c.Name()) {
			t.Errorf("%s is a command and a topic", c.Name())
		}
	}
}

// Every file begins with "# NAME: SHORT".
func TestTopicsHaveTitles(t *testing.T) {
	for _, topic := range topics() {
		if topic.name == "families" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("help", topic.name+".md"))
		if err != nil {
			t.Fatal(err)
		}
		title, _, _ := strings.Cut(string(text), "\n")
		if title != "# "+topic.name+": "+topic.short || topic.short == "" || topic.body == "" {
			t.Errorf("%s: title %q", topic.name, title)
		}
	}
}

// The list of topics is in the help of the root, and nowhere else.
func TestHelpListsTopics(t *testing.T) {
	for _, line := range [][]string{{"help"}, {"--help"}} {
		_, out, _ := runHere(line...)
		for _, topic := range topics() {
			if !strings.Contains(out, topic.name) || !strings.Contains(out, topic.short) {
				t.Errorf("%v does not list %s", line, topic.name)
			}
		}
	}
	if _, out, _ := runHere("help", "mount"); strings.Contains(out, "Topics") {
		t.Error("the help of mount lists topics")
	}
}

// Every word of a topic is printed, in lines that fit a terminal unless they are code.
func TestTopicsReadWellInATerminal(t *testing.T) {
	for _, topic := range topics() {
		status, out, stderr := runHere("help", topic.name)
		if status != 0 || stderr != "" {
			t.Fatalf("%s: status %d, %s", topic.name, status, stderr)
		}
		for line := range strings.Lines(out) {
			line = strings.TrimRight(line, "\n")
			code := strings.HasPrefix(line, "    ") || strings.Count(line, "`") > 1
			if utf8.RuneCountInString(line) > textWidth && !code {
				t.Errorf("%s: a line of %d columns: %s", topic.name, utf8.RuneCountInString(line),
					line)
			}
		}
		body := tableHead.ReplaceAllString(topic.body, "")
		body = linkTarget.ReplaceAllString(body, "]")
		for _, word := range strings.FieldsFunc(body, notAWord) {
			if !strings.Contains(strings.ToLower(out), strings.ToLower(word)) {
				t.Errorf("%s: the text lacks %q", topic.name, word)
			}
		}
	}
}

// tableHead is the head of a table, which wide tables of two columns are printed without.
var tableHead = regexp.MustCompile(`(?m)^\|.*\|\n\|[-|]+\|$`)

// linkTarget is where a link leads, which a terminal does not show.
var linkTarget = regexp.MustCompile(`\]\([^)]+\)`)

// notAWord splits Markdown where its marks are.
func notAWord(r rune) bool { return strings.ContainsRune(" \n|*[]()`\\#-", r) }

func TestTopicText(t *testing.T) {
	body := strings.Join([]string{
		"A paragraph with `--code x`,",
		"**bold** and [a link](other.md).",
		"",
		"* one",
		"* two",
		"  lines",
		"",
		"1. first",
		"2. second",
		"",
		"## Heading",
		"",
		"    indented  code",
		"",
		"| a | b |",
		"|---|---|",
		"| 1 | `x y` |",
		"",
		"| wide | head |",
		"|---|---|",
		"| first | " + strings.Repeat("word ", 20) + "|",
	}, "\n")
	want := `dequantfs t: short

A paragraph with ` + "`--code x`" + `, bold and a link.

* one
* two lines

1. first
2. second

HEADING

    indented  code

a  b
1  ` + "`x y`" + `

  first
      word word word word word word word word word word word word word word word
      word word word word word
`
	if got := topicText(topic{"t", "short", body}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// An unknown word is wrong usage, and the answer lists what there is.
func TestHelpOfNothingListsCommandsAndTopics(t *testing.T) {
	for _, args := range [][]string{{"help", "nothing"}, {"help", "loaders", "more"},
		{"help", "mount", "more"}} {
		status, out, stderr := runHere(args...)
		if status != 2 || out != "" || !strings.Contains(stderr, "there is no command or topic") {
			t.Errorf("%v: status %d, %q, %q", args, status, out, stderr)
		}
		for _, name := range append(topicNames(), "mount", "export") {
			if !strings.Contains(stderr, name) {
				t.Errorf("%v: the error does not list %s", args, name)
			}
		}
	}
}

func TestHelpCompletesCommandsAndTopics(t *testing.T) {
	_, out, _ := runHere(cobra.ShellCompRequestCmd, "help", "")
	for _, name := range append(topicNames(), "mount", "export") {
		if !strings.Contains("\n"+out, "\n"+name+"\t") {
			t.Errorf("%s is not offered: %s", name, out)
		}
	}
	_, out, _ = runHere(cobra.ShellCompRequestCmd, "help", "mount", "")
	if strings.Contains(out, "loaders") {
		t.Errorf("a second word is offered: %s", out)
	}
}

// Man pages have the title of section 7, the text of the topic, and no links to files.
func TestTopicsAreManPages(t *testing.T) {
	for _, topic := range topics() {
		page := string(topicMan(topic))
		for _, want := range []string{
			`.TH "DEQUANTFS-` + strings.ToUpper(topic.name) + `" "7"`,
			"dequantfs-" + topic.name + ` \- `,
		} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %s", topic.name, want)
			}
		}
		if strings.Contains(page, ".md") {
			t.Errorf("%s: the page has a link to a Markdown file", topic.name)
		}
	}
}
