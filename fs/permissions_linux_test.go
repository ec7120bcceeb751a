package fs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/permission"
	"github.com/dequantfs/dequantfs/testdata/size"
)

// This file mounts sources whose files and folders have random owners, groups, modes and ACLs. It
// mounts as root and as another user, and reads source and mount as many users. The processes are
//
//	the test     starts a stage for each seed and judges its counts
//	the stage    makes sources, in a mount namespace where every user may use FUSE and allow_other
//	two mounters which mount sources on request
//	readers      which try the given paths, each as a different user

func init() {
	children["permissions"] = runStage
	children["mounter"] = func([]string) error {
		return answerOrders(json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout))
	}
	children["reader"] = func([]string) error {
		return tryPaths(json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout))
	}
}

// permissionCount holds the counts of the stage.
type permissionCount struct {
	// sources that were mounted, and those that the mounting user could not open
	Mounts, Refused int
	// listings, computed files and side files of mounts, each with permissions of its own
	Combinations int
	Stricter     int      // of these: some user reads the source and not the mount
	Reads        int      // by all users, of all combinations
	Denied       int      // of these: read in the mount, though the source denies it
	Lost         int      // of these: read in the source, but not in the mount
	Wrong        []string // violations
}

// needRoot skips a test that only root can run, unless it must run.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if required("root") {
			t.Fatal("root is required")
		}
		t.Skip("needs root")
	}
}

func TestNobodyReadsThroughAMountWhatTheSourceDenies(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	needHelper(t) // unprivileged users mount, too
	var sum permissionCount
	for _, seed := range size.Seeds(t) {
		n := stage(t, seed, (size.Count(300, 10_000)+2)/3)
		for _, wrong := range n.Wrong {
			t.Errorf("seed %d: %s", seed, wrong)
		}
		sum.Mounts += n.Mounts
		sum.Refused += n.Refused
		sum.Combinations += n.Combinations
		sum.Stricter += n.Stricter
		sum.Reads += n.Reads
		sum.Denied += n.Denied
		sum.Lost += n.Lost
	}
	t.Logf("%d combinations in %d mounts; in %d of them the mount is stricter for somebody; %d "+
		"reads, of which the source denies %d and %d are possible only in the source; %d "+
		"sources could not be opened by the user who mounts",
		sum.Combinations, sum.Mounts, sum.Stricter, sum.Reads, sum.Denied, sum.Lost, sum.Refused)
	if sum.Denied > 0 {
		t.Errorf("%d reads of what the source denies", sum.Denied)
	}
	if sum.Lost*2 > sum.Reads || sum.Stricter == 0 || sum.Stricter == sum.Combinations {
		t.Error("too little was shown")
	}
}

// stage runs the stage for one seed.
func stage(t *testing.T, seed uint64, count int) (n permissionCount) {
	t.Helper()
	dir, err := os.MkdirTemp("", "permissions")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd, out := start(t, "permissions", dir, fmt.Sprint(seed), fmt.Sprint(count))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if _, err := cmd.StdinPipe(); err != nil { // it ends with this process
		t.Fatal(err)
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if err := json.Unmarshal(out.Bytes(), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The users and groups that own things, or that ACLs name.
const mountingUser = 65534 // has an account, which fusermount3 needs

var (
	owners      = []uint32{0, mountingUser, 2001, 2002}
	ownerGroups = []uint32{0, 3000, 3001, 3002}
)

// scene is the state of the stage.
type scene struct {
	dir      string
	r        *rand.Rand
	people   []permission.Person
	readers  []*talk
	mounters map[uint32]*talk
	count    permissionCount
}

// runStage does the work of the stage. Its arguments are a folder, the seed and a count of
// combinations.
func runStage(args []string) error {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // the test is gone
	}()
	var seed uint64
	var count int
	if _, err := fmt.Sscan(args[1]+" "+args[2], &seed, &count); err != nil {
		return err
	}
	s := &scene{dir: args[0], r: rand.New(rand.NewPCG(seed, 0)), mounters: map[uint32]*talk{}}
	if err := s.openFUSE(); err != nil {
		return err
	}
	program := filepath.Join(s.dir, "program")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		return err
	}
	if err := s.hire(program); err != nil {
		return err
	}
	for s.count.Combinations < count && len(s.count.Wrong) < 10 {
		if err := s.round(); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(s.count)
}

// openFUSE mounts a file system in memory at the stage's folder, since it has ACLs. It lets every
// user use FUSE and allow_other in this mount namespace.
func (s *scene) openFUSE() error {
	if err := unix.Mount("none", s.dir, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	device, conf := filepath.Join(s.dir, "fuse"), filepath.Join(s.dir, "fuse.conf")
	return errors.Join(
		unix.Mknod(device, unix.S_IFCHR, int(unix.Mkdev(10, 229))), os.Chmod(device, 0o666),
		os.WriteFile(conf, []byte("user_allow_other\nmount_max = 1000\n"), 0o644),
		unix.Mount(device, "/dev/fuse", "", unix.MS_BIND, ""),
		unix.Mount(conf, "/etc/fuse.conf", "", unix.MS_BIND, ""),
	)
}

// hire starts the mounters and the readers. The readers are root, all owners, and users whom
// nothing names. Each has some of the groups.
func (s *scene) hire(program string) error {
	for _, uid := range []uint32{0, mountingUser} {
		m, err := hire(program, "mounter", permission.Person{UID: uid, Groups: []uint32{uid, 3000}})
		if err != nil {
			return err
		}
		s.mounters[uid] = m
	}
	for _, uid := range []uint32{0, mountingUser, 2001, 2001, 2002, 2002, 2010, 2011, 2012, 2013,
		2014} {
		p := permission.Person{UID: uid, Groups: []uint32{uid}}
		for _, gid := range ownerGroups[1:] {
			if s.r.IntN(2) == 0 || uid == mountingUser && gid == 3000 {
				p.Groups = append(p.Groups, gid)
			}
		}
		if uid == mountingUser { // the groups of the mounting user
			p.Groups = []uint32{uid, 3000}
		}
		r, err := hire(program, "reader", p)
		if err != nil {
			return err
		}
		s.people, s.readers = append(s.people, p), append(s.readers, r)
	}
	return nil
}

// talk is a process that answers one request after the other.
type talk struct {
	to   *json.Encoder
	from *json.Decoder
}

func hire(program, how string, p permission.Person) (*talk, error) {
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), childEnv+"="+how)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: p.UID, Gid: p.Groups[0], Groups: p.Groups[1:]},
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &talk{json.NewEncoder(in), json.NewDecoder(out)}, cmd.Start()
}

// ask sends a question and waits for the answer.
func (t *talk) ask(question, answer any) error {
	if err := t.to.Encode(question); err != nil {
		return err
	}
	return t.from.Decode(answer)
}

// tryPaths is a reader. It opens each path of a question and reads a byte, or lists a folder if the
// path ends in a slash. It answers with the errors.
func tryPaths(in *json.Decoder, out *json.Encoder) error {
	for {
		var paths, answers []string
		if err := in.Decode(&paths); err != nil {
			return nil // the stage has ended
		}
		for _, path := range paths {
			answers = append(answers, tryPath(path))
		}
		if err := out.Encode(answers); err != nil {
			return err
		}
	}
}

const refused = "refused"

func tryPath(path string) string {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		if strings.HasSuffix(path, "/") {
			_, err = f.ReadDir(-1)
		} else {
			_, err = f.Read(make([]byte, 1))
		}
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, unix.EACCES):
		return refused
	}
	return err.Error()
}

// order tells a mounter to mount a source or, without a source, to unmount.
type order struct {
	Source, Mountpoint string
	UID, GID           *uint32
}

// grants reports whether an option lets a user read the mount of uid, whatever the source says.
func (o *order) grants(p permission.Person, uid uint32) bool {
	if o.UID != nil {
		uid = *o.UID
	}
	return p.UID == uid || o.GID != nil && slices.Contains(p.Groups, *o.GID)
}

// mountedAnswer is its answer.
type mountedAnswer struct {
	Err       string
	Names     []string // that the root lists
	LockedOut []string
}

func answerOrders(in *json.Decoder, out *json.Encoder) error {
	unmount := func() error { return nil }
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return nil // the stage has ended
		}
		var a mountedAnswer
		var err error
		if o.Source == "" {
			err = unmount()
		} else {
			a, unmount, err = carryOut(o)
		}
		if err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// carryOut mounts.
func carryOut(o order) (a mountedAnswer, unmount func() error, err error) {
	c, err := adapter.Open(context.Background(), o.Source, adapter.OpenOptions{FollowLinks: true})
	if err != nil {
		return a, unmount, err
	}
	p, err := adapter.NewPlan(c, adapter.Options{Layout: "hf"})
	if err != nil {
		return a, unmount, err
	}
	f, err := New(c, []View{{Plan: p}}, Options{})
	if err != nil {
		return a, unmount, err
	}
	m, err := f.Mount(o.Mountpoint, MountOptions{AllowOther: true, UID: o.UID, GID: o.GID})
	if err != nil {
		return a, unmount, err
	}
	list, err := f.ReadDir(".")
	for _, e := range list {
		a.Names = append(a.Names, e.Name())
	}
	a.LockedOut = m.LockedOut()
	return a, func() error {
		if err := m.Unmount(false); err != nil {
			return err
		}
		m.Wait()
		return errors.Join(f.Close(), c.Close())
	}, err
}

// round makes a source, mounts it, and reads both as every user.
func (s *scene) round() error {
	place := filepath.Join(s.dir, fmt.Sprint(s.count.Mounts+s.count.Refused))
	b := &sourceBuilder{r: s.r, inodes: map[string]*permission.Inode{}}
	defer os.RemoveAll(place)
	if err := os.Mkdir(place, 0o755); err != nil {
		return err
	}
	source, err := b.build(place)
	if err != nil {
		return err
	}
	uid := permission.Of(s.r, uint32(0), mountingUser)
	o := order{Source: source, Mountpoint: filepath.Join(place, "mnt")}
	if err := errors.Join(os.Mkdir(o.Mountpoint, 0o755),
		os.Chown(o.Mountpoint, int(uid), int(uid))); err != nil {
		return err
	}
	switch s.r.IntN(8) {
	case 0:
		gid := permission.Of(s.r, ownerGroups[1:]...)
		o.GID = &gid
	case 1:
		uid := permission.Of(s.r, s.people...).UID
		o.UID = &uid
	}
	var a mountedAnswer
	if err := s.mounters[uid].ask(o, &a); err != nil {
		return err
	}
	if a.Err != "" {
		s.count.Refused++
		if !strings.Contains(a.Err, "permission denied") {
			return errors.New(a.Err)
		}
		return nil
	}
	s.count.Mounts++
	if err := s.compare(b, o, uid, a); err != nil {
		return err
	}
	err = s.mounters[uid].ask(order{}, &a)
	if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	return err
}

// combination is a set of paths in the mount with the same permissions, and the files that they are
// made from.
type combination struct{ paths, from []string }

// combinations returns those of a mount: its listing, its computed files and its side files.
func combinations(b *sourceBuilder, o order, names []string) []combination {
	in := func(name string) string { return filepath.Join(o.Mountpoint, name) }
	computed := combination{[]string{in("config.json"), in("model.safetensors"),
		in(ControlDir + "/plan.json")}, b.computed}
	all := []combination{computed, {[]string{o.Mountpoint + "/"}, []string{o.Source + "/"}}}
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "side-"):
			all = append(all, combination{[]string{in(name)},
				[]string{filepath.Join(o.Source, name)}})
		case name == "sub":
			all = append(all, combination{[]string{in(name) + "/"},
				[]string{filepath.Join(o.Source, name) + "/"}},
				combination{[]string{in(subfile)}, []string{filepath.Join(o.Source, subfile)}})
		}
	}
	return all
}

// compare reads all of a mount and of its source as every user.
func (s *scene) compare(b *sourceBuilder, o order, uid uint32, a mountedAnswer) error {
	all := combinations(b, o, a.Names)
	stricter, locked := make([]bool, len(all)), false
	for i, p := range s.people {
		read, err := s.read(s.readers[i], all)
		if err != nil {
			return err
		}
		for j, c := range all {
			mount, source := s.outcome(p, c.paths, read), s.sourceOutcome(b, p, c.from, read)
			granted := p.UID == 0 || o.grants(p, uid)
			s.count.Reads++
			switch {
			case granted && !mount:
				s.wrong("%v cannot read %s, which was granted: %+v by %d", p, c.paths, o, uid)
			case mount && !source && !granted:
				s.count.Denied++
				s.wrong("%v reads %s, but not its source, %s: mounted by %d, %+v", p, c.paths,
					b.describe(c.from...), uid, o)
			case !mount && source:
				s.count.Lost++
				stricter[j] = true
			}
			locked = locked || !mount
		}
	}
	s.count.Combinations += len(all)
	for _, yes := range stricter {
		if yes {
			s.count.Stricter++
		}
	}
	if locked && len(a.LockedOut) == 0 {
		s.wrong("somebody is locked out of %s, but nothing is said: %s", o.Source,
			b.describe(b.computed...))
	}
	return nil
}

// outcome reports whether paths were read. Either all or none must be.
func (s *scene) outcome(p permission.Person, paths []string, said map[string]string) bool {
	for _, path := range paths {
		if got := said[path]; got != said[paths[0]] || got != "" && got != refused {
			s.wrong("%v reads %s: %q", p, path, got)
		}
	}
	return said[paths[0]] == ""
}

// sourceOutcome reports whether all of the paths were read, and compares that with their modes.
func (s *scene) sourceOutcome(b *sourceBuilder, p permission.Person, paths []string,
	said map[string]string) bool {
	all := true
	for _, path := range paths {
		read := s.outcome(p, []string{path}, said)
		if want := p.UID == 0 || b.allows(p, path); read != want {
			s.wrong("%v reads %s, %s: %v, by its modes %v", p, path, b.describe(path), read, want)
		}
		all = all && read
	}
	return all
}

// read tries all paths as one user, and returns the answers by path.
func (s *scene) read(reader *talk, all []combination) (map[string]string, error) {
	var paths, answers []string
	for _, c := range all {
		paths = slices.Concat(paths, c.paths, c.from)
	}
	if err := reader.ask(paths, &answers); err != nil {
		return nil, err
	}
	if len(answers) != len(paths) {
		return nil, io.ErrUnexpectedEOF
	}
	said := map[string]string{}
	for i, path := range paths {
		said[path] = answers[i]
	}
	return said, nil
}

func (s *scene) wrong(format string, args ...any) {
	if len(s.count.Wrong) < 10 {
		s.count.Wrong = append(s.count.Wrong, fmt.Sprintf(format, args...))
	}
}

const subfile = "sub/side"

// sourceBuilder makes a source, and records the permissions of its files and folders.
type sourceBuilder struct {
	r      *rand.Rand
	inodes map[string]*permission.Inode // by path
	// the folders on the way of a path, and its target
	ways     map[string][]string
	computed []string // paths of the sources of computed files
}

// build makes a plain folder or a snapshot in the Hub's cache, some of whose files are links to
// folders elsewhere.
func (b *sourceBuilder) build(place string) (source string, err error) {
	shard, err := tinyShard()
	if err != nil {
		return "", err
	}
	folders, blobs, err := b.folders(place)
	if err != nil {
		return "", err
	}
	source = folders[len(folders)-1]
	b.ways = map[string][]string{source + "/": folders}
	for _, file := range []struct {
		name string
		data []byte
	}{
		{"config.json", []byte(`{"model_type": "none"}`)}, {"model.safetensors", shard},
		{"side-1", []byte{1}}, {"side-2", []byte{2}}, {"side-3", []byte{3}}, {"side-4", []byte{4}}, {subfile, []byte{6}},
	} {
		way, err := b.file(place, source, file.name, blobs, file.data)
		if err != nil {
			return "", err
		}
		path := filepath.Join(source, file.name)
		b.ways[path] = slices.Concat(folders, way)
		if file.name == subfile {
			b.ways[filepath.Dir(path)+"/"] = append(slices.Clone(folders), filepath.Dir(path))
		} else if !strings.HasPrefix(file.name, "side") {
			b.computed = append(b.computed, path)
		}
	}
	return source, b.permit()
}

// folders makes the source's folder and, for a snapshot, the folder of the blobs. It returns the
// folders on the way to it.
func (b *sourceBuilder) folders(place string) (way []string, blobs string, err error) {
	parts := []string{"a", "b", "model"}[b.r.IntN(3):]
	if b.r.IntN(3) == 0 {
		parts = []string{"models--org--name", "snapshots", "main"}
		blobs = filepath.Join(place, parts[0], "blobs")
		err = os.MkdirAll(blobs, 0o700)
	}
	at := place
	for _, part := range parts {
		at = filepath.Join(at, part)
		way = append(way, at)
	}
	return way, blobs, errors.Join(err, os.MkdirAll(at, 0o700))
}

// file writes a file of the source or of its blobs, or a link to a file in another folder. It
// returns the other paths that the name depends on.
func (b *sourceBuilder) file(place, source, name, blobs string,
	data []byte) (way []string, err error) {
	path := filepath.Join(source, name)
	target := path
	if name == subfile {
		way = []string{filepath.Dir(path)}
		err = os.Mkdir(filepath.Dir(path), 0o700)
	}
	switch {
	case blobs != "":
		target = filepath.Join(blobs, "blob-"+filepath.Base(name))
		way = append(way, filepath.Dir(blobs), blobs)
		up, _ := filepath.Rel(filepath.Dir(path), target)
		err = errors.Join(err, os.Symlink(up, path))
	case b.r.IntN(3) == 0:
		far := filepath.Join(place, "far", filepath.Base(name))
		target = filepath.Join(far, "file")
		way = append(way, filepath.Dir(far), far)
		err = errors.Join(err, os.MkdirAll(far, 0o700), os.Symlink(target, path))
	}
	return append(way, target), errors.Join(err, os.WriteFile(target, data, 0o600))
}

// permit gives everything random permissions, the deepest first.
func (b *sourceBuilder) permit() error {
	paths := map[string]bool{}
	for _, way := range b.ways {
		for _, path := range way {
			paths[path] = true
		}
	}
	sorted := []string{}
	for path := range paths {
		sorted = append(sorted, path)
	}
	slices.Sort(sorted)
	for _, path := range slices.Backward(sorted) {
		n := permission.Random(b.r, owners, ownerGroups, true)
		if b.r.IntN(2) == 0 { // otherwise hardly any user could read it
			n = permission.Parse(fmt.Sprintf("%d:%d 0755", n.UID, n.GID))
		}
		b.inodes[path] = n
		err := errors.Join(os.Chown(path, int(n.UID), int(n.GID)),
			os.Chmod(path, iofs.FileMode(n.Mode)))
		if n.ACL != nil {
			err = errors.Join(err, unix.Setxattr(path, "system.posix_acl_access", n.Attribute(), 0))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// allows reports whether a user may read a path of the source, or list it if it ends in a slash.
func (b *sourceBuilder) allows(p permission.Person, path string) bool {
	way := b.ways[path]
	for i, at := range way {
		want := uint32(permission.Search)
		if i == len(way)-1 {
			want = permission.Read
		}
		if !b.inodes[at].Allows(p, want) {
			return false
		}
	}
	return true
}

func (b *sourceBuilder) describe(paths ...string) (text string) {
	for _, path := range paths {
		for _, at := range b.ways[path] {
			text += fmt.Sprintf("{%s %v}", at, b.inodes[at])
		}
	}
	return text
}

// tinyShard is a shard of one small tensor.
func tinyShard() ([]byte, error) {
	_, header, err := safetensors.NewHeader([]safetensors.Tensor{{Name: "w", DType: safetensors.F32,
		Shape: []int64{2}}}, nil, 8)
	return slices.Concat(header, bytes.Repeat([]byte{1}, 8)), err
}
