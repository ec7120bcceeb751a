package adapter

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// pattern is a regular expression and a text that all of its matches contain. Most keys do not
// contain the text, which is much faster to see than that the expression does not match.
type pattern struct {
	*regexp.Regexp
	text string
}

// newPattern compiles an expression that is known to be valid.
func newPattern(expression string) *pattern {
	p := &pattern{Regexp: regexp.MustCompile(expression)}
	if tree, err := syntax.Parse(expression, syntax.Perl); err == nil {
		p.text = contained(tree)
	}
	return p
}

// MatchString reports whether s contains a match.
func (p *pattern) MatchString(s string) bool {
	return strings.Contains(s, p.text) && p.Regexp.MatchString(s)
}

// contained returns the longest text that it finds in all matches of an expression.
func contained(e *syntax.Regexp) (longest string) {
	switch {
	case e.Op == syntax.OpLiteral && e.Flags&syntax.FoldCase == 0:
		if !slices.Contains(e.Rune, utf8.RuneError) { // it also matches bytes that are not UTF-8
			return string(e.Rune)
		}
	case e.Op == syntax.OpCapture, e.Op == syntax.OpPlus, e.Op == syntax.OpRepeat && e.Min > 0:
		return contained(e.Sub[0])
	case e.Op == syntax.OpConcat:
		for _, sub := range e.Sub {
			if text := contained(sub); len(text) > len(longest) {
				longest = text
			}
		}
	}
	return longest
}
