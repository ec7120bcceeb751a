// Package serve shows a tree over HTTP in the form of the Hub's API, so that programs which
// download from the Hub read it unchanged.
//
// Each view of the tree is a repository NAME/LAYOUT with one revision, main. These requests are
// answered:
//
//	GET  /api/models                          the repositories
//	GET  /api/models/ID[/revision/REV]        names of the files, commit
//	GET  /api/models/ID/tree/REV[/FOLDER]     sizes and ids of the files
//	POST /api/models/ID/paths-info/REV        the same for some of them
//	GET  /api/models/ID/refs                  the branch main
//	GET  /ID/resolve/REV/FILE                 the content; HEAD and ranges too
//
// All but the last are answered without reading tensors. Nothing is redirected, and there are no
// LFS or Xet entries.
//
// # Versions
//
// A commit is a hash of the version of the source, of the options of the view, and of the version
// of the program. Files have ETags of 40 hexadecimal digits. Those of small files are their git
// ids. Shards would have to be computed for that, so theirs are made of the commit and the name. An
// ETag is never 64 digits long: clients would take it for the SHA-256 of the file.
//
// # Contract
//
// An answer has a Content-Length. If a read fails after the answer has begun, the connection is
// aborted, so that no client takes the part that it got for the whole. A client that takes nothing
// for a while is cut off; it can go on with a range.
package serve

import (
	"cmp"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/fs"
)

// Options of a Handler.
type Options struct {
	Name    string // the first part of the repositories' ids; see Name
	Token   string // that clients must send; empty: none is needed
	Version string // of the program, if the bytes depend on it
	Logger  *slog.Logger
	Stall   time.Duration // how long a client may take none of an answer; 0: a minute
}

// Handler answers the requests of clients.
type Handler struct {
	tree  *fs.FS
	repos map[string]*repository
	order []*repository
	api   *http.ServeMux
	files *http.ServeMux
	token *secret // nil: none is needed
	log   *slog.Logger
	said  said
	stall time.Duration

	requests, sent, aborted atomic.Int64
	active                  atomic.Int64 // answers with content under way
}

// defaultStall is the most time that a client may take none of an answer.
const defaultStall = time.Minute

// New makes the repositories of the views of a tree. It reads the side files' sizes, but no
// content.
func New(tree *fs.FS, o Options) (*Handler, error) {
	h := &Handler{
		tree: tree, repos: map[string]*repository{}, log: o.Logger,
		stall: cmp.Or(o.Stall, defaultStall), token: newSecret(o.Token),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	version, err := tree.Version()
	if err != nil {
		return nil, err
	}
	for _, v := range tree.Views() {
		r, err := newRepository(tree, v, o, version)
		if err != nil {
			return nil, err
		}
		h.repos[r.id] = r
		h.order = append(h.order, r)
	}
	h.route()
	return h, nil
}

// route says which function answers which request.
func (h *Handler) route() {
	h.api, h.files = http.NewServeMux(), http.NewServeMux()
	h.api.HandleFunc("GET /api/models", h.list)
	for pattern, answer := range map[string]func(call){
		"GET /api/models/{owner}/{name}":                           call.info,
		"GET /api/models/{owner}/{name}/revision/{revision}":       call.info,
		"GET /api/models/{owner}/{name}/tree/{revision}":           call.tree,
		"GET /api/models/{owner}/{name}/tree/{revision}/{path...}": call.tree,
		"POST /api/models/{owner}/{name}/paths-info/{revision}":    call.paths,
		"GET /api/models/{owner}/{name}/refs":                      call.refs,
	} {
		h.api.HandleFunc(pattern, h.call(answer))
	}
	h.files.HandleFunc("GET /{owner}/{name}/resolve/{revision}/{path...}",
		h.call(call.resolve))
	h.files.HandleFunc("GET /{$}", h.index)
	h.api.HandleFunc("GET /api/models/{name}", h.unknown)
	h.api.HandleFunc("GET /api/models/{name}/{second}/{rest...}", h.unknown)
	h.files.HandleFunc("GET /{name}/{second}/{rest...}", h.unknown)
}

// Stats counts what a Handler has done.
type Stats struct {
	Requests int64 `json:"requests"`
	Sent     int64 `json:"sent_bytes"` // of files
	Active   int64 `json:"active"`     // answers with content under way
	Aborted  int64 `json:"aborted"`    // answers that ended early, by either side
}

// Stats returns the counters.
func (h *Handler) Stats() Stats {
	return Stats{h.requests.Load(), h.sent.Load(), h.active.Load(), h.aborted.Load()}
}

// IDs returns the ids of the repositories, in the order of the views.
func (h *Handler) IDs() []string {
	ids := make([]string, len(h.order))
	for i, r := range h.order {
		ids[i] = r.id
	}
	return ids
}
