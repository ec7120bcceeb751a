package readback

import (
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// The limits of a token and of white space, in bytes. The decoder behind the guard holds each token
// whole, and it scans white space again with each piece that arrives.
const (
	maxToken = 64 << 10
	maxGap   = 4 << 10
)

// guard passes text on while it is UTF-8, within its limit, and made of short tokens.
type guard struct {
	r           io.Reader
	left, limit int64
	err         error // the error of every later read

	token   int  // bytes of the token so far
	blank   bool // the token is white space
	quoted  bool // the token is a string
	escaped bool // the next byte of the string is escaped

	rune [utf8.UTFMax]byte // the beginning of a character that continues in the next piece
	half int               // bytes of it
}

// Read reads the next piece. It passes on none of a piece that breaks a rule.
func (g *guard) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.r.Read(p)
	if g.left -= int64(n); g.left < 0 {
		g.err = fmt.Errorf("longer than %d bytes", g.limit)
	} else if g.err = g.characters(p[:n], err == io.EOF); g.err == nil {
		g.err = g.tokens(p[:n])
	}
	if g.err != nil {
		return 0, g.err
	}
	g.err = err
	return n, err
}

// characters checks that the text is UTF-8. A character may be split between two pieces.
func (g *guard) characters(p []byte, last bool) error {
	for g.half > 0 && len(p) > 0 && !utf8.FullRune(g.rune[:g.half]) {
		g.rune[g.half] = p[0]
		g.half, p = g.half+1, p[1:]
	}
	if g.half > 0 && utf8.FullRune(g.rune[:g.half]) {
		if !utf8.Valid(g.rune[:g.half]) {
			return errNotUTF8
		}
		g.half = 0
	}
	if g.half == 0 {
		whole := wholeRunes(p)
		if !utf8.Valid(p[:whole]) {
			return errNotUTF8
		}
		g.half = copy(g.rune[:], p[whole:])
	}
	if last && g.half > 0 {
		return errNotUTF8
	}
	return nil
}

var errNotUTF8 = errors.New("not UTF-8")

// wholeRunes returns the length of p without an incomplete character at its end.
func wholeRunes(p []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if tail := p[len(p)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return len(p) - i
			}
			break
		}
	}
	return len(p)
}

// tokens checks that no token is too long.
func (g *guard) tokens(p []byte) error {
	for _, c := range p {
		blank := !g.quoted && isSpace[c]
		if blank != g.blank || !g.quoted && isDelim[c] {
			g.token, g.blank = 0, blank
		}
		g.token++
		switch {
		case g.escaped:
			g.escaped = false
		case g.quoted && c == '\\':
			g.escaped = true
		case c == '"':
			g.quoted = !g.quoted
			g.token = 0
		}
		switch {
		case g.blank && g.token > maxGap:
			return fmt.Errorf("more than %d bytes of white space", maxGap)
		case g.token > maxToken:
			return fmt.Errorf("a string or number of more than %d bytes", maxToken)
		}
	}
	return nil
}

var (
	isSpace = [256]bool{' ': true, '\t': true, '\n': true, '\r': true}
	isDelim = [256]bool{',': true, ':': true, '{': true, '}': true, '[': true, ']': true}
)
