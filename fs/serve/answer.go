package serve

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.requests.Add(1)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch {
	case !h.token.admits(r):
		w.Header().Set("WWW-Authenticate", "Bearer")
		fail(w, http.StatusUnauthorized, "", "this server needs its token: set HF_TOKEN")
	case r.ContentLength != 0 && r.Method != http.MethodPost:
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(requestTime))
		fail(w, http.StatusBadRequest, "", "this request must not have a body")
	case strings.HasPrefix(r.URL.Path, "/api/"):
		h.api.ServeHTTP(w, r)
	default:
		h.files.ServeHTTP(w, r)
	}
}

// call is a request for a repository.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	h    *Handler
	repo *repository
}

// call returns a handler that finds the repository and the revision first.
func (h *Handler) call(answer func(call)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("owner") + "/" + r.PathValue("name")
		repo := h.repos[id]
		if repo == nil {
			h.noRepository(w, id)
			return
		}
		switch r.PathValue("revision") {
		case "", mainBranch, repo.commit:
			answer(call{w, r, h, repo})
		default:
			fail(w, http.StatusNotFound, "RevisionNotFound", fmt.Sprintf(
				"there is no revision %q, only main", r.PathValue("revision")))
		}
	}
}

// unknown answers what no other handler does. Mostly the layout is missing in a repository's name,
// and without this answer a client would blame the network.
func (h *Handler) unknown(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if h.repos[name+"/"+r.PathValue("second")] != nil {
		http.NotFound(w, r)
		return
	}
	h.noRepository(w, name)
}

func (h *Handler) noRepository(w http.ResponseWriter, id string) {
	fail(w, http.StatusNotFound, "RepoNotFound",
		fmt.Sprintf("there is no repository %q, only %s", id, strings.Join(h.IDs(), ", ")))
}

const mainBranch = "main"

// fail refuses a request. Clients choose their exception by the code.
func fail(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", strings.Map(printable, message))
	answer(w, status, map[string]string{"error": message})
}

// printable replaces what cannot be in a header.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// answer answers with JSON.
func answer(w http.ResponseWriter, status int, value any) {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err) // all values are maps of texts and numbers
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // if that fails, the client is gone
}

// index names the repositories, for people.
func (h *Handler) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "dequantfs serves these repositories in the form of the Hub:\n\n%s\n",
		strings.Join(h.IDs(), "\n"))
}

// list describes the repositories.
func (h *Handler) list(w http.ResponseWriter, _ *http.Request) {
	all := []map[string]any{}
	for _, repo := range h.order {
		all = append(all, repo.about())
	}
	answer(w, http.StatusOK, all)
}

// about describes a repository without its files.
func (r *repository) about() map[string]any {
	owner, _, _ := strings.Cut(r.id, "/")
	at := r.modified.UTC().Format("2006-01-02T15:04:05.000Z")
	return map[string]any{
		"id": r.id, "modelId": r.id, "author": owner, "sha": r.commit, "private": false,
		"gated": false, "disabled": false, "tags": []string{"safetensors"}, "downloads": 0,
		"likes": 0, "lastModified": at, "createdAt": at,
	}
}

// info describes a repository and names its files.
func (c call) info() {
	siblings := []map[string]any{}
	blobs := c.wants("blobs")
	for _, f := range c.repo.files {
		s := map[string]any{"rfilename": f.name}
		if blobs {
			id, err := f.identity(c.r.Context())
			if err != nil {
				c.broken(f, err)
				return
			}
			s["size"], s["blobId"] = f.size, id
		}
		siblings = append(siblings, s)
	}
	about := c.repo.about()
	about["siblings"] = siblings
	answer(c.w, http.StatusOK, about)
}

// wants reports whether a parameter of the request is set, as true or True.
func (c call) wants(parameter string) bool {
	set, _ := strconv.ParseBool(c.r.URL.Query().Get(parameter)) // what is not a truth is not set
	return set
}

// refs names the only branch.
func (c call) refs() {
	answer(c.w, http.StatusOK, map[string]any{
		"branches": []map[string]any{{"name": mainBranch, "ref": "refs/heads/" + mainBranch,
			"targetCommit": c.repo.commit}},
		"tags": []any{}, "converts": []any{},
	})
}

// tree lists a folder or, if the client asks for it, all files below it.
func (c call) tree() {
	folder := strings.Trim(c.r.PathValue("path"), "/")
	if !c.repo.folders[folder] {
		c.missing(folder)
		return
	}
	recursive := c.wants("recursive")
	inside := func(name string) bool {
		dir := strings.TrimPrefix(path.Dir(name), ".")
		return name != "" && (dir == folder ||
			recursive && (folder == "" || strings.HasPrefix(dir, folder+"/")))
	}
	c.entries(inside)
}

// maxPaths is the most bytes of the body of a request.
const maxPaths = 1 << 20

// paths describes the files and folders that the body names. It leaves out those that do not exist.
func (c call) paths() {
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(requestTime))
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, maxPaths)
	names, err := namesOf(c.r)
	if err != nil {
		c.w.Header().Set("Connection", "close")
		fail(c.w, http.StatusBadRequest, "", "the body cannot be read: "+err.Error())
		return
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[strings.Trim(name, "/")] = true
	}
	c.entries(func(name string) bool { return wanted[name] })
}

// namesOf reads the names in a request, which are in a form or in JSON.
func namesOf(r *http.Request) ([]string, error) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		var body struct {
			Paths []string `json:"paths"`
		}
		err := json.NewDecoder(r.Body).Decode(&body)
		return body.Paths, err
	}
	err := r.ParseForm()
	return url.Values(r.PostForm)["paths"], err
}

// entries describes the chosen files and folders.
func (c call) entries(chosen func(name string) bool) {
	all := []map[string]any{}
	for _, name := range c.repo.sortedFolders() {
		if chosen(name) {
			all = append(all, map[string]any{"type": "directory", "path": name, "size": 0,
				"oid": digest("folder", c.repo.commit, name)})
		}
	}
	for _, f := range c.repo.files {
		if !chosen(f.name) {
			continue
		}
		id, err := f.identity(c.r.Context())
		if err != nil {
			c.broken(f, err)
			return
		}
		all = append(all, map[string]any{"type": "file", "path": f.name, "size": f.size, "oid": id})
	}
	answer(c.w, http.StatusOK, all)
}

// missing says that there is no file or folder with a name.
func (c call) missing(name string) {
	c.w.Header().Set("X-Repo-Commit", c.repo.commit)
	fail(c.w, http.StatusNotFound, "EntryNotFound",
		fmt.Sprintf("there is no file %q in %s", name, c.repo.id))
}

// broken says that a file cannot be read.
func (c call) broken(f *file, err error) {
	c.h.say(c.repo.id+"/"+f.name, err)
	fail(c.w, http.StatusInternalServerError, "", f.name+" cannot be read")
}
