package adapter

import (
	"math"
	"strings"
)

// place is where a key is in a model. "model.layers.3.mlp.gate.weight" is in layer 3 under the
// prefix "model.", and its rest is "mlp.gate.weight".
type place struct {
	prefix string // up to "layers.", or the whole key if there is no layer
	layer  int    // -1 if there is none
	rest   string // behind the layer's number and dot
}

// locate splits a key at its first "layers.N.".
func locate(key string) place {
	for from := 0; ; {
		i := strings.Index(key[from:], "layers.")
		if i < 0 {
			return place{prefix: key, layer: -1}
		}
		i += from
		from = i + len("layers.")
		if i > 0 && key[i-1] != '.' {
			continue
		}
		n, rest, ok := number(key[from:])
		if ok && n < math.MaxInt32 && rest != "" && rest[0] == '.' {
			return place{prefix: key[:i], layer: n, rest: rest[1:]}
		}
	}
}

// locate splits a key as the family's checkpoints name their layers.
func (f *family) locate(key string) place {
	if f == nil {
		return locate(key)
	}
	if tail, ok := strings.CutPrefix(key, f.mtpPrefix); ok && f.mtpPrefix != "" {
		n, rest, ok := number(tail)
		if ok && n < math.MaxInt32 && strings.HasPrefix(rest, ".") {
			return place{f.mtpPrefix, n, rest[1:]}
		}
	}
	at := locate(key)
	at.rest = strings.TrimPrefix(at.rest, f.mtpBlock)
	return at
}

// headOf returns the part of a key before its rest.
func headOf(key string, at place) string { return key[:len(key)-len(at.rest)] }

// number reads the decimal number that s begins with. Larger ones become 2^31-1.
func number(s string) (n int, rest string, ok bool) {
	i := 0
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		n = min(n*10+int(s[i]-'0'), math.MaxInt32)
		i++
	}
	return n, s[i:], i > 0
}

// role is the part of a projection in its expert.
type role uint8

// The projections of an expert. Gate and up are [I, D], down is [D, I].
const (
	gate role = iota
	up
	down
	roles
)

func (r role) String() string { return [...]string{"gate", "up", "down"}[r] }
