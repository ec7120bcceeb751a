package remote

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// repository is a folder of a model on the Hub, at a revision.
type repository struct {
	id       string // "org/name"
	revision string // a branch, tag, commit or ref; empty: main
	folder   string // in the repository; empty: its own
}

var (
	repositoryID = regexp.MustCompile(`^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$`)

	// refRevision is a revision with slashes, as huggingface_hub reads it.
	refRevision = regexp.MustCompile(`^refs/(?:pr/\d+|convert/[\w.-]+)(?:/|$)`)
)

// otherKinds begin the names of repositories that hold no models.
var otherKinds = map[string]string{
	"datasets": "a dataset", "spaces": "a Space", "kernels": "a kernel", "buckets": "a bucket",
}

// isRepositoryID reports whether a repository of the Hub may have this name.
func isRepositoryID(id string) bool {
	return len(id) <= 200 && repositoryID.MatchString(id) && !strings.Contains(id, "--") &&
		!strings.Contains(id, "..")
}

// parseRepository reads what follows hf://, by the rules of huggingface_hub:
// [models/]org/name[@revision][/folder]. A slash in the name of a branch is written %2F.
func parseRepository(rest string) (r repository, err error) {
	rest = strings.Trim(strings.TrimPrefix(rest, "models/"), "/")
	org, rest, _ := strings.Cut(rest, "/")
	if kind := otherKinds[org]; kind != "" {
		return r, fmt.Errorf("it is %s: only models can be opened", kind)
	}
	at := strings.IndexAny(rest, "@/")
	if at >= 0 && rest[at] == '@' {
		rest, r.revision = rest[:at], rest[at+1:]
		if r.revision == "" {
			return r, fmt.Errorf("it ends without a revision: write one, or leave out the @")
		}
		if r.revision, r.folder, err = splitRevision(r.revision); err != nil {
			return r, err
		}
	} else {
		rest, r.folder, _ = strings.Cut(rest, "/")
	}
	r.id = org + "/" + rest
	if !isRepositoryID(r.id) {
		return r, fmt.Errorf("it is not the name of a model: write hf://org/name[@revision]")
	}
	if r.folder != "" && (path.Clean(r.folder) != r.folder || !isTreePath(r.folder)) {
		return r, fmt.Errorf("%q is not a folder of a repository", r.folder)
	}
	return r, nil
}

// splitRevision splits a revision from the folder after it.
func splitRevision(s string) (revision, folder string, err error) {
	at := strings.IndexByte(s, '/')
	if m := refRevision.FindString(s); m != "" {
		at = len(strings.TrimSuffix(m, "/"))
	}
	if at >= 0 && at < len(s) {
		s, folder = s[:at], s[at+1:]
	}
	if revision, err = url.PathUnescape(s); err != nil || !isRevision(revision) {
		return "", "", fmt.Errorf("%q is not a revision: write a branch, a tag or a commit", s)
	}
	return revision, folder, nil
}

// isRevision reports whether a revision may have this name. The rules are a part of Git's.
func isRevision(s string) bool {
	return len(s) <= 250 && isTreePath(s) && !strings.ContainsAny(s, ` ~^:?*[\`)
}

// at returns the revision.
func (r repository) at() string {
	if r.revision == "" {
		return "main"
	}
	return r.revision
}

// String returns the name of the repository without its folder, for messages.
func (r repository) String() string {
	if r.revision == "" {
		return "hf://" + r.id
	}
	return "hf://" + r.id + "@" + escapeRevision(r.revision)
}

// escapeRevision writes a revision so that splitRevision reads it.
func escapeRevision(s string) string {
	if m := refRevision.FindString(s); m == s {
		return s
	}
	return url.PathEscape(s)
}

// routes are the pages of a repository whose addresses have a revision.
var routes = map[string]bool{
	"tree": true, "blob": true, "resolve": true, "raw": true, "blame": true,
}

// hubName turns the address of a page of the Hub into a name with hf://. Other names stay as they
// are, so a web server is never taken for the Hub.
func hubName(name string) (string, error) {
	page, ok := hubPage(name)
	if !ok {
		return name, nil
	}
	page, _, _ = strings.Cut(page, "#")
	page, _, _ = strings.Cut(page, "?")
	parts := strings.SplitN(strings.Trim(page, "/"), "/", 4)
	switch {
	case otherKinds[parts[0]] != "":
		return "", fmt.Errorf("it is the page of %s: only models can be opened",
			otherKinds[parts[0]])
	case len(parts) == 2:
		return "hf://" + parts[0] + "/" + parts[1], nil
	case len(parts) == 4 && routes[parts[2]]:
		rest, err := unescapePath(parts[3])
		return "hf://" + parts[0] + "/" + parts[1] + "@" + rest, err
	}
	return "", fmt.Errorf("it is not the page of a model: write hf://org/name[@revision]")
}

// unescapePath decodes the path of a file after its revision. The revision stays escaped.
func unescapePath(s string) (string, error) {
	at := len(refRevision.FindString(s))
	if at == 0 {
		at = strings.IndexByte(s, '/') + 1
	}
	if at == 0 {
		return s, nil
	}
	file, err := url.PathUnescape(s[at:])
	return s[:at] + file, err
}

// hubPage cuts the endpoint of the Hub from an address. It reports whether it is one of the Hub.
func hubPage(name string) (string, bool) {
	endpoints := []string{hubEndpoint, "https://hf.co", "https://www.huggingface.co"}
	if e, err := endpointFromEnv(); err == nil {
		endpoints = append(endpoints, e)
	}
	for _, e := range endpoints {
		rest, ok := strings.CutPrefix(name, e)
		if ok && strings.HasPrefix(rest, "/") {
			return rest, true
		}
	}
	return "", false
}
