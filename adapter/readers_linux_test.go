package adapter_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/testdata/permission"
)

// A user and a group that own nothing here.
const stranger, strangers = 4321, 4322

// openPlace makes a folder that everybody can enter.
func openPlace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// wantOpen wants that everybody may read, or that a reason with some text is given.
func wantOpen(t *testing.T, what string, a *adapter.Access, why string) {
	t.Helper()
	got := a.Why(stranger, strangers)
	if a.Others(stranger, strangers) != (why == "") || why == "" && got != "" ||
		!strings.Contains(got, why) {
		t.Errorf("%s: others %v, since %q; want %q", what, a.Others(stranger, strangers), got, why)
	}
}

// closed takes all permissions of others away, until the function that is returned is called.
func closed(t *testing.T, path string) (reopen func()) {
	t.Helper()
	st, err := os.Stat(path)
	if err == nil {
		err = os.Chmod(path, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Chmod(path, st.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

// Everything that a computed file is made from counts, and each folder on the way to it; a side
// file is made from itself.
func TestReadersCountEachFileAndFolderOnTheWay(t *testing.T) {
	place := openPlace(t)
	dir := source(t, filepath.Join(place, "a", "model"))
	write(t, dir, "tokenizer.json", []byte("{}"))
	write(t, filepath.Join(place, "far"), "notes", []byte("far away"))
	link(t, filepath.Join(place, "far", "notes"), filepath.Join(dir, "notes.txt"))
	write(t, filepath.Join(dir, "sub", "deep"), "x.json", []byte("{}"))
	c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{FollowLinks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const notes, nested, tokenizer = 0, 1, 2
	if s := c.SideFiles(); len(s) != 3 || s[nested].Name != "sub/deep/x.json" ||
		s[tokenizer].Name != "tokenizer.json" {
		t.Fatal(s)
	}
	const all = "folder sub deep computed notes nested tokenizer"
	for _, test := range []struct {
		close  string
		closes string // what that closes
	}{
		{"", ""},
		{"a", all},
		{"a/model", all},
		{"a/model/config.json", "computed"},
		{"a/model/" + index, "computed"},
		{"a/model/" + shard1, "computed"},
		{"a/model/" + shard2, "computed"},
		{"a/model/tokenizer.json", "tokenizer"},
		{"a/model/sub", "sub deep nested"},
		{"a/model/sub/deep", "deep nested"},
		{"a/model/sub/deep/x.json", "nested"},
		{"far", "notes"},
		{"far/notes", "notes"},
	} {
		path, why := filepath.Join(place, test.close), ""
		reopen := func() {}
		if test.close != "" {
			reopen, why = closed(t, path), path+" is mode 0700"
			if test.close == "far/notes" {
				why = filepath.Join(dir, "notes.txt") + " is mode 0700" // by its name in the source
			}
		}
		r := c.Readers()
		for name, accesses := range map[string][]*adapter.Access{
			"folder": {r.Folder.Enter, r.Folder.List}, "computed": {r.Computed},
			"sub":   {r.Folders["sub"].Enter, r.Folders["sub"].List},
			"deep":  {r.Folders["sub/deep"].Enter, r.Folders["sub/deep"].List},
			"notes": {r.Side[notes]}, "nested": {r.Side[nested]}, "tokenizer": {r.Side[tokenizer]},
		} {
			want := ""
			if slices.Contains(strings.Fields(test.closes), name) {
				want = why
			}
			for _, a := range accesses {
				wantOpen(t, test.close+": "+name, a, want)
			}
		}
		reopen()
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	r := c.Readers()
	wantOpen(t, "a folder that can be entered", r.Computed, "")
	wantOpen(t, "and not listed", r.Folder.List, dir+" is mode 0711")
}

// The files of a snapshot are links to another folder of its repository.
func TestReadersCountTheBlobsOfASnapshot(t *testing.T) {
	place := openPlace(t)
	model := cacheIn(t, filepath.Join(place, "hub"))
	snapshot := filepath.Join(model, "snapshots", commit)
	c := open(t, snapshot)
	wantOpen(t, "open", c.Readers().Computed, "")
	for _, name := range []string{"blobs", "snapshots", "snapshots/" + commit, ".", ".."} {
		path := filepath.Join(model, name)
		reopen := closed(t, path)
		wantOpen(t, name, c.Readers().Computed, path+" is mode 0700")
		reopen()
	}
	blob := filepath.Join(model, "blobs", "blob-of-"+shard1)
	defer closed(t, blob)()
	wantOpen(t, blob, c.Readers().Computed, filepath.Join(snapshot, shard1)+" is mode 0700")
}

func TestReadersReadACLs(t *testing.T) {
	dir := source(t, filepath.Join(openPlace(t), "model"))
	c := open(t, dir)
	path := filepath.Join(dir, shard1)
	// As chmod 640 would show it: but the group's bits are the mask, and the group has none.
	n := permission.Parse("0:0 0640 u:2001:4 g::0 g:2002:4 m::4 a::0")
	if err := unix.Setxattr(path, "system.posix_acl_access", n.Attribute(), 0); err != nil {
		t.Fatal(err)
	}
	a := c.Readers().Computed
	wantOpen(t, "an ACL", a, path+" is mode 0640 and has an ACL")
	if uint32(os.Getgid()) != 2002 && a.Members(stranger, uint32(os.Getgid())) ||
		!a.Members(stranger, 2002) {
		t.Error("the ACL is not read")
	}
}

// What a name leads to now must be what was opened, or its folders would say nothing about that.
func TestReadersKnowNothingOfWhatWasReplaced(t *testing.T) {
	place := openPlace(t)
	dir := source(t, filepath.Join(place, "model"))
	c := open(t, dir)
	for _, name := range []string{"config.json", shard1} {
		path := filepath.Join(dir, name)
		old := filepath.Join(dir, ".old")
		if err := os.Rename(path, old); err != nil {
			t.Fatal(err)
		}
		wantOpen(t, "removed", c.Readers().Computed,
			path+" cannot be looked at: "+name+": no such file or directory")
		write(t, dir, name, []byte("another"))
		wantOpen(t, "replaced", c.Readers().Computed,
			path+" is not the file any more that was opened")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		link(t, name, path)
		wantOpen(t, "a link to itself", c.Readers().Computed,
			path+" cannot be looked at: too many levels of symbolic links")
		if err := os.Rename(old, path); err != nil {
			t.Fatal(err)
		}
		wantOpen(t, "put back", c.Readers().Computed, "")
	}
	if err := os.Rename(dir, filepath.Join(place, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	r := c.Readers()
	for _, a := range []*adapter.Access{r.Folder.Enter, r.Folder.List, r.Computed} {
		wantOpen(t, "moved", a, dir+" cannot be looked at: model: no such file or directory")
	}
	if r := open(t, filepath.Join(place, "elsewhere")).Readers(); len(r.Folders) != 0 ||
		len(r.Side) != 0 {
		t.Errorf("%+v", r)
	}
	write(t, filepath.Join(place, "model"), "config.json", nil)
	wantOpen(t, "another folder", c.Readers().Computed, "is not the file any more that was opened")
}

func TestReadersLeaveNoDescriptors(t *testing.T) {
	c := open(t, filepath.Join(cacheIn(t, filepath.Join(openPlace(t), "hub")), "snapshots", commit))
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	c.Readers()
	before := count()
	for range 10 {
		c.Readers()
	}
	if after := count(); after > before+2 {
		t.Errorf("%d descriptors are open, before it were %d", after, before)
	}
}
