package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestOneLineShowsWhatCannotBeSeen(t *testing.T) {
	for s, want := range map[string]string{
		"plain é ü 日本 →":        "plain é ü 日本 →",
		"a\nb\t\x1b[31m\x7f":    "a b  [31m ",
		"\u009b2J":              " 2J",
		"a\u202eb":              `a\u202eb`,
		"\u200b\u2066\ufeff":    `\u200b\u2066\ufeff`,
		"\u00ad\u061c\u2028":    `\u00ad\u061c\u2028`,
		"\u115f\u3164\ufe0f":    `\u115f\u3164\ufe0f`,
		"\U000e0041 \U0001f600": `\udb40\udc41 ` + "\U0001f600",
		"\xff":                  "\ufffd",
	} {
		if got := oneLine(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func FuzzOneLine(f *testing.F) {
	f.Add("model\u202e.weight\x1b[2J\U000e0041\xff")
	f.Fuzz(func(t *testing.T, s string) {
		if i := strings.IndexFunc(oneLine(s), unseen); i >= 0 {
			t.Errorf("%q: %q", s, oneLine(s)[i:])
		}
		var b bytes.Buffer
		if err := writeJSON(&b, s); err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != strings.ToValidUTF8(s,
			"\ufffd") && back != string([]rune(s)) {
			t.Errorf("%q: %q, which is %q (%v)", s, b.String(), back, err)
		}
		if bytes.IndexFunc(b.Bytes(), func(r rune) bool { return unseen(r) && r != '\n' }) >= 0 {
			t.Errorf("%q: %q", s, b.String())
		}
	})
}
