package serve

import (
	"slices"
	"strings"
)

// maxName is the longest part of an id.
const maxName = 96

// Name returns the text as the first part of an id, as clients check it: letters, digits, '-', '_'
// and '.', without "--" and "..", and neither '-' nor '.' at its ends. A name that means something
// else on the Hub gets another beginning.
func Name(text string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		if r == '.' {
			return r
		}
		return '-'
	}, text)
	for _, twice := range []string{"--", ".."} {
		for strings.Contains(name, twice) {
			name = strings.ReplaceAll(name, twice, twice[:1])
		}
	}
	name = strings.Trim(name[:min(len(name), maxName)], "-.")
	switch {
	case name == "":
		return "checkpoint"
	case slices.Contains(taken, strings.TrimSuffix(strings.ToLower(name), "s")):
		return "my-" + name
	}
	return name
}

// taken are the words, in the singular, that an address of the Hub may begin with.
var taken = []string{"api", "model", "dataset", "space", "bucket", "kernel", "collection"}
