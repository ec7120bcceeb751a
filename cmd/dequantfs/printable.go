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

// Names come from checkpoints and paths, which strangers may have chosen. Characters in them that
// drive the terminal, turn the direction of the text round, or cannot be seen, are written as
// \u202e.

// oneLine keeps a message on one line, and escapes characters that could deceive its reader.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, escapeUnseen(s, func(r rune) bool { return unseen(r) && !unicode.IsControl(r) }))
}

// unseen says whether a character is not printed, or has no width of its own.
func unseen(r rune) bool {
	return !unicode.IsPrint(r) ||
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// escapeUnseen escapes the characters of which is says so.
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

// jsonWriter passes JSON on with everything escaped in its strings that cannot be seen. Each write
// has to end where a character ends, as those of json.Encoder do.
type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(p []byte) (int, error) {
	if bytes.IndexFunc(p, inString) < 0 {
		return j.w.Write(p)
	}
	_, err := io.WriteString(j.w, escapeUnseen(string(p), inString))
	return len(p), err
}

// inString says whether a character of JSON has to be escaped, and so is part of a string.
func inString(r rune) bool { return r >= 0x7f && r != utf8.RuneError && unseen(r) }
