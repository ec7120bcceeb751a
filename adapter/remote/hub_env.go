package remote

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

const hubEndpoint = "https://huggingface.co"

// isTrue reads a variable as huggingface_hub does.
func isTrue(variable string) bool {
	return slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(os.Getenv(variable)))
}

// hubOffline names the variable that forbids connections to the Hub; empty if none does.
func hubOffline() string {
	for _, v := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		if os.Getenv(v) != "" {
			if isTrue(v) {
				return v
			}
			break
		}
	}
	return ""
}

// endpointFromEnv returns the address of the Hub or of its mirror, without a slash at its end.
func endpointFromEnv() (string, error) {
	e := strings.TrimRight(os.Getenv("HF_ENDPOINT"), "/")
	if e == "" {
		return hubEndpoint, nil
	}
	u, err := url.Parse(e)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return "", fmt.Errorf("HF_ENDPOINT is not the address of a web server: write https://host, or unset it")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("HF_ENDPOINT has a password, a query or a fragment: write https://host")
	case u.Host == "hf.co" || u.Host == "www.huggingface.co":
		return hubEndpoint, nil
	}
	return e, nil
}

// token is a credential for the Hub, and the place that it is from.
type token struct{ text, from string }

// hubToken returns the user's token; its text is empty if there is none. The file is read each
// time, because the login of a browser is renewed there.
func hubToken() (token, error) {
	if isTrue("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
		return token{}, nil
	}
	for _, v := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if t := os.Getenv(v); t != "" {
			return newToken(t, v)
		}
	}
	file := tokenFile()
	text, err := readSmall(file)
	if err != nil {
		return token{}, nil // there was no login, or it is of another user
	}
	return newToken(text, file)
}

// newToken cleans a token as huggingface_hub does.
func newToken(text, from string) (token, error) {
	text = strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(text))
	foreign := func(c rune) bool { return c <= ' ' || c > unicode.MaxASCII || c == 0x7f }
	if strings.ContainsFunc(text, foreign) {
		return token{}, fmt.Errorf("the token in %s has characters that no token has: "+
			`run "hf auth login", or set HF_TOKEN`, from)
	}
	keepSecret(text)
	return token{text, from}, nil
}

// tokenFile returns where "hf auth login" stores the token.
func tokenFile() string {
	for _, place := range []struct{ variable, inside string }{
		{"HF_TOKEN_PATH", ""},
		{"HF_HOME", "token"},
		{"XDG_CACHE_HOME", "huggingface/token"},
	} {
		if dir := os.Getenv(place.variable); dir != "" {
			return filepath.Join(expand(dir), filepath.FromSlash(place.inside))
		}
	}
	return expand("~/.cache/huggingface/token")
}

// expand replaces ~ and variables.
func expand(dir string) string {
	rest, ok := strings.CutPrefix(dir, "~")
	if ok && (rest == "" || os.IsPathSeparator(rest[0])) {
		home, _ := os.UserHomeDir() // without a home there is no file
		dir = home + rest
	}
	return os.ExpandEnv(dir)
}

// readSmall reads a small regular file.
func readSmall(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", os.ErrInvalid
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 16<<10))
	return string(text), err
}
