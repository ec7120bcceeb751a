package adapter

import (
	"fmt"
	"strings"
)

// Unknown names the model of a checkpoint if no row is for it, and a known model_type that its own
// resembles. Both are empty if they do not exist.
func Unknown(c *Checkpoint) (model, similar string) {
	s := c.Config.fields()
	f := c.row(s)
	if !f.unknown || s.modelType() == "" {
		return "", ""
	}
	model = s.modelType()
	if types := s.modelTypes(); len(types) > 1 {
		model += " around " + types[1]
	}
	return model, similarType(s.modelType())
}

// didYouMean asks whether a known model_type is meant, for a message.
func didYouMean(s settings) string {
	if t := similarType(s.modelType()); t != "" {
		return fmt.Sprintf(" (did you mean %q?)", t)
	}
	return ""
}

// similarType returns the known model_type that a value most likely is a misspelling of, or "".
// Digits must be the same: another version is another model. Short names must be the same but for
// what plainType takes away: pixtral is not mixtral.
func similarType(t string) string {
	plain := plainType(t)
	best, least := "", 1+min(1, len(plain)/9)
	for i := range families {
		for _, known := range families[i].types {
			if known == t {
				return ""
			}
			other := plainType(known)
			if digits(other) != digits(plain) {
				continue
			}
			if n := editDistance(plain, other); n < least {
				best, least = known, n
			}
		}
	}
	return best
}

// plainType is a model_type without what is often written in another way.
func plainType(t string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(strings.ToLower(t))
}

// digits are the digits of a text.
func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}

// editDistance counts the bytes to insert, remove or replace, and the neighbors to swap, that make
// one text of another.
func editDistance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
