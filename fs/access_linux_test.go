package fs

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/permission"
	"github.com/dequantfs/dequantfs/testdata/synth"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openFolder makes a folder that every user can enter.
func openFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writeShared writes a checkpoint with a tokenizer into place. Every user may read it.
func writeShared(t *testing.T, place string) (source string) {
	t.Helper()
	source = filepath.Join(place, "model")
	if err := errors.Join(os.Mkdir(source, 0o755),
		synth.DeepSeek(synth.Options{Layers: 1, Hidden: 128,
			Shards: 2}).Write(source)); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(source)
	for _, e := range list {
		err = errors.Join(err, os.Chmod(filepath.Join(source, e.Name()), 0o644))
	}
	sub := filepath.Join(source, "sub")
	err = errors.Join(err, os.Mkdir(sub, 0o755),
		os.WriteFile(filepath.Join(sub, "a.json"), []byte("{}"), 0o644),
		os.WriteFile(filepath.Join(sub, "b.json"), []byte("{}"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// permit gives a file or folder an owner, a group, a mode and perhaps an ACL.
func permit(t *testing.T, path, text string) {
	t.Helper()
	n := permission.Parse(text)
	err := errors.Join(os.Chown(path, int(n.UID), int(n.GID)),
		os.Chmod(path, iofs.FileMode(n.Mode)))
	if n.ACL != nil {
		err = errors.Join(err, unix.Setxattr(path, "system.posix_acl_access", n.Attribute(), 0))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// shows returns owner, group and mode of a file in a mount.
func shows(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d %04o", st.Uid, st.Gid, st.Mode&0o7777)
}

func id(n uint32) *uint32 { return &n }

// Other users may read a file of the mount if they may read the source, or if an option grants it.
func TestAMountForOthersIsNoMoreOpenThanItsSource(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	const sides = "tokenizer_config.json"
	for _, c := range []struct {
		what     string
		permit   map[string]string // below the place of the source
		options  MountOptions
		folder   string // shown
		computed string
		side     string
		says     []string // parts of the lines about locked-out users
	}{
		{"everybody may read the source", nil, MountOptions{},
			"0:0 0555", "0:0 0444", "0:0 0444", nil},
		{"a group may read the shards",
			map[string]string{"model/model-00001-of-000002.safetensors": "0:3000 0640",
				"model/model-00002-of-000002.safetensors": "0:3000 0640"},
			MountOptions{}, "0:0 0555", "0:3000 0440", "0:0 0444",
			[]string{"users who are not in group 3000 cannot read this mount: PLACE/model/model-00001-of-000002.safetensors is mode 0640"}},
		{"two groups have a shard each",
			map[string]string{"model/model-00001-of-000002.safetensors": "0:3000 0640",
				"model/model-00002-of-000002.safetensors": "0:3001 0640"},
			MountOptions{}, "0:0 0555", "0:0 0400", "0:0 0444",
			[]string{"other users cannot read this mount: PLACE/model/model-00001-of-000002.safetensors is mode 0640"}},
		{"a private configuration", map[string]string{"model/config.json": "0:0 0600"},
			MountOptions{},
			"0:0 0555", "0:0 0400", "0:0 0444", []string{"other users cannot read this mount: PLACE/model/config.json is mode 0600"}},
		{"a private side file", map[string]string{"model/" + sides: "0:0 0600"}, MountOptions{},
			"0:0 0555", "0:0 0444", "0:0 0400", []string{"other users cannot read " + sides + ": PLACE/model/" + sides + " is mode 0600"}},
		{"a subfolder that cannot be listed", map[string]string{"model/sub": "0:0 0711"},
			MountOptions{},
			"0:0 0555", "0:0 0444", "0:0 0444", []string{"other users cannot list sub: PLACE/model/sub is mode 0711"}},
		{"private files in a subfolder", map[string]string{"model/sub": "0:0 0700"}, MountOptions{},
			"0:0 0555", "0:0 0444", "0:0 0444", []string{"other users cannot list sub: PLACE/model/sub is mode 0700", "other users cannot read sub/a.json and 1 more: PLACE/model/sub is mode 0700"}},
		{"a private folder above it", map[string]string{".": "0:0 0700"}, MountOptions{},
			"0:0 0500", "0:0 0400", "0:0 0400", []string{"other users cannot read this mount: PLACE is mode 0700"}},
		{"a folder of a group", map[string]string{"model": "0:3000 0750"}, MountOptions{},
			"0:3000 0550", "0:3000 0440", "0:3000 0440", []string{"users who are not in group 3000 cannot read this mount: PLACE/model is mode 0750"}},
		{"a folder that is closed to a group", map[string]string{"model": "0:3000 0705"},
			MountOptions{},
			"0:3000 0505", "0:3000 0404", "0:3000 0404", []string{"members of group 3000 cannot read this mount: PLACE/model is mode 0705"}},
		{"a folder that cannot be listed", map[string]string{"model": "0:0 0711"}, MountOptions{},
			"0:0 0511", "0:0 0444", "0:0 0444", []string{"other users cannot list this mount: PLACE/model is mode 0711"}},
		{"an ACL against a user",
			map[string]string{"model/" + sides: "0:0 0644 u:2001:0 g::4 m::4 a::4"}, MountOptions{},
			"0:0 0555", "0:0 0444", "0:0 0400", []string{"cannot read " + sides + ": PLACE/model/" + sides + " is mode 0644 and has an ACL"}},
		{"an ACL for a group", map[string]string{"model": "0:0 0750 g::0 g:3001:5 m::5 a::0"},
			MountOptions{},
			"0:3001 0550", "0:3001 0440", "0:3001 0440", []string{"users who are not in group 3001 cannot read this mount: PLACE/model is mode 0750 and has an ACL"}},
		{"an owner who may not read his file", map[string]string{"model/" + sides: "2001:0 0044"},
			MountOptions{},
			"0:0 0555", "0:0 0444", "0:0 0400", []string{"other users cannot read " + sides + ": PLACE/model/" + sides + " is mode 0044"}},
		{"a mode is granted", map[string]string{".": "0:0 0700"}, MountOptions{Mode: id(0o444)},
			"0:0 0555", "0:0 0444", "0:0 0444", nil},
		{"a mode is granted to a group", map[string]string{".": "0:0 0700"},
			MountOptions{Mode: id(0o440), GID: id(3000)},
			"0:3000 0550", "0:3000 0440", "0:3000 0440", nil},
		{"a mode takes away", nil, MountOptions{Mode: id(0o400)},
			"0:0 0500", "0:0 0400", "0:0 0400", nil},
		{"a group is granted", map[string]string{".": "0:0 0700"}, MountOptions{GID: id(3000)},
			"0:3000 0550", "0:3000 0440", "0:3000 0440", []string{"users who are not in group 3000 cannot read this mount: PLACE is mode 0700"}},
		{"a user is granted", map[string]string{".": "0:0 0700"}, MountOptions{UID: id(2001)},
			"2001:0 0500", "2001:0 0400", "2001:0 0400", []string{"other users cannot read this mount: PLACE is mode 0700"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			place := openFolder(t)
			source := writeShared(t, place)
			for name, text := range c.permit {
				permit(t, filepath.Join(place, name), text)
			}
			f := openViews(t, source, Options{}, layout("hf", "hf", 0))
			c.options.AllowOther = true
			m, root := mountFS(t, f, c.options)
			for name, want := range map[string]string{
				".": c.folder, "hf": c.folder, ControlDir: c.folder,
				"hf/config.json": c.computed, "hf/model-00002-of-000002.safetensors": c.computed,
				"hf/" + indexName: c.computed, ControlDir + "/report.json": c.computed,
				"hf/" + sides: c.side,
			} {
				if got := shows(t, filepath.Join(root, name)); got != want {
					t.Errorf("%s shows %s, want %s", name, got, want)
				}
			}
			lines := m.LockedOut()
			if len(lines) != len(c.says) {
				t.Fatalf("%d lines: %q, want %q", len(lines), lines, c.says)
			}
			for i, want := range c.says {
				if want = strings.ReplaceAll(want, "PLACE", place); !strings.HasSuffix(lines[i],
					want) {
					t.Errorf("%q, want %q", lines[i], want)
				}
			}
		})
	}
}

// Without --allow-other the kernel lets no other user in, and the mount shows the source's modes.
func TestAMountForOneUserShowsTheModesOfItsSource(t *testing.T) {
	place := openFolder(t)
	source := writeShared(t, place)
	if err := errors.Join(os.Chmod(place, 0o700),
		os.Chmod(filepath.Join(source, "config.json"), 0o600)); err != nil {
		t.Fatal(err)
	}
	m, root := mountFS(t, openViews(t, source, Options{}, layout("", "hf", 0)), MountOptions{})
	for name, want := range map[string]string{".": "0555", "config.json": "0444",
		"tokenizer_config.json": "0444"} {
		if got := shows(t, filepath.Join(root, name)); !strings.HasSuffix(got, want) {
			t.Errorf("%s shows %s, want %s", name, got, want)
		}
	}
	if lines := m.LockedOut(); lines != nil {
		t.Error(lines)
	}
}

// The program that hands over a mount may have admitted other users by options that are not known.
func TestAMountThatIsHandedOverIsNoMoreOpenThanItsSource(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	place := openFolder(t)
	source := writeShared(t, place)
	permit(t, place, "0:0 0700")
	f := openViews(t, source, Options{}, layout("", "hf", 0))
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("given", dir, "fuse.dequantfs", 0,
		fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
			fd)); err != nil {
		t.Fatal(err)
	}
	defer detach(dir)
	m, err := f.Mount(fmt.Sprintf("/dev/fd/%d", fd), MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := shows(t, dir); got != "0:0 0500" {
		t.Errorf("it shows %s", got)
	}
	if got := m.LockedOut(); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// A FUSE file system may be for one user only, in spite of its modes.
func TestASourceOnFUSEIsOpenAsItsMountIs(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	place := openFolder(t)
	writeShared(t, place)
	for _, c := range []struct {
		allow   bool
		options []string
		want    string
	}{
		{false, nil, "without allow_other"},
		{true, nil, "without default_permissions"},
		{true, []string{"default_permissions"}, ""},
	} {
		far := filepath.Join(openFolder(t), "far")
		if err := os.Mkdir(far, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := gofs.NewLoopbackRoot(place)
		if err != nil {
			t.Fatal(err)
		}
		server, err := gofs.Mount(far, root,
			&gofs.Options{MountOptions: fuse.MountOptions{AllowOther: c.allow, Options: c.options,
				DirectMount: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Unmount()
		f := openViews(t, filepath.Join(far, "model"), Options{}, layout("", "hf", 0))
		m, at := mountFS(t, f, MountOptions{AllowOther: true})
		want := "0:0 0444"
		if c.want != "" {
			want = "0:0 0400"
		}
		if got := shows(t, filepath.Join(at, "config.json")); got != want {
			t.Errorf("%+v: it shows %s, want %s", c, got, want)
		}
		if lines := m.LockedOut(); (len(lines) == 0) != (c.want == "") ||
			!slices.ContainsFunc(append(lines, ""),
				func(s string) bool { return strings.HasSuffix(s, c.want) }) {
			t.Errorf("%+v: %q", c, lines)
		}
		m.Unmount(true)
		m.Wait()
		f.checkpoint.Close()
		if err := server.Unmount(); err != nil {
			t.Fatal(err)
		}
	}
}
