package safetensors

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is the limit of nested objects and lists. The reference's parser has the same limit.
const maxDepth = 127

// scanner walks over JSON that is known to be valid UTF-8. The first error is kept in err and moves
// the scanner to the end, so that later calls fail too and loops end.
type scanner struct {
	data []byte
	pos  int
	err  error
}

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("byte %d of the JSON: %w", s.pos, fmt.Errorf(format, args...))
	}
	s.pos = len(s.data)
}

// peek skips white space and returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// expect skips white space and then c.
func (s *scanner) expect(c byte) {
	if got := s.peek(); got != c || s.pos >= len(s.data) {
		s.unexpected(strconv.QuoteRune(rune(c)))
		return
	}
	s.pos++
}

func (s *scanner) unexpected(want string) {
	if s.pos >= len(s.data) {
		s.fail("expected %s, but the text ends", want)
		return
	}
	r, _ := utf8.DecodeRune(s.data[s.pos:])
	s.fail("expected %s, found %q", want, r)
}

// more is the condition of a loop over an object or array that closes with end. The caller sets
// first to true before the loop.
func (s *scanner) more(first *bool, end byte) bool {
	if s.err != nil {
		return false
	}
	if s.peek() == end {
		s.pos++
		return false
	}
	if !*first {
		s.expect(',')
		if s.peek() == end {
			s.unexpected("another element")
		}
	}
	*first = false
	return s.err == nil
}

// end checks that only white space is left.
func (s *scanner) end() {
	if s.err == nil && (s.peek() != 0 || s.pos < len(s.data)) {
		s.unexpected("the end of the text")
	}
}

// key reads the key of a member and its colon. The result may be a slice of the data.
func (s *scanner) key() []byte {
	k := s.str()
	s.expect(':')
	return k
}

// str reads a string. The result is a slice of the data unless the string has escapes.
func (s *scanner) str() []byte {
	s.expect('"')
	rest := s.data[s.pos:]
	n := bytes.IndexByte(rest, '"')
	if s.err != nil || n < 0 {
		s.fail("a string does not end")
		return nil
	}
	for i, c := range rest[:n] {
		if c == '\\' {
			return s.escaped(i)
		}
		if c < ' ' {
			s.pos += i
			s.fail("a control character in a string")
			return nil
		}
	}
	s.pos += n + 1
	return rest[:n]
}

// escaped reads the rest of a string whose first n bytes are plain.
func (s *scanner) escaped(n int) []byte {
	out := append(make([]byte, 0, s.rest(n)), s.data[s.pos:s.pos+n]...)
	s.pos += n
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		switch {
		case c == '"':
			s.pos++
			return out
		case c < ' ':
			s.fail("a control character in a string")
		case c == '\\':
			out = s.escape(out)
		default:
			out = append(out, c)
			s.pos++
		}
	}
	s.fail("a string does not end")
	return nil
}

// rest returns the length in bytes of a string as written, whose first n bytes are plain. It bounds
// the length of the decoded string.
func (s *scanner) rest(n int) int {
	text := s.data[s.pos:]
	for ; n < len(text) && text[n] != '"'; n++ {
		if text[n] == '\\' {
			n++
		}
	}
	return min(n, len(text))
}

const (
	escapes   = `"\/bfnrt`
	unescapes = "\"\\/\b\f\n\r\t"
)

// escape appends the character of one escape sequence.
func (s *scanner) escape(out []byte) []byte {
	s.pos++
	if s.pos < len(s.data) {
		c := s.data[s.pos]
		if c == 'u' {
			return utf8.AppendRune(out, s.unicode())
		}
		if i := strings.IndexByte(escapes, c); i >= 0 {
			s.pos++
			return append(out, unescapes[i])
		}
	}
	s.fail("an unknown escape in a string")
	return out
}

// unicode reads uXXXX, and the second half of a surrogate pair.
func (s *scanner) unicode() rune {
	r := s.hex4()
	if !utf16.IsSurrogate(r) {
		return r
	}
	if bytes.HasPrefix(s.data[min(s.pos, len(s.data)):], []byte(`\u`)) {
		s.pos++
		if r = utf16.DecodeRune(r, s.hex4()); r != utf8.RuneError {
			return r
		}
	}
	s.fail("half a surrogate pair in a string")
	return utf8.RuneError
}

// hex4 reads the u and the four digits after it.
func (s *scanner) hex4() rune {
	if s.pos+5 <= len(s.data) {
		// ParseUint also refuses a sign and an underscore.
		if v, err := strconv.ParseUint(string(s.data[s.pos+1:s.pos+5]), 16, 16); err == nil {
			s.pos += 5
			return rune(v)
		}
	}
	s.fail("four hexadecimal digits missing in a string")
	return utf8.RuneError
}

// size reads a whole number from 0 to the largest int64.
func (s *scanner) size() int64 {
	s.peek()
	from, v := s.pos, uint64(0)
	for s.pos < len(s.data) {
		d := s.data[s.pos] - '0'
		if d > 9 {
			break
		}
		if v > (math.MaxInt64-uint64(d))/10 {
			s.pos = from
			s.fail("the number is too large")
			return 0
		}
		v = v*10 + uint64(d)
		s.pos++
	}
	switch {
	case s.pos == from:
		s.unexpected("a whole number")
	case s.data[from] == '0' && s.pos > from+1:
		s.pos = from
		s.fail("a number with a leading zero")
	case s.pos < len(s.data) && strings.IndexByte(".eE", s.data[s.pos]) >= 0:
		s.unexpected("a whole number")
	}
	return int64(v)
}

// skip reads over any value. It is inside depth objects and lists.
func (s *scanner) skip(depth int) {
	switch c := s.peek(); c {
	case '{', '[':
		if depth == maxDepth {
			s.fail("nested deeper than %d", maxDepth)
			return
		}
		s.pos++
		for first := true; s.more(&first, c+2); { // '{'+2 is '}', '['+2 is ']'
			if c == '{' {
				s.key()
			}
			s.skip(depth + 1)
		}
	case '"':
		s.str()
	default:
		s.literal()
	}
}

// literal reads over a number, true, false or null.
func (s *scanner) literal() {
	from := s.pos
	for s.pos < len(s.data) && strings.IndexByte(" \t\n\r,:{}[]\"", s.data[s.pos]) < 0 {
		s.pos++
	}
	word := string(s.data[from:s.pos])
	if word == "true" || word == "false" || word == "null" || isNumber(word) {
		return
	}
	s.pos = from
	s.unexpected("a value")
}

// isNumber reports whether w is a number in JSON's grammar.
func isNumber(w string) bool {
	digits := func() bool {
		n := len(w)
		w = strings.TrimLeft(w, "0123456789")
		return len(w) < n
	}
	w = strings.TrimPrefix(w, "-")
	if len(w) > 1 && w[0] == '0' && w[1] >= '0' && w[1] <= '9' {
		return false
	}
	if !digits() {
		return false
	}
	if strings.HasPrefix(w, ".") {
		if w = w[1:]; !digits() {
			return false
		}
	}
	if w != "" && (w[0] == 'e' || w[0] == 'E') {
		if w = w[1:]; w != "" && (w[0] == '+' || w[0] == '-') {
			w = w[1:]
		}
		if !digits() {
			return false
		}
	}
	return w == ""
}
