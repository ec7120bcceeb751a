package export

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
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

// tempInMemory returns a new directory in memory if there is one, so that tests need not wait for a
// disk.
func tempInMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dequantfs-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// mutated is the directory of an export that random mutations change.
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
	m := &mutated{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), tree: tree,
		victim: filepath.Join(base, "victim"), dir: filepath.Join(base, "export"),
	}
	m.intact = newVictim(t, m.victim)
	complete := texts(lookAt(t, exportTo(t, tree, filepath.Join(base, "complete"))))
	m.starts = append(m.starts, complete, complete)
	for _, name := range []string{"hf/model-00002-of-00002.safetensors", "hf/config.json"} {
		dir := filepath.Join(base, "begun-"+filepath.Base(name))
		m.starts = append(m.starts, begunUntil(t, tree, dir, name))
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

// exportTo writes a complete export.
func exportTo(t testing.TB, tree fakeTree, dir string) string {
	t.Helper()
	if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// begunUntil returns the files of an export that was interrupted while it wrote one file.
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

// texts returns the contents of the files that lookAt found.
func texts(looked map[string]string) map[string]string {
	files := map[string]string{}
	for name, data := range looked {
		if text, ok := strings.CutPrefix(data, "a file: "); ok {
			files[name] = text
		}
	}
	return files
}

// plain decodes JSON without a type, or returns nil.
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

// path returns the path of a name.
func (m *mutated) path(name string) string { return filepath.Join(m.dir, filepath.FromSlash(name)) }

// file picks an existing file with one of these endings.
func (m *mutated) file(endings ...string) (name string, data []byte) {
	var there []string
	for name := range m.start {
		info, err := os.Lstat(m.path(name))
		wanted := len(endings) == 0 || slices.ContainsFunc(endings, func(end string) bool {
			return strings.HasSuffix(name, end)
		})
		if err == nil && wanted && m.inside(name) && info.Mode().IsRegular() &&
			info.Size() < 1<<20 {
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

// inside reports whether no directory above a name is a link.
func (m *mutated) inside(name string) bool {
	for above := filepath.Dir(name); above != "."; above = filepath.Dir(above) {
		if info, err := os.Lstat(m.path(above)); err == nil && !info.IsDir() {
			return false
		}
	}
	return true
}

// rewrite replaces a file of the directory. It does not write through links.
func (m *mutated) rewrite(name string, data []byte) {
	if name == "" || !m.inside(name) {
		return
	}
	os.Remove(m.path(name))
	if err := os.WriteFile(m.path(name), data, 0o666); err != nil {
		m.t.Fatal(err)
	}
}

// exportMutations are the mutations, with frequent ones repeated.
var exportMutations = []struct {
	name string
	do   func(m *mutated) string // returns the file and the change
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

// manifest picks a file that an export reads back.
func (m *mutated) manifest() (string, []byte) {
	if m.rng.IntN(3) > 0 {
		if name, data := m.file(manifestName, exportName); name != "" {
			return name, data
		}
	}
	return m.file(".json")
}

// token is a token of JSON.
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
		now = was + pick(m, ",", `"x":1,`, `"version":1,`, "\x00", "\xff", "\u00a0", "//",
			`"tensors":[],`, "{}", strings.Repeat("[", 1000), strings.Repeat(" ", 5000))
	case 6: // everything
		at, now = []int{0, len(data)}, pick(m, "", "{}", "null", "[]", `{"version":1}`,
			`{"version":99}`, `{"version":1,"source":"","views":[],"files":[]}`,
			strings.Repeat("[", 100_000), strings.Repeat(`{"files":`, 50_000),
			`"`+strings.Repeat("a", 1<<20))
	default:
		now = m.value(was)
	}
	m.rewrite(name, slices.Concat(data[:at[0]], []byte(now), data[at[1]:]))
	return fmt.Sprintf("%s: %.60q for %.60q", name, now, data[at[0]:at[1]])
}

// value returns another value for one in JSON.
func (m *mutated) value(was string) string {
	near := []string{
		"0", "-1", "1", "5", "1.0", "1e3", "1e400", "-0", "9223372036854775807",
		"9223372036854775808", "1099511627776", "null", "true", `""`, `"5"`, "[]", "{}", "[0]",
		`"../x"`, `"/etc/passwd"`, `"hf/../hf/config.json"`, `"hf/config.json"`,
		`".dequantfs/manifest.json"`, `"` + strings.Repeat("ab", 32) + `"`, `"F64"`, `"U8"`,
		`"\ud800"`,
	}
	var n int64
	if _, err := fmt.Sscan(was, &n); err == nil && m.rng.IntN(2) == 0 {
		return fmt.Sprint(pick(m, n+1, n-1, -n, 2*n, n+1<<40, n+1<<62, n^1<<m.rng.IntN(63)))
	}
	return pick(m, near...)
}

// mutateValue changes one value of a JSON file. The file remains well-formed.
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

// change changes one value in v, down to a depth.
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

// mutateEntry changes the entry of a file in a manifest, and computes its checksums again. So only
// the file's own header can show that the entry is wrong.
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
	// With other bytes in the file, the manifest would be right about these.
	if holds(m.path(name), m.tree.bytes(name)) {
		sumAnew(file, m.tree.bytes(name))
	}
	text, err := json.Marshal(root)
	if err != nil {
		m.t.Fatal(err)
	}
	m.rewrite(inState(manifestName), text)
	return name + ": " + what
}

// readOr reads a small regular file. For anything else, it returns nil.
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
	return err == nil && info.Mode().IsRegular() && info.Size() == int64(len(data)) &&
		bytes.Equal(readOr(path), data)
}

// sumAnew computes the checksums of an entry from the bytes at its offsets.
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
	case 3: // the length of the header
		length := pick(m, math.MaxInt64, math.MaxUint64, 100_000_000, uint64(0))
		copy(data, binary.LittleEndian.AppendUint64(nil, length))
	default:
		data[at] ^= 1 << m.rng.IntN(8)
	}
	m.rewrite(name, data)
	return name
}

// mutateKind replaces a file or a directory by another kind of file.
func (m *mutated) mutateKind() string {
	name := pick(m, m.names...)
	kind := pick(m, "a link", "a link", "a FIFO", "a device", "a socket", "a directory", "a file",
		"a hard link")
	target := pick(m, filepath.Join(m.victim, "secret"), filepath.Join(m.victim, "dir"), m.victim,
		"/dev/zero", "nothing", filepath.Base(name), m.path("hf/config.json"), m.path("hf"),
		m.path(inState(manifestName)))
	return m.put(name, kind, target)
}

// put creates a file of a kind, unless a directory above it is a link.
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

// plant adds a file that no export makes.
func (m *mutated) plant() string {
	where := pick(m, ".", stateDir, inState(partialDir), inState(recordsDir),
		inState("records/hf"), "hf")
	name := pick(m, "notes", "stats.json", ".new-x", ".new-1", "lost+found", ".git",
		"config.json.json")
	kind := pick(m, "a file", "a link", "a FIFO", "a directory", "a hard link")
	return m.put(filepath.Join(where, name), kind, m.victim)
}

// resize makes a file far too large. No manifest here has that size, because verifying a terabyte
// takes too long.
func (m *mutated) resize() string {
	name, data := m.file()
	m.rewrite(name, data)
	if name != "" {
		size := pick(m, 1<<21, int64(manifestBytes)-1, manifestBytes+1, 1<<40+4321)
		if err := os.Truncate(m.path(name), size); err != nil {
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

// fail fails the test and lists the mutations.
func (m *mutated) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\nafter:\n\t%s", fmt.Sprintf(format, args...), strings.Join(m.said, "\n\t"))
}

// within is the function within, and lists the mutations.
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

// mutationTally counts the outcomes of rounds.
type mutationTally map[string]int

func (c mutationTally) String() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, c[k]))
	}
	return strings.Join(parts, ", ")
}

// round mutates a directory, and then exports to it or verifies it.
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
		m.fail("the export changed a file outside:\n%s", cmp.Diff(m.intact, got))
	}
}

// verify checks against the manifest, and checks each right result.
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
		m.fail("%s of a directory without mutations: %v, %v", what, found, err)
	}
}

// unchanged reports whether the directory still is a complete export.
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

// wantRight checks that the manifest is right and that its files have the right bytes. A file may
// be missing in it if verify named the file, or if no other file refers to it.
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
		m.fail("false right: %s is missing in the manifest, and verify does not say so", name)
	}
}

// entries returns the entries of a manifest by name.
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
		m.fail("verify --source says that all is right: %v; it is %v: %v, %v",
			said, right, found, err)
	}
	count[fmt.Sprintf("verify --source: right %v", right)]++
}

// export continues an export, or refuses to.
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
			m.fail("the export (%v) changed %s, which it did not make:\n%s",
				err, name, cmp.Diff(was, now))
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
		info, err := os.Lstat(m.path(name))
		if err != nil || !info.Mode().IsRegular() || info.Size() != m.tree[name].Size() {
			m.fail("%s: %v, %v", name, info, err)
		}
	}
	m.verify("export, then verify", count)
}

// watchHeap samples the heap until stop is called, which returns the largest growth. Meanwhile, the
// heap is collected often, so that garbage of other tests does not count.
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

// TestPreparedDirectoriesAndMutatedManifests exports to directories with one to three random
// mutations, or verifies them. The mutations change manifests, bytes, sizes and kinds of files.
// Nothing may panic or hang. Foreign files must not change. Verify must find all wrong files, and
// memory must be bounded.
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
