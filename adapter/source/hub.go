package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// repository is a revision of a model on the Hub.
type repository struct {
	id       string // "org/name"
	revision string // empty: main
}

var repositoryID = regexp.MustCompile(`^([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([^@]+))?$`)

// parseRepository reads "org/name" or "org/name@revision".
func parseRepository(s string) (*repository, bool) {
	m := repositoryID.FindStringSubmatch(s)
	if m == nil || strings.Contains(m[1], "--") || strings.Contains(m[1], "..") {
		return nil, false
	}
	return &repository{m[1], m[2]}, true
}

// download returns the command that downloads the repository, or its missing files.
func (r *repository) download() string {
	if r.revision == "" || r.revision == "main" {
		return "hf download " + r.id
	}
	return "hf download " + r.id + " --revision " + r.revision
}

// folder returns the repository's name in a cache.
func (r *repository) folder() string { return "models--" + strings.ReplaceAll(r.id, "/", "--") }

// snapshotOf returns the repository of a snapshot by its path:
// models--org--name/snapshots/revision. It is nil for other folders.
func snapshotOf(path string) *repository {
	snapshots := filepath.Dir(path)
	model := filepath.Base(filepath.Dir(snapshots))
	id, ok := strings.CutPrefix(model, "models--")
	if !ok || id == "" || filepath.Base(snapshots) != "snapshots" {
		return nil
	}
	return &repository{strings.Replace(id, "--", "/", 1), filepath.Base(path)}
}

// locate finds the repository's snapshot in the local cache, as huggingface_hub does. The revision
// is a commit, or a name in refs whose file holds the commit.
func (r *repository) locate() (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	model := filepath.Join(cache, r.folder())
	root, err := os.OpenRoot(model)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = sayf(ErrNotDownloaded, "no such folder, and not in the Hugging Face cache %s: "+
				"run %s", cache, r.download())
		}
		return "", cause(err)
	}
	defer root.Close()
	revision := r.revision
	if revision == "" {
		revision = "main"
	}
	commit := revision
	if ref, err := readRef(root, revision); err == nil {
		commit = ref
	} else if commit, err = fullCommit(root, revision); err != nil {
		return "", err
	}
	if commit != filepath.Base(commit) || !filepath.IsLocal(commit) {
		return "", r.absent(revision, cache, "")
	}
	if info, err := root.Stat(filepath.Join("snapshots", commit)); err != nil || !info.IsDir() {
		return "", r.absent(revision, cache, unfinished(root))
	}
	return filepath.Join(model, "snapshots", commit), nil
}

// shortestPrefix is the shortest abbreviation of a commit, as in Git.
const shortestPrefix = 4

var hexadecimal = regexp.MustCompile(`^[0-9a-f]+$`)

// fullCommit completes an abbreviated commit if only one snapshot has it. Other revisions are
// returned unchanged.
func fullCommit(root *os.Root, revision string) (string, error) {
	if len(revision) < shortestPrefix || !hexadecimal.MatchString(revision) {
		return revision, nil
	}
	snapshots, _ := fs.ReadDir(root.FS(), "snapshots") // the caller notices an error
	var found []string
	for _, s := range snapshots {
		switch {
		case s.Name() == revision:
			return revision, nil
		case strings.HasPrefix(s.Name(), revision):
			found = append(found, s.Name())
		}
	}
	switch len(found) {
	case 0:
		return revision, nil
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("revision %q is the beginning of several commits: %s: write more of it",
		revision, strings.Join(found, ", "))
}

// absent is the error for a revision that is not in the cache.
func (r *repository) absent(revision, cache, unfinished string) error {
	kind := ErrNotDownloaded
	if unfinished != "" {
		kind = ErrIncomplete
	}
	return sayf(kind, "revision %q is not in the Hugging Face cache %s%s: run %s", revision, cache,
		unfinished, r.download())
}

// readRef reads the commit of a branch or tag.
func readRef(root *os.Root, revision string) (string, error) {
	const longest = 256
	if !filepath.IsLocal(revision) {
		return "", fs.ErrInvalid
	}
	path := filepath.Join("refs", filepath.FromSlash(revision))
	info, err := root.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > longest {
		return "", fs.ErrInvalid
	}
	data, err := root.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

// unfinished says whether a download has begun.
func unfinished(root *os.Root) string {
	blobs, err := fs.ReadDir(root.FS(), "blobs")
	if err != nil {
		return ""
	}
	for _, b := range blobs {
		if strings.HasSuffix(b.Name(), ".incomplete") {
			return ", its download is not finished"
		}
	}
	return ""
}

// cacheFolder returns the cache of huggingface_hub.
func cacheFolder() (string, error) {
	home, homeErr := os.UserHomeDir()
	for _, place := range []struct{ variable, inside string }{
		{"HF_HUB_CACHE", ""},
		{"HUGGINGFACE_HUB_CACHE", ""},
		{"HF_HOME", "hub"},
		{"XDG_CACHE_HOME", "huggingface/hub"},
	} {
		if dir := os.ExpandEnv(os.Getenv(place.variable)); dir != "" {
			rest, ok := strings.CutPrefix(dir, "~")
			if ok && (rest == "" || os.IsPathSeparator(rest[0])) {
				dir = home + rest
			}
			return filepath.Join(dir, filepath.FromSlash(place.inside)), nil
		}
	}
	return filepath.Join(home, ".cache", "huggingface", "hub"), homeErr
}
