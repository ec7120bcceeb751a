package main

import (
	"go/ast"
	"go/token"
	"strings"
)

// undocumented finds exported names without a doc comment: functions, methods, types, constants and
// variables. One comment is enough for a group. Package main exports nothing.
func undocumented(f *file) (offences []string) {
	if !f.isGo() || f.isTest() || f.tree.Name.Name == "main" {
		return nil
	}
	for _, d := range f.tree.Decls {
		for _, name := range undocumentedIn(d) {
			offences = append(offences, f.at(f.line(name.Pos()), "%s has no doc comment",
				name.Name))
		}
	}
	return offences
}

func undocumentedIn(d ast.Decl) (names []*ast.Ident) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && receiverIsExported(d) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		for _, s := range d.Specs {
			names = append(names, undocumentedSpec(s)...)
		}
	}
	return names
}

func undocumentedSpec(s ast.Spec) (names []*ast.Ident) {
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Doc == nil && s.Comment == nil && s.Name.IsExported() {
			names = append(names, s.Name)
		}
	case *ast.ValueSpec:
		for _, n := range s.Names {
			if s.Doc == nil && s.Comment == nil && n.IsExported() {
				names = append(names, n)
			}
		}
	}
	return names
}

// receiverIsExported says whether a function is part of what the package exports. A method of an
// unexported type is not.
func receiverIsExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch u := t.(type) {
		case *ast.StarExpr:
			t = u.X
		case *ast.IndexExpr:
			t = u.X
		case *ast.IndexListExpr:
			t = u.X
		case *ast.Ident:
			return u.IsExported()
		default:
			return true
		}
	}
}

func (f *file) line(p token.Pos) int { return f.set.Position(p).Line }

// commentColumns gives for each line with a comment the byte at which the comment begins.
func (f *file) commentColumns() map[int]int {
	if f.columns != nil {
		return f.columns
	}
	f.columns = map[int]int{}
	for _, group := range f.tree.Comments {
		for _, c := range group.List {
			begin := f.set.Position(c.Pos())
			f.columns[begin.Line] = begin.Column - 1
			for i := range strings.Count(c.Text, "\n") {
				f.columns[begin.Line+1+i] = 0
			}
		}
	}
	return f.columns
}
