package main

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// bounds are for the code of a module, without its tests.
type bounds struct {
	median, p90               int // lines of a function
	leastComment, mostComment int // percent of the lines that are not empty
}

// boundsOf gives the bounds of a module. In the generator of the assembly a function is one
// sequence of instructions, which would not be clearer in parts.
func boundsOf(module string) bounds {
	if module == "fp8/_asm" {
		return bounds{12, 45, 3, 20}
	}
	return bounds{10, 30, 10, 20}
}

// measurement is what is counted in a module.
type measurement struct {
	module          string
	functions       []int // lines of each
	comments, lines int
}

// measure counts the code of each module. Programs and packages below testdata count as one more.
func measure(files []*file) []*measurement {
	modules := map[string]*measurement{}
	for _, f := range files {
		if !f.isGo() || f.isTest() {
			continue
		}
		name := module(f.name)
		if modules[name] == nil {
			modules[name] = &measurement{module: name}
		}
		modules[name].add(f)
	}
	var all []*measurement
	for _, m := range modules {
		slices.Sort(m.functions)
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *measurement) int { return strings.Compare(a.module, b.module) })
	return all
}

// module names what a file is counted with.
func module(name string) string {
	for _, part := range []string{"testdata", "fp8/_asm"} {
		if strings.HasPrefix(name, part+"/") {
			return part
		}
	}
	return path.Dir("./go.mod")
}

func (m *measurement) add(f *file) {
	comments := f.commentColumns()
	for i, line := range f.lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		m.lines++
		if column, is := comments[i+1]; is &&
			strings.TrimSpace(line[:min(column, len(line))]) == "" {
			m.comments++
		}
	}
	for _, d := range f.tree.Decls {
		if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
			m.functions = append(m.functions, f.line(d.End())-f.line(d.Pos())+1)
		}
	}
}

// quantile gives the length that so many percent of the functions do not exceed.
func (m *measurement) quantile(percent int) int {
	if len(m.functions) == 0 {
		return 0
	}
	return m.functions[(len(m.functions)-1)*percent/100]
}

func (m *measurement) percentComments() float64 {
	return 100 * float64(m.comments) / float64(max(m.lines, 1))
}

func (m *measurement) String() string {
	return fmt.Sprintf("%s: %d functions, lines: median %d, nine of ten %d, most %d; %.1f %% "+
		"comments",
		m.module, len(m.functions), m.quantile(50), m.quantile(90), m.quantile(100),
		m.percentComments())
}

func (m *measurement) offences() (offences []string) {
	offend := func(format string, args ...any) {
		offences = append(offences, m.module+": "+fmt.Sprintf(format, args...))
	}
	most := boundsOf(m.module)
	if n := m.quantile(50); n > most.median {
		offend("functions have %d lines (median), not at most %d", n, most.median)
	}
	if n := m.quantile(90); n > most.p90 {
		offend("nine of ten functions have up to %d lines, not at most %d", n, most.p90)
	}
	if p := m.percentComments(); p < float64(most.leastComment) || p > float64(most.mostComment) {
		offend("%.1f %% of the lines are comments, not %d to %d %%", p, most.leastComment,
			most.mostComment)
	}
	return offences
}
