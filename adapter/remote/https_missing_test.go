package remote

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// wrong is an answer that hides a file.
type wrong struct {
	name   string
	answer func(w http.ResponseWriter)
	passes int64 // how many answers are such; 0: all
}

func forbid(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }
func absent(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }
func nothing(w http.ResponseWriter) {
	w.Header().Set("ETag", `"e"`)
	w.Header().Set("Content-Length", "0")
}
func forPeople(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprint(w, "<html>come back later</html>")
}

// serves answers wrong for one name, and right for all others.
func (f wrong) serves(next shape) shape {
	var asked atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, h http.Handler) {
		if r.URL.Path == "/"+f.name && (asked.Add(1) <= f.passes || f.passes == 0) {
			f.answer(w)
			return
		}
		next(w, r, h)
	}
}

// unlisted is a server without a page for the folder.
func unlisted(w http.ResponseWriter, r *http.Request, h http.Handler) { h.ServeHTTP(w, r) }

// An answer that hides a file for a while does not make it missing, whether it is listed or not. If
// it stays, the file is refused, and not left out.
func TestAFileIsNeverMissingByMistake(t *testing.T) {
	for kind, answer := range map[string]func(w http.ResponseWriter){
		"403": forbid, "404": absent, "a page": forPeople, "no bytes": nothing,
	} {
		for where, next := range map[string]shape{"listed": listed, "unlisted": unlisted} {
			for _, passes := range []int64{1, 0} {
				if kind == "404" && where == "unlisted" || kind == "no bytes" && passes == 0 {
					continue // nothing tells that the file is there, or not empty
				}
				t.Run(fmt.Sprint(kind, "/", where, "/", passes), func(t *testing.T) {
					h, _ := oddServer(t, wrong{"tokenizer.json", answer, passes}.serves(next))
					l, err := h.list(t.Context(), ".", 1000)
					at := slices.IndexFunc(l, func(o object) bool { return o.name == "tokenizer.json" })
					switch {
					case err != nil || at < 0:
						t.Errorf("there are %v (%v)", l, err)
					case passes == 0 && l[at].refused == nil:
						t.Errorf("it is not refused: %+v", l[at])
					case passes == 1 && (l[at].refused != nil || l[at].size != 2):
						t.Errorf("it is %+v", l[at])
					}
				})
			}
		}
	}
}

// A subfolder that cannot be listed is not missing.
func TestAFolderIsNeverMissingByMistake(t *testing.T) {
	for status, fails := range map[int]bool{403: true, 404: false} {
		h, _ := oddServer(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			if r.URL.Path == "/sub/" {
				w.WriteHeader(status)
				return
			}
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<a href="sub/"><a href="config.json">`)
		})
		_, err := h.list(t.Context(), "sub", 1000)
		if err == nil || strings.Contains(err.Error(), "may not be read") != fails {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// A server that has something for every name does not have a model.
func TestAServerThatSendsEverythingIsRefused(t *testing.T) {
	h, _ := oddServer(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		r.URL.Path = "/tokenizer.json"
		ranges(w, r)
	})
	if l, err := h.list(t.Context(), ".", 1000); err == nil {
		t.Errorf("there are %v", l)
	}
}
