package adapter

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

func TestPatternsKnowATextOfTheirMatches(t *testing.T) {
	for expression, want := range map[string]string{
		"":                                     "",
		"^(?:.*self_attn.*)":                   "self_attn",
		`^(?:.*mlp\.(gate|up)_proj.*)`:         "_proj",
		`^(?:model\.layers\.\d+\.mlp\..*)`:     "model.layers.",
		"^lm_head$":                            "lm_head",
		"(?i)lm_head":                          "",
		"a|b":                                  "",
		"(abc)+d":                              "abc",
		"(?:abc)*d":                            "d",
		"(?:abc)?de":                           "de",
		"(?:abc){0,3}de":                       "de",
		"(?:abc){2,3}de":                       "abc",
		"x[ab]":                                "x",
		"abc\uFFFDd":                           "",
		`^\+:model\.layers\.1\.mlp\.gate_proj`: "+:model.layers.1.mlp.gate_proj",
	} {
		if got := newPattern(expression).text; got != want {
			t.Errorf("%q: %q, want %q", expression, got, want)
		}
	}
}

// The oracle is the expression alone.
func TestPatternsMatchLikeTheirExpressions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", "b", "ab", ".", ".*", "(a|b)", "(?:ab)", "[ab]", "^", "$", "(?i)B",
		"\uFFFD", `\.`, "c"}
	repeats := []string{"", "", "", "*", "+", "?", "{0,2}", "{2}"}
	letters := []string{"a", "b", "c", "B", ".", "\n", "\xff", "\uFFFD", "ab", "abab"}
	draw := func(from []string) string { return from[rng.IntN(len(from))] }
	compared := 0
	for range 3000 {
		var expression, s strings.Builder
		for range 1 + rng.IntN(4) {
			expression.WriteString(draw(pieces) + draw(repeats))
		}
		re, err := regexp.Compile(expression.String())
		if err != nil {
			continue
		}
		p := newPattern(expression.String())
		for range 20 {
			s.Reset()
			for range rng.IntN(6) {
				s.WriteString(draw(letters))
			}
			compared++
			if got, want := p.MatchString(s.String()), re.MatchString(s.String()); got != want {
				t.Fatalf("%q and %q: %v, want %v", expression.String(), s.String(), got, want)
			}
		}
	}
	if compared < 10000 {
		t.Errorf("only %d texts were compared", compared)
	}
}
