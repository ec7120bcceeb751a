// Command style checks how the repository is written: the length of functions and lines, the share
// of comments, doc comments of exported names, and words that read as translated.
//
//	go run ./testdata/style         prints each offence, and exits with 1 if there are any
//	go run ./testdata/style -v      prints the figures too
//
// It reads the files that git knows, so a new file counts once it is added.
package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// file is one file of the repository. Go files have a syntax tree.
type file struct {
	name  string
	text  string
	lines []string
	set   *token.FileSet
	tree  *ast.File

	columns map[int]int // where comments begin, once that is asked for
}

func main() {
	verbose := flag.Bool("v", false, "print the figures")
	flag.Parse()
	files, err := repository()
	if err != nil {
		log.Fatal(err)
	}
	var offences []string
	for _, f := range files {
		offences = slices.Concat(offences, longLines(f), bannedWords(f), undocumented(f))
	}
	for _, m := range measure(files) {
		if *verbose {
			fmt.Println(m)
		}
		offences = append(offences, m.offences()...)
	}
	for _, o := range offences {
		fmt.Println(o)
	}
	fmt.Printf("%d files, %d offences\n", len(files), len(offences))
	if len(offences) > 0 {
		os.Exit(1)
	}
}

// repository reads the Go, Markdown, Python and shell files that git knows.
func repository() ([]*file, error) {
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return nil, fmt.Errorf("git rev-parse: %w", err)
	}
	if err := os.Chdir(strings.TrimSpace(string(root))); err != nil {
		return nil, err
	}
	names, err := exec.Command("git", "ls-files", "-z").Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	var files []*file
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it was removed, and git does not know yet
		}
		if f := read(name, string(text)); f != nil {
			files = append(files, f)
		}
	}
	return files, nil
}

// read takes a file apart, or gives nil for one that no rule is about.
func read(name, text string) *file {
	f := &file{name: name, text: text, lines: strings.Split(strings.TrimRight(text, "\n"), "\n")}
	switch path.Ext(name) {
	case ".md", ".py", ".sh":
		return f
	case ".go":
	default:
		if strings.HasPrefix(text, "#!") {
			return f
		}
		return nil
	}
	f.set = token.NewFileSet()
	tree, err := parser.ParseFile(f.set, name, text,
		parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		log.Fatal(err)
	}
	f.tree = tree
	if ast.IsGenerated(tree) {
		return nil
	}
	return f
}

// isGo says whether a file is Go; isTest whether it is a test.
func (f *file) isGo() bool   { return f.tree != nil }
func (f *file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

// at names a line, counted from 1.
func (f *file) at(line int, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", f.name, line, fmt.Sprintf(format, args...))
}
