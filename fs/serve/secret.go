package serve

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// secret is the hash of the token that clients must send.
type secret [sha256.Size]byte

func newSecret(token string) *secret {
	if token == "" {
		return nil
	}
	s := secret(sha256.Sum256([]byte(token)))
	return &s
}

// admits reports whether a request has the token. Comparing takes the same time for every token.
func (s *secret) admits(r *http.Request) bool {
	if s == nil {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], s[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}
