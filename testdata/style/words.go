package main

import (
	"regexp"
	"strings"
)

// banned are words that have no good use in comments and documents, and what to write instead.
var banned = []struct {
	word    *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)\b(some|no)body\b`), "name the user, program or caller"},
	{regexp.MustCompile(`(?i)\bwho(m)?ever\b`), "name the user, program or caller"},
	{regexp.MustCompile(`(?i)\bdear\b`), "expensive"},
	{regexp.MustCompile(`(?i)\b(its|their|the) kin\b`), "and similar NAMES"},
	{regexp.MustCompile(`(?i)\bstands? in\b`), "is in"},
	{regexp.MustCompile(`(?i)\bwherever\b`), "where"},
	{regexp.MustCompile(`(?i)\bwhatsoever\b`), "leave it out"},
	{regexp.MustCompile(`(?i)\bfor ever\b`), "forever"},
	{regexp.MustCompile(`(?i)\b(what|who) stands\b`), "name it"},
	{regexp.MustCompile(`\bis no [a-z]+ of\b`), "is not a"},
}

// bannedWords finds them in comments, and in all of a document.
func bannedWords(f *file) (offences []string) {
	for line, text := range f.prose() {
		for _, b := range banned {
			if w := b.word.FindString(text); w != "" {
				offences = append(offences, f.at(line, "%q: write %s", w, b.instead))
			}
		}
	}
	return offences
}

// prose yields the lines of comments, or of the whole file if it is a document. What is in
// backquotes is a name.
func (f *file) prose() func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for i, line := range f.lines {
			text, is := f.comment(i+1, line)
			if is && !yield(i+1, quoted.ReplaceAllString(text, "")) {
				return
			}
		}
	}
}

var quoted = regexp.MustCompile("`[^`]*`")

// comment gives the part of a line that is for people.
func (f *file) comment(number int, line string) (string, bool) {
	switch {
	case strings.HasSuffix(f.name, ".md"):
		return line, true
	case f.isGo():
		column, is := f.commentColumns()[number]
		if !is {
			return "", false
		}
		return line[min(column, len(line)):], true
	}
	for _, mark := range []string{"# ", `"""`} {
		if _, text, is := strings.Cut(line, mark); is {
			return text, true
		}
	}
	return "", false
}
