package remote

import "github.com/dequantfs/dequantfs/adapter/source"

var _ source.Authenticated = (*store)(nil)

// Credentials names the credentials that requests have, and where they are from. It is empty if
// they have none. It never has a secret.
func (s *store) Credentials() string {
	switch b := s.backend.(type) {
	case *hub:
		if t, err := hubToken(); err == nil && t.text != "" {
			return "the token in " + t.from
		}
	case *s3:
		b.keys.mu.Lock()
		defer b.keys.mu.Unlock()
		if k := b.keys.key; k != nil && !k.anonymous() {
			return "keys from " + k.from
		}
	case *gcs:
		if b.tokens != nil {
			return "Google's application default credentials"
		}
	case *azure:
		switch b.sign.(type) {
		case nil:
		case sharedAccess, *sharedAccess:
			return "a shared access signature"
		case sharedKey, *sharedKey:
			return "the key of the account"
		default:
			return "a token of Microsoft Entra ID"
		}
	case *https:
		if b.auth != "" {
			return "user and password in ~/.netrc"
		}
	}
	return ""
}
