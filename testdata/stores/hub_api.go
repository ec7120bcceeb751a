package stores

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// call is one request to the Hub, by its parts: /api/models/ID/OP/REV/REST or
// /ID/resolve/REV/REST.
type call struct {
	w              http.ResponseWriter
	r              *http.Request
	hub            *Hub
	access         Access
	oid            string // of the commit
	files          commit
	id, op         string
	revision, rest string
	api            bool
}

// operations answer calls.
var operations = map[string]func(*call){
	"":                     (*call).info,
	"revision":             (*call).info,
	"tree":                 (*call).tree,
	"paths-info":           (*call).paths,
	"safetensors-metadata": (*call).headers,
	"resolve":              (*call).resolve,
	"refs":                 (*call).branches,
}

// parse finds the parts of a request, or nil. Parts are escaped: a revision may contain a slash.
func (h *Hub) parse(w http.ResponseWriter, r *http.Request) *call {
	parts := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")
	c := &call{w: w, r: r, hub: h}
	if len(parts) > 2 && parts[0] == "api" && parts[1] == "models" {
		c.api, parts = true, parts[2:]
	}
	for i := 1; i < min(len(parts), 3) && c.op == ""; i++ {
		if operations[parts[i]] == nil || c.api == (parts[i] == "resolve") {
			continue
		}
		c.op = parts[i]
		c.rest = strings.Join(parts[i+1:], "/")
		parts = parts[:i]
	}
	if len(parts) > 2 || c.op == "" && !c.api {
		return nil
	}
	c.id, c.revision = strings.Join(parts, "/"), "main"
	if c.op != "" && c.op != "safetensors-metadata" && c.op != "refs" {
		c.revision, c.rest, _ = strings.Cut(c.rest, "/")
	}
	for _, s := range []*string{&c.id, &c.revision, &c.rest} {
		var err error
		if *s, err = url.PathUnescape(*s); err != nil {
			return nil
		}
	}
	return c
}

// ServeHTTP answers as the Hub does.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.admit(w) {
		return
	}
	c := h.parse(w, r)
	if c == nil {
		http.NotFound(w, r)
		return
	}
	if c.find() {
		operations[c.op](c)
	}
}

// find finds the files that are asked for, or says why there are none. Nothing is locked while an
// answer is sent.
func (c *call) find() bool {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if to := c.hub.renamed[c.id]; to != "" {
		to = strings.Replace(c.r.URL.RequestURI(), c.id, to, 1)
		http.Redirect(c.w, c.r, to, http.StatusTemporaryRedirect)
		return false
	}
	repo := c.hub.repos[c.id]
	return c.allowed(repo) && c.commit(repo)
}

// admit refuses a request if the rate is limited. Every answer says how much is left.
func (h *Hub) admit(w http.ResponseWriter) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	w.Header().Set("RateLimit-Policy", `"fixed window";"resolvers";q=5000;w=300`)
	if h.limited == 0 {
		w.Header().Set("RateLimit", `"resolvers";r=4000;t=200`)
		return true
	}
	h.limited--
	w.Header().Set("RateLimit", fmt.Sprintf(`"resolvers";r=0;t=%d`, h.reset))
	http.Error(w, "rate limited", http.StatusTooManyRequests)
	return false
}

// fail refuses a call. The code is what huggingface_hub makes its exceptions of.
func (c *call) fail(status int, code, message string) {
	if code != "" {
		c.w.Header().Set("X-Error-Code", code)
	}
	c.w.Header().Set("X-Error-Message", message)
	c.json(status, map[string]string{"error": message})
}

// json answers with a value.
func (c *call) json(status int, value any) {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	c.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(b)
}

// allowed says why this client may not read the repository.
func (c *call) allowed(repo *repository) bool {
	token, given := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	if given && token != Token && token != StrangerToken {
		c.fail(http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
		return false
	}
	content := c.op == "resolve" || c.op == "safetensors-metadata"
	switch {
	case repo == nil || repo.access == Private && token != Token:
		if given {
			c.fail(http.StatusNotFound, "RepoNotFound", "Repository not found")
		} else {
			c.fail(http.StatusUnauthorized, "RepoNotFound", "Invalid username or password.")
		}
		return false
	case repo.access == Gated && content && token != Token:
		status := http.StatusForbidden
		if !given {
			status = http.StatusUnauthorized
		}
		c.fail(status, "GatedRepo", "Access to model "+c.id+" is restricted. You must have access"+
			" to it and be authenticated to access it.")
		return false
	}
	c.access = repo.access
	return true
}

// commit finds the commit of the revision.
func (c *call) commit(repo *repository) bool {
	c.oid = c.revision
	if oid := repo.refs[c.revision]; oid != "" {
		c.oid = oid
	}
	c.files = repo.commits[c.oid]
	if c.files == nil {
		c.fail(http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+c.revision)
		return false
	}
	return true
}

// branches lists the refs that are not of pull requests.
func (c *call) branches() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	branches, repo := []map[string]any{}, c.hub.repos[c.id]
	for _, name := range slices.Sorted(maps.Keys(repo.refs)) {
		if !strings.HasPrefix(name, "refs/") {
			branches = append(branches, map[string]any{"name": name, "ref": "refs/heads/" + name,
				"targetCommit": repo.refs[name]})
		}
	}
	c.json(http.StatusOK,
		map[string]any{"branches": branches, "tags": []any{}, "converts": []any{}})
}

// names lists the files of the commit in order.
func (c *call) names() []string { return slices.Sorted(maps.Keys(c.files)) }

// info describes a commit.
func (c *call) info() {
	var siblings []map[string]any
	for _, name := range c.names() {
		s := map[string]any{"rfilename": name}
		if b := c.files[name]; c.r.URL.Query().Get("blobs") == "true" {
			s["size"], s["blobId"] = b.size, b.oid
			if b.sha256 != "" {
				s["lfs"] = map[string]any{"sha256": b.sha256, "size": b.size,
					"pointerSize": b.pointer}
			}
		}
		siblings = append(siblings, s)
	}
	var gated any = false
	if c.access == Gated {
		gated = "manual"
	}
	const at = "2026-01-01T00:00:00.000Z"
	c.json(http.StatusOK, map[string]any{"id": c.id, "modelId": c.id, "sha": c.oid,
		"siblings": siblings, "private": c.access == Private, "gated": gated, "disabled": false,
		"tags": []string{}, "downloads": 0, "likes": 0, "lastModified": at, "createdAt": at})
}

// entry describes a file.
func (c *call) entry(name string) map[string]any {
	b := c.files[name]
	e := map[string]any{"type": "file", "path": name, "oid": b.oid, "size": b.size}
	if b.sha256 != "" {
		e["lfs"] = map[string]any{"oid": b.sha256, "size": b.size, "pointerSize": b.pointer}
	}
	return e
}

// entries lists a folder, or all below it.
func (c *call) entries(folder string, recursive bool) (list []map[string]any) {
	seen := map[string]bool{}
	for _, name := range c.names() {
		below, ok := strings.CutPrefix(name, folder)
		if !ok {
			continue
		}
		parts := strings.Split(below, "/")
		for i := 1; i < len(parts) && (recursive || i == 1); i++ {
			if dir := folder + path.Join(parts[:i]...); !seen[dir] {
				seen[dir] = true
				list = append(list, map[string]any{"type": "directory", "path": dir, "size": 0,
					"oid": gitID("tree", []byte(dir))})
			}
		}
		if recursive || len(parts) == 1 {
			list = append(list, c.entry(name))
		}
	}
	return list
}

// tree lists files, page by page.
func (c *call) tree() {
	folder := c.rest
	if folder != "" {
		folder += "/"
	}
	query := c.r.URL.Query()
	list := c.entries(folder, query.Get("recursive") == "true" || query.Get("recursive") == "True")
	if list == nil {
		c.fail(http.StatusNotFound, "EntryNotFound", c.rest+" does not exist on "+c.revision)
		return
	}
	from, _ := strconv.Atoi(query.Get("cursor"))
	from = min(max(from, 0), len(list))
	to := min(from+c.hub.o.Page, len(list))
	if to < len(list) {
		query.Set("cursor", strconv.Itoa(to))
		next := *c.r.URL
		next.Scheme, next.Host, next.RawQuery = "http", c.r.Host, query.Encode()
		if c.r.TLS != nil {
			next.Scheme = "https"
		}
		c.w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
	}
	c.json(http.StatusOK, list[from:to])
}

// paths gives the entries of the files that a form or JSON names.
func (c *call) paths() {
	var wanted struct{ Paths []string }
	if strings.HasPrefix(c.r.Header.Get("Content-Type"), "application/json") {
		if err := json.NewDecoder(c.r.Body).Decode(&wanted); err != nil {
			c.fail(http.StatusBadRequest, "", err.Error())
			return
		}
	} else if c.r.ParseForm() == nil {
		wanted.Paths = c.r.PostForm["paths"]
	}
	list := []map[string]any{}
	for _, name := range wanted.Paths {
		if c.files[name] != nil {
			list = append(list, c.entry(name))
		}
	}
	c.json(http.StatusOK, list)
}

// headers gives the headers of all shards that an index names.
func (c *call) headers() {
	index := c.files[c.rest]
	if index == nil {
		c.fail(http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	var i struct {
		Metadata json.RawMessage   `json:"metadata,omitempty"`
		Map      map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(index.content, &i); err != nil {
		c.fail(http.StatusBadRequest, "", err.Error())
		return
	}
	found := map[string]json.RawMessage{}
	for _, shard := range i.Map {
		b := c.files[path.Join(path.Dir(c.rest), shard)]
		if b == nil || b.header == nil {
			c.fail(http.StatusNotFound, "EntryNotFound", shard+" has no header")
			return
		}
		found[shard] = b.header
	}
	c.json(http.StatusOK, map[string]any{"headers": found,
		"index": map[string]any{"metadata": i.Metadata}})
}

// resolve sends a small file, or redirects to the storage.
func (c *call) resolve() {
	head := c.w.Header()
	head.Set("X-Repo-Commit", c.oid)
	b := c.files[c.rest]
	if b == nil {
		c.fail(http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	if b.sha256 == "" {
		head.Set("ETag", `"`+b.oid+`"`)
		http.ServeContent(c.w, c.r, c.rest, time.Time{}, bytes.NewReader(b.content))
		return
	}
	head.Set("X-Linked-Size", strconv.FormatInt(b.size, 10))
	head.Set("X-Linked-Etag", `"`+b.sha256+`"`)
	head.Set("Accept-Ranges", "bytes")
	head.Set("Location", c.hub.o.Storage.Presigned(b.object(), c.hub.o.Expiry))
	c.w.WriteHeader(http.StatusFound)
}
