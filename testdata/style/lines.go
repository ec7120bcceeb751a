package main

import (
	"go/ast"
	"strings"
	"unicode/utf8"
)

const (
	mostColumns = 100
	tabColumns  = 4
)

// longLines finds lines of Go and Markdown, and comments of scripts, that are too long. Tables,
// addresses and directives cannot be wrapped; rows of tables in tests read better unwrapped.
func longLines(f *file) (offences []string) {
	excepted := f.exceptions()
	for i, line := range f.lines {
		n := columns(line)
		if n > mostColumns && !excepted[i+1] && f.counts(line) && !unbreakable(line) {
			offences = append(offences, f.at(i+1, "a line of %d columns", n))
		}
	}
	return offences
}

// counts says whether the length of a line matters: in scripts only that of comments does.
func (f *file) counts(line string) bool {
	trimmed := strings.TrimSpace(line)
	return f.isGo() || strings.HasSuffix(f.name, ".md") ||
		strings.HasPrefix(trimmed, "# ") || strings.HasPrefix(trimmed, `"""`)
}

func columns(line string) int {
	return utf8.RuneCountInString(line) + strings.Count(line, "\t")*(tabColumns-1)
}

// unbreakable lines are addresses, directives, and rows of Markdown tables.
func unbreakable(line string) bool {
	trimmed := strings.TrimSpace(line)
	return strings.Contains(line, "://") || strings.HasPrefix(trimmed, "//go:") ||
		strings.HasPrefix(trimmed, "|")
}

// longRaw is the width from which on a raw string is left alone, since it cannot be wrapped.
const longRaw = 60

// exceptions are the lines of long raw strings, and in tests the lines that are one element of a
// table.
func (f *file) exceptions() map[int]bool {
	lines := map[int]bool{}
	if !f.isGo() {
		return lines
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			raw := n.Value
			if raw[0] == '`' && (len(raw) > longRaw || strings.Contains(raw, "\n")) {
				f.mark(lines, n)
			}
		case *ast.CompositeLit:
			if f.isTest() {
				f.markRows(lines, n)
			}
		}
		return true
	})
	return lines
}

// markRows excepts the elements of a literal that have a line of their own.
func (f *file) markRows(lines map[int]bool, n *ast.CompositeLit) {
	first := f.line(n.Lbrace)
	for _, e := range n.Elts {
		if f.line(e.Pos()) != first && f.line(e.Pos()) == f.line(e.End()) {
			lines[f.line(e.Pos())] = true
		}
	}
}

// mark excepts all lines of a raw string, which may hold anything.
func (f *file) mark(lines map[int]bool, n ast.Node) {
	for l := f.line(n.Pos()); l <= f.line(n.End()); l++ {
		lines[l] = true
	}
}
