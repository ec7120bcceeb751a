package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/testdata/size"
)

// tempInMemory is a directory in memory, where there is one: nothing waits for a disk.
func tempInMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dequantfs-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// mutated is a directory of an export to which things happen.
type mutated struct {
	t        testing.TB
	rng      *rand.Rand
	tree     fakeTree
	starts   []map[string]string // a complete export, and unfinished ones
	complete any                 // the files of its manifest, as JSON without types
	names    []string            // all that there can be in the directory
	victim   string
	intact   map[string]string // what is in it

	dir     string
	start   map[string]string
	foreign map[string]bool // names of what no export makes
	said    []string        // what happened
}

func newMutated(t testing.TB, seed uint64) *mutated {
	t.Helper()
	tree := newTinyTree(t)
	base := tempInMemory(t)
	m := &mutated{t: t, rng: rand.New(rand.NewPCG(seed, 0)), tree: tree, victim: filepath.Join(base, "victim"), dir: filepath.Join(base, "export")}
	m.intact = newVictim(t, m.victim)
	complete := texts(lookAt(t, exportTo(t, tree, filepath.Join(base, "complete"))))
	m.starts = append(m.starts, complete, complete)
	for _, name := range []string{"hf/model-00002-of-00002.safetensors", "hf/config.json"} {
		m.starts = append(m.starts, begunUntil(t, tree, filepath.Join(base, "begun-"+filepath.Base(name)), name))
	}
	m.complete = plain(complete[inState(manifestName)]).(map[string]any)["files"]
	all := tree.manifest(t).made()
	for name := range tree {
		all[name] = 0
	}
	all["hf"], all["hf/1_Pooling"] = os.ModeDir, os.ModeDir
	m.names = slices.Sorted(maps.Keys(all))
	return m
}

// exportTo exports a tree whole.
func exportTo(t testing.TB, tree fakeTree, dir string) string {
	t.Helper()
	if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// begunUntil is what is left of an export that was interrupted when a file was being written.
func begunUntil(t testing.TB, tree fakeTree, dir, file string) map[string]string {
	t.Helper()
	tree[file].failAt = 1
	defer func() { tree[file].failAt = 0 }()
	if _, err := tree.export(context.Background(), dir, Options{Jobs: 1}); err == nil {
		t.Fatal("it was not interrupted")
	}
	all := texts(lookAt(t, dir))
	all[partialOf(file)], all[inState(".new-77")] = "half of it", "half of it"
	return all
}

// texts gives the contents of the files that lookAt has found.
func texts(looked map[string]string) map[string]string {
	files := map[string]string{}
	for name, data := range looked {
		if text, ok := strings.CutPrefix(data, "a file: "); ok {
			files[name] = text
		}
	}
	return files
}

// plain reads JSON without any type in mind, or gives nil.
func plain(text string) any {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

func pick[T any](m *mutated, of ...T) T { return of[m.rng.IntN(len(of))] }

// path is where a name is.
func (m *mutated) path(name string) string { return filepath.Join(m.dir, filepath.FromSlash(name)) }

// file picks a file that is there, of those that end in one of endings.
func (m *mutated) file(endings ...string) (name string, data []byte) {
	var there []string
	for name := range m.start {
		info, err := os.Lstat(m.path(name))
		if err == nil && m.inside(name) && info.Mode().IsRegular() && info.Size() < 1<<20 &&
			(len(endings) == 0 || slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(name, e) })) {
			there = append(there, name)
		}
	}
	if len(there) == 0 {
		return "", nil
	}
	slices.Sort(there)
	name = pick(m, there...)
	data, err := os.ReadFile(m.path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	return name, data
}

// inside reports whether no link is in the way to a name.
func (m *mutated) inside(name string) bool {
	for above := filepath.Dir(name); above != "."; above = filepath.Dir(above) {
		if info, err := os.Lstat(m.path(above)); err == nil && !info.IsDir() {
			return false
		}
	}
	return true
}

// rewrite puts other bytes into a file of the directory. A link there is replaced, not written
// through.
func (m *mutated) rewrite(name string, data []byte) {
	if name == "" || !m.inside(name) {
		return
	}
	os.Remove(m.path(name))
	if err := os.WriteFile(m.path(name), data, 0o666); err != nil {
		m.t.Fatal(err)
	}
}

// exportMutations are what can happen to a directory.
var exportMutations = []struct {
	name string
	do   func(m *mutated) string // says to what
}{
	{"text of", (*mutated).mutateText},
	{"text of", (*mutated).mutateText},
	{"text of", (*mutated).mutateText},
	{"value in", (*mutated).mutateValue},
	{"value in", (*mutated).mutateValue},
	{"value in", (*mutated).mutateValue},
	{"entry of", (*mutated).mutateEntry},
	{"entry of", (*mutated).mutateEntry},
	{"bytes of", (*mutated).mutateBytes},
	{"bytes of", (*mutated).mutateBytes},
	{"kind of", (*mutated).mutateKind},
	{"kind of", (*mutated).mutateKind},
	{"foreign", (*mutated).plant},
	{"size of", (*mutated).resize},
	{"gone:", (*mutated).remove},
}

// manifests are the files of ours that are read back.
func (m *mutated) manifest() (string, []byte) {
	if m.rng.IntN(3) > 0 {
		if name, data := m.file(manifestName, exportName); name != "" {
			return name, data
		}
	}
	return m.file(".json")
}

// token is a value in JSON.
var token = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[\[\]{},:]`)

// mutateText changes the text of a JSON file in one place.
func (m *mutated) mutateText() string {
	name, data := m.manifest()
	tokens := token.FindAllIndex(data, -1)
	if len(tokens) == 0 {
		return "nothing"
	}
	at := pick(m, tokens...)
	was, now := string(data[at[0]:at[1]]), ""
	switch m.rng.IntN(8) {
	case 0: // one bit
		i := m.rng.IntN(len(data))
		at, now = []int{i, i + 1}, string(data[i]^1<<m.rng.IntN(8))
	case 1: // gone, with what follows
		at = []int{at[0], min(at[1]+m.rng.IntN(200), len(data))}
	case 2: // twice
		now = was + was
	case 3: // another token of the file
		other := pick(m, tokens...)
		now = string(data[other[0]:other[1]])
	case 4: // the end
		at = []int{at[0], len(data)}
	case 5: // something else in it
		now = was + pick(m, ",", `"x":1,`, `"version":1,`, "\x00", "\xff", "\u00a0", "//", `"tensors":[],`, "{}", strings.Repeat("[", 1000), strings.Repeat(" ", 5000))
	case 6: // everything
		at, now = []int{0, len(data)}, pick(m, "", "{}", "null", "[]", `{"version":1}`, `{"version":99}`, `{"version":1,"source":"","views":[],"files":[]}`, strings.Repeat("[", 100_000), strings.Repeat(`{"files":`, 50_000), `"`+strings.Repeat("a", 1<<20))
	default:
		now = m.value(was)
	}
	m.rewrite(name, slices.Concat(data[:at[0]], []byte(now), data[at[1]:]))
	return fmt.Sprintf("%s: %.60q for %.60q", name, now, data[at[0]:at[1]])
}

// value is another value in the place of one.
func (m *mutated) value(was string) string {
	near := []string{"0", "-1", "1", "5", "1.0", "1e3", "1e400", "-0", "9223372036854775807", "9223372036854775808", "1099511627776", "null", "true", `""`, `"5"`, "[]", "{}", "[0]",
		`"../x"`, `"/etc/passwd"`, `"hf/../hf/config.json"`, `"hf/config.json"`, `".dequantfs/manifest.json"`, `"` + strings.Repeat("ab", 32) + `"`, `"F64"`, `"U8"`, `"\ud800"`}
	var n int64
	if _, err := fmt.Sscan(was, &n); err == nil && m.rng.IntN(2) == 0 {
		return fmt.Sprint(pick(m, n+1, n-1, -n, 2*n, n+1<<40, n+1<<62, n^1<<m.rng.IntN(63)))
	}
	return pick(m, near...)
}

// mutateValue changes one value of a JSON file, which stays well formed.
func (m *mutated) mutateValue() string {
	name, data := m.manifest()
	root := plain(string(data))
	if root == nil {
		return "nothing"
	}
	what := m.change(&root, m.rng.IntN(6))
	text, err := json.Marshal(root)
	if err != nil {
		m.t.Fatal(err)
	}
	m.rewrite(name, text)
	return name + ": " + what
}

// change changes something below v, at most so deep.
func (m *mutated) change(v *any, depth int) string {
	switch x := (*v).(type) {
	case map[string]any:
		if len(x) == 0 || depth == 0 {
			break
		}
		key := pick(m, slices.Sorted(maps.Keys(x))...)
		switch m.rng.IntN(8) {
		case 0:
			delete(x, key)
			return "without " + key
		case 1:
			other := pick(m, slices.Sorted(maps.Keys(x))...)
			x[key], x[other] = x[other], x[key]
			return key + " and " + other + " exchanged"
		case 2:
			x[pick(m, key+"x", strings.ToUpper(key), "")] = x[key]
			return key + " under another name too"
		}
		below := x[key]
		what := m.change(&below, depth-1)
		x[key] = below
		return key + ": " + what
	case []any:
		if len(x) == 0 || depth == 0 {
			break
		}
		i := m.rng.IntN(len(x))
		switch m.rng.IntN(8) {
		case 0:
			*v = slices.Delete(slices.Clone(x), i, i+1)
			return fmt.Sprint("without element ", i)
		case 1:
			*v = slices.Insert(slices.Clone(x), i, x[m.rng.IntN(len(x))])
			return fmt.Sprint("one more element ", i)
		case 2:
			j := m.rng.IntN(len(x))
			x[i], x[j] = x[j], x[i]
			return fmt.Sprint("elements ", i, " and ", j, " exchanged")
		}
		return fmt.Sprint(i, ": ", m.change(&x[i], depth-1))
	}
	was, _ := json.Marshal(*v)
	now := m.value(string(was))
	*v = plain(now)
	return fmt.Sprintf("%.60s for %.60s", now, was)
}

// mutateEntry changes what a manifest says of a file, and computes its checksums anew from the
// file: only what the file itself says can show that it is wrong.
func (m *mutated) mutateEntry() string {
	root, _ := plain(string(readOr(m.path(inState(manifestName))))).(map[string]any)
	files, _ := root["files"].([]any)
	if len(files) == 0 {
		return "nothing"
	}
	file, _ := pick(m, files...).(map[string]any)
	tensors, _ := file["tensors"].([]any)
	what := ""
	if len(tensors) > 0 {
		var list any = tensors
		what = m.change(&list, 1+m.rng.IntN(2))
		file["tensors"] = list
	} else {
		var entry any = file
		what = m.change(&entry, 1)
	}
	name, _ := file["name"].(string)
	if holds(m.path(name), m.tree.bytes(name)) { // else the manifest would be right of other bytes
		sumAnew(file, m.tree.bytes(name))
	}
	text, err := json.Marshal(root)
	if err != nil {
		m.t.Fatal(err)
	}
	m.rewrite(inState(manifestName), text)
	return name + ": " + what
}

// readOr reads a small regular file, or nothing.
func readOr(path string) []byte {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return nil
	}
	data, _ := os.ReadFile(path)
	return data
}

// holds reports whether a path leads to a regular file with these bytes.
func holds(path string, data []byte) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() == int64(len(data)) && bytes.Equal(readOr(path), data)
}

// sumAnew gives an entry the checksums that the bytes at its offsets have.
func sumAnew(file map[string]any, data []byte) {
	first := int64(len(data))
	tensors, _ := file["tensors"].([]any)
	for i, x := range tensors {
		t, _ := x.(map[string]any)
		begin, end := number(t["begin"]), number(t["end"])
		if i == 0 {
			first = begin
		}
		if t != nil && 0 <= begin && begin <= end && end <= int64(len(data)) {
			t["sha256"] = sumOf(string(data[begin:end]))
		}
	}
	if 0 <= first && first <= int64(len(data)) {
		file["sha256"] = sumOf(string(data[:first]))
	}
}

func number(v any) int64 {
	n, _ := v.(json.Number)
	i, err := n.Int64()
	if err != nil {
		return -1
	}
	return i
}

// mutateBytes changes bytes of any file.
func (m *mutated) mutateBytes() string {
	name, data := m.file()
	if len(data) == 0 {
		return "nothing"
	}
	at := m.rng.IntN(len(data))
	switch m.rng.IntN(6) {
	case 0:
		data = data[:at]
	case 1:
		data = append(data, byte(m.rng.Uint32()))
	case 2:
		data = slices.Delete(data, at, at+1)
	case 3: // what the first bytes say of the header's length
		copy(data, pick(m, "\xff\xff\xff\xff\xff\xff\xff\x7f", "\xff\xff\xff\xff\xff\xff\xff\xff", "\x00\xe1\xf5\x05\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00"))
	default:
		data[at] ^= 1 << m.rng.IntN(8)
	}
	m.rewrite(name, data)
	return name
}

// mutateKind puts something else in the place of a file or a directory.
func (m *mutated) mutateKind() string {
	name := pick(m, m.names...)
	kind := pick(m, "a link", "a link", "a FIFO", "a device", "a socket", "a directory", "a file", "a hard link")
	target := pick(m, filepath.Join(m.victim, "secret"), filepath.Join(m.victim, "dir"), m.victim, "/dev/zero", "nothing", filepath.Base(name), m.path("hf/config.json"), m.path("hf"), m.path(inState(manifestName)))
	return m.put(name, kind, target)
}

// put puts something somewhere, unless something else is in the way.
func (m *mutated) put(name, kind, target string) string {
	if !m.inside(name) {
		return "nothing"
	}
	if kind == "a hard link" {
		target = filepath.Join(m.victim, "secret")
	}
	put(m.t, m.path(name), kind, target)
	for planted := range m.foreign {
		if planted == name || strings.HasPrefix(planted, name+"/") {
			delete(m.foreign, planted)
		}
	}
	m.foreign[name] = !mayReplace(m.t, m.tree, m.start, name, kind)
	return kind + " at " + name
}

// plant adds something that no export makes.
func (m *mutated) plant() string {
	where := pick(m, ".", stateDir, inState(partialDir), inState(recordsDir), inState("records/hf"), "hf")
	name := filepath.Join(where, pick(m, "notes", "stats.json", ".new-x", ".new-1", "lost+found", ".git", "config.json.json"))
	return m.put(name, pick(m, "a file", "a link", "a FIFO", "a directory", "a hard link"), m.victim)
}

// resize makes a file far larger than it should be, and than any manifest here says: to verify a
// terabyte takes its time.
func (m *mutated) resize() string {
	name, data := m.file()
	m.rewrite(name, data)
	if name != "" {
		if err := os.Truncate(m.path(name), pick(m, 1<<21, int64(manifestBytes)-1, manifestBytes+1, 1<<40+4321)); err != nil {
			m.t.Fatal(err)
		}
	}
	return name
}

// remove removes a file, sometimes with its entry in the manifest.
func (m *mutated) remove() string {
	name, _ := m.file()
	if name == "" {
		return "nothing"
	}
	os.Remove(m.path(name))
	root, _ := plain(string(readOr(m.path(inState(manifestName))))).(map[string]any)
	files, ok := root["files"].([]any)
	if !ok || m.rng.IntN(2) == 0 {
		return name
	}
	root["files"] = slices.DeleteFunc(files, func(f any) bool {
		entry, _ := f.(map[string]any)
		return entry["name"] == name
	})
	text, err := json.Marshal(root)
	if err != nil {
		m.t.Fatal(err)
	}
	m.rewrite(inState(manifestName), text)
	return name + " with its entry"
}

// fail says what happened to the directory.
func (m *mutated) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\nafter:\n\t%s", fmt.Sprintf(format, args...), strings.Join(m.said, "\n\t"))
}

// within is within with what happened.
func (m *mutated) within(what string, do func() error) (err error) {
	m.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = do()
	}()
	select {
	case <-done:
		return err
	case <-time.After(size.Patience()):
		m.fail("%s hangs", what)
		return nil
	}
}

// mutationTally counts how rounds ended.
type mutationTally map[string]int

func (c mutationTally) String() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, c[k]))
	}
	return strings.Join(parts, ", ")
}

// round mutates a directory and does one thing with it.
func (m *mutated) round(count mutationTally) {
	m.said, m.foreign = nil, map[string]bool{}
	if err := os.RemoveAll(m.dir); err != nil {
		m.t.Fatal(err)
	}
	start := m.rng.IntN(len(m.starts) + 1)
	m.start = nil
	if start < len(m.starts) {
		m.start = m.starts[start]
		m.said = append(m.said, fmt.Sprint("start ", start))
	}
	restore(m.t, m.dir, m.start)
	for range 1 + m.rng.IntN(3) {
		x := pick(m, exportMutations...)
		m.said = append(m.said, x.name+" "+x.do(m))
	}
	switch m.rng.IntN(4) {
	case 0:
		m.verifyTree(count)
	case 1:
		m.export(count)
	default:
		m.verify("verify", count)
	}
	if got := lookAt(m.t, m.victim); !maps.Equal(got, m.intact) {
		m.fail("what is not the export's was changed:\n%s", cmp.Diff(m.intact, got))
	}
}

// verify checks against the manifest. "Right" has to be right.
func (m *mutated) verify(what string, count mutationTally) {
	var found *Verification
	err := m.within(what, func() (err error) {
		found, err = Verify(context.Background(), m.dir, VerifyOptions{})
		return err
	})
	switch {
	case err != nil:
		count[what+": refused"]++
	case len(found.Differences) > 0:
		count[what+": differs"]++
	default:
		count[what+": right"]++
		m.wantRight(found)
	}
	if (err != nil || len(found.Differences) > 0) && m.unchanged() {
		m.fail("%s of what nothing happened to: %v, %v", what, found, err)
	}
}

// unchanged reports whether the directory is a complete export as it was.
func (m *mutated) unchanged() bool {
	if m.start[inState(manifestName)] == "" {
		return false
	}
	for name, data := range m.start {
		if !holds(m.path(name), []byte(data)) {
			return false
		}
	}
	return true
}

// wantRight makes sure that a manifest is the right one, or leaves out only what verify has named
// or nobody can know of, and that the files that it names have the right bytes.
func (m *mutated) wantRight(found *Verification) {
	root, _ := plain(string(readOr(m.path(inState(manifestName))))).(map[string]any)
	files, _ := root["files"].([]any)
	if root["version"] != json.Number("1") || len(files) == 0 {
		m.fail("false right: a manifest of version %v with %d files", root["version"], len(files))
	}
	want, got := entries(m.complete), entries(root["files"])
	for name, entry := range got {
		if !reflect.DeepEqual(want[name], entry) {
			m.fail("false right: the manifest says of %s: %v, not %v", name, entry, want[name])
		}
		if !holds(m.path(name), m.tree.bytes(name)) {
			m.fail("false right: %s has other bytes", name)
		}
	}
	if len(got) != len(files) {
		m.fail("false right: %d entries of %d files", len(files), len(got))
	}
	for name := range want {
		_, there := got[name]
		_, err := os.Lstat(m.path(name))
		if there || slices.Contains(found.Extra, name) || os.IsNotExist(err) && !isShard(name) {
			continue
		}
		if _, err := os.Lstat(m.path("hf/" + indexName)); os.IsNotExist(err) && found.Files > 0 {
			continue // a shard went with its entry, and the index, which names it, with its own
		}
		m.fail("false right: %s is missing in the manifest, and that is not said", name)
	}
}

// entries gives the entries of a manifest by name.
func entries(files any) map[string]any {
	all := map[string]any{}
	list, _ := files.([]any)
	for _, f := range list {
		entry, _ := f.(map[string]any)
		name, _ := entry["name"].(string)
		all[name] = f
	}
	return all
}

// bytes gives a file whole.
func (t fakeTree) bytes(name string) []byte {
	f := t[name]
	if f == nil {
		return nil
	}
	data := make([]byte, f.Size())
	f.ReadAt(data, 0)
	return data
}

// verifyTree checks against the bytes of the tree.
func (m *mutated) verifyTree(count mutationTally) {
	var found *Verification
	err := m.within("verify --source", func() (err error) {
		found, err = m.tree.verify(m.dir)
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) { // the directory does not exist
		m.fail("verify --source: %v", err)
	}
	right := err == nil
	for name := range m.tree {
		right = right && holds(m.path(name), m.tree.bytes(name))
	}
	if said := err == nil && len(found.Differences) == 0; said != right {
		m.fail("verify --source says that all is right: %v; it is %v: %v, %v", said, right, found, err)
	}
	count[fmt.Sprintf("verify --source: right %v", right)]++
}

// export goes on with an export, or refuses to.
func (m *mutated) export(count mutationTally) {
	before := map[string]map[string]string{}
	for name, foreign := range m.foreign {
		if foreign {
			before[name] = lookAt(m.t, m.path(name))
		}
	}
	var done *Manifest
	err := m.within("export", func() (err error) {
		done, err = m.tree.export(context.Background(), m.dir, Options{})
		return err
	})
	for name, was := range before {
		if now := lookAt(m.t, m.path(name)); !maps.Equal(was, now) {
			m.fail("the export (%v) changed %s, which it has not made:\n%s", err, name, cmp.Diff(was, now))
		}
	}
	if err != nil {
		count["export: refused"]++
		if !strings.Contains(err.Error(), m.dir) {
			m.fail("an error without a name: %v", err)
		}
		return
	}
	count["export: done"]++
	if done == nil {
		m.fail("an export of all parts is not complete")
	}
	for name := range m.tree {
		if info, err := os.Lstat(m.path(name)); err != nil || !info.Mode().IsRegular() || info.Size() != m.tree[name].Size() {
			m.fail("%s: %v, %v", name, info, err)
		}
	}
	m.verify("export, then verify", count)
}

// watchHeap samples the heap until it is told to stop, and gives the most by which it has grown. It
// is collected often meanwhile, so that what other tests have left does not count.
func watchHeap() (stop func() uint64) {
	percent := debug.SetGCPercent(20)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var most atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		for {
			metrics.Read(sample)
			most.Store(max(most.Load(), sample[0].Value.Uint64()))
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-ended
		debug.SetGCPercent(percent)
		return most.Load() - min(most.Load(), before.HeapAlloc)
	}
}

// TestPreparedDirectoriesAndMutatedManifests exports to, and verifies, directories to which one to
// three random things have happened: to the text or the values of what is read back, to bytes,
// sizes and kinds of files. Nothing panics or hangs, nothing outside of the directory and nothing
// foreign in it is changed, verify never says "right" of what is not, and memory is bounded.
func TestPreparedDirectoriesAndMutatedManifests(t *testing.T) {
	const bound = 256 << 20
	stop, count := watchHeap(), mutationTally{}
	for _, seed := range size.Seeds(t) {
		m := newMutated(t, seed)
		for range (size.Count(300, 100_000) + 2) / 3 {
			m.round(count)
		}
	}
	most := stop()
	t.Logf("%v; at most %d MiB more of heap", count, most>>20)
	if most > bound {
		t.Errorf("%d bytes more of heap, not at most %d", most, bound)
	}
}
