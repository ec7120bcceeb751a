package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Names come from checkpoints and paths, which strangers may have chosen. Some characters control
// the terminal, change the direction of the text, or are invisible. They are written as \u202e.

// oneLine keeps a message on one line, and escapes characters that could deceive its reader.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, escapeUnseen(s, func(r rune) bool { return unseen(r) && !unicode.IsControl(r) }))
}

// unseen reports whether a character is not printed, or has no width.
func unseen(r rune) bool {
	return !unicode.IsPrint(r) ||
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// escapeUnseen escapes the characters for which is returns true.
func escapeUnseen(s string, is func(rune) bool) string {
	if strings.IndexFunc(s, is) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !is(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// jsonWriter escapes invisible characters in the strings of JSON. Each write has to end at the end
// of a character, as those of json.Encoder do.
type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(p []byte) (int, error) {
	if bytes.IndexFunc(p, inString) < 0 {
		return j.w.Write(p)
	}
	_, err := io.WriteString(j.w, escapeUnseen(string(p), inString))
	return len(p), err
}

// inString reports whether a character of JSON has to be escaped. Such a character can only be in a
// string.
func inString(r rune) bool { return r >= 0x7f && r != utf8.RuneError && unseen(r) }

// shellWord quotes a name for a command that the user may copy into a shell, if that is necessary.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' ||
			strings.ContainsRune("@%+=:,./_-~", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
