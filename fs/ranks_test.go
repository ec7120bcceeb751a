package fs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// ranks are the views of all ranks of a layout.
func ranks(of string, d safetensors.DType, n int) (views []View) {
	for r := range n {
		v := layout(rankDir(of, r), of, d)
		v.Plan.Options.EP = adapter.EP{Rank: r, Size: n}
		views = append(views, v)
	}
	return views
}

func rankDir(of string, r int) string { return fmt.Sprintf("%s/rank-%d", of, r) }

// inode is what tells whether names are of one file.
func inode(t testing.TB, f *FS, name string) uint64 {
	t.Helper()
	n, err := f.lookup("stat", name)
	if err != nil {
		t.Fatal(err)
	}
	return n.ino
}

// wantRank checks the files of a rank. They have the tensors and bytes of its plan, and the index
// names their files. No file has both experts and other tensors. It returns the inodes of the files
// without experts, in their order.
func wantRank(t *testing.T, f *FS, v View) (rest []uint64) {
	t.Helper()
	planned := map[string]adapter.Tensor{}
	for _, x := range v.Plan.Tensors {
		planned[x.Name] = x
	}
	names := shardsOf(t, f, v.Dir)
	index := map[string]string{}
	for _, name := range names {
		own := map[bool]bool{}
		for key, data := range cutTensors(t, readTree(t, f, name)) {
			x, ok := planned[key]
			if !ok || index[key] != "" {
				t.Errorf("%s: %s is not planned, or twice", name, key)
				continue
			}
			index[key] = path.Base(name)
			own[x.OfRank] = true
			want := make([]byte, x.Node.Size())
			if err := x.Node.ReadAt(nil, want, 0); err != nil || !bytes.Equal(data, want) {
				t.Errorf("%s: %s: other bytes than its recipe gives, error %v", name, key, err)
			}
		}
		if len(own) == 2 {
			t.Errorf("%s has both experts and other tensors", name)
		}
		if !own[true] {
			rest = append(rest, inode(t, f, name))
		}
	}
	if len(index) != len(planned) {
		t.Errorf("%s: %d tensors of %d", v.Dir, len(index), len(planned))
	}
	wantIndex(t, f, v.Dir, index)
	return rest
}

// In every layout of every family and format, the ranks have all their tensors, and have the files
// without experts in common.
func TestRanksShareTheFilesWithoutExperts(t *testing.T) {
	all := familyGoldens(t)
	maps.Copy(all, formatGoldens(t))
	shared, own := 0, 0
	for name, g := range all {
		t.Run(name, func(t *testing.T) {
			layouts := map[string]bool{}
			for view := range g.views {
				of, _, _ := strings.Cut(view, "-")
				layouts[of] = true
			}
			var views []View
			for of := range layouts {
				views = append(views, ranks(of, safetensors.BF16, 3)...)
			}
			c, err := adapter.Open(t.Context(), g.dir, adapter.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := adapter.NewPlan(c, views[0].Plan.Options); err != nil {
				if !strings.Contains(err.Error(), "leave --ep out") {
					t.Fatal(err)
				}
				return // a model whose experts are not known
			}
			f := openPlanned(t, c, Options{}, views)
			for of := range layouts {
				var first []uint64
				for r, v := range f.views {
					if v.Plan.Options.Layout != of {
						continue
					}
					got := wantRank(t, f, f.views[r])
					if first == nil {
						first = got
					}
					if !slices.Equal(got, first) {
						t.Errorf("%s: files %v, but %v in the first rank", v.Dir, got, first)
					}
					own += len(shardsOf(t, f, v.Dir)) - len(got)
				}
				shared += len(first)
			}
		})
	}
	if shared == 0 || own == 0 {
		t.Errorf("%d files are shared, and %d are not", shared, own)
	}
}

// expertsIn gives, for each shard of a directory, its name and whether it has experts.
func expertsIn(t *testing.T, f *FS, dir string) (names []string) {
	t.Helper()
	for _, name := range shardsOf(t, f, dir) {
		kind := ""
		for key := range cutTensors(t, readTree(t, f, name)) {
			kind = " rest"
			if strings.Contains(key, "mlp.experts.") {
				kind = " experts"
				break
			}
		}
		names = append(names, path.Base(name)+kind)
	}
	return names
}

func TestNamesOfTheShardsOfRanks(t *testing.T) {
	two := synth.Options{Layers: 2, Experts: 2, Shards: 2}
	one := synth.Options{Layers: 2, Experts: 2, Single: true}
	for name, test := range map[string]struct {
		options  synth.Options
		layout   string
		rank, of int
		want     []string
	}{
		"grouped": {two, "native", 0, 2, []string{"1-of-00004 experts", "2-of-00004 rest",
			"3-of-00004 rest", "4-of-00004 rest"}},
		"published": {two, "hf", 1, 2, []string{"1-of-00003 experts", "2-of-00003 rest",
			"3-of-00003 rest"}},
		"a rank without experts": {two, "hf", 2, 3, []string{"1-of-000002 rest", "2-of-000002 rest"}},
		"one file":               {one, "hf", 0, 2, []string{"1-of-00002 experts", "2-of-00002 rest"}},
		"one file, no experts":   {one, "hf", 2, 3, []string{"model.safetensors rest"}},
		"one rank":               {one, "hf", 0, 1, []string{"model.safetensors experts"}},
		"no ranks":               {two, "hf", 0, 0, []string{"1-of-000002 rest", "2-of-000002 experts"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir := writeSynth(t, test.options)
			v := layout("", test.layout, 0)
			v.Plan.Options.EP = adapter.EP{Rank: test.rank, Size: test.of}
			f := openViews(t, dir, Options{}, v)
			for i, want := range test.want {
				if !strings.HasPrefix(want, "model") {
					test.want[i] = "model-0000" + strings.Replace(want, " ", ".safetensors ", 1)
				}
			}
			if got := expertsIn(t, f, "."); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// A rank has the same files whether it is shown alone or beside the others.
func TestARankHasTheSameFilesAlone(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 3, Experts: 5, Shards: 3})
	for _, of := range []string{"native", "hf", "transformers"} {
		views := ranks(of, 0, 3)
		all := openViews(t, dir, Options{}, views...)
		for r, v := range views {
			v.Dir = ""
			alone := openViews(t, dir, Options{}, v)
			names := shardsOf(t, alone, ".")
			if got := shardsOf(t, all, rankDir(of, r)); len(got) != len(names) {
				t.Fatalf("%s: rank %d has %v alone, and %v beside others", of, r, names, got)
			}
			for _, name := range append(names, indexName) {
				beside := readTree(t, all, path.Join(rankDir(of, r), name))
				if !bytes.Equal(readTree(t, alone, name), beside) {
					t.Errorf("%s: rank %d: %s differs", of, r, name)
				}
			}
		}
	}
}

func TestShardSizeHoldsForTheFilesOfRanks(t *testing.T) {
	_, dir := writeSynth(t, awkward[0])
	const limit = 200 << 10
	views := ranks("native", 0, 2)
	for i := range views {
		views[i].ShardSize = limit
	}
	f := openViews(t, dir, Options{}, views...)
	rest := wantRank(t, f, f.views[0])
	if other := wantRank(t, f, f.views[1]); !slices.Equal(rest, other) || len(rest) < 3 {
		t.Errorf("the ranks have %v and %v without experts", rest, other)
	}
	for _, name := range shardsOf(t, f, views[0].Dir) {
		data := readTree(t, f, name)
		if n := len(cutTensors(t, data)); len(data) > limit && n > 1 {
			t.Errorf("%s: %d bytes in %d tensors", name, len(data), n)
		}
	}
}

// A file that is not certainly the same in another rank is not shared, whatever its tensors are
// called. All others are.
func TestFilesThatDifferAreNotShared(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 3, Experts: 4})
	const key = "model.layers.2.input_layernorm.weight"
	for name, change := range map[string]func(t *testing.T, x *adapter.Tensor, n expr.Node){
		"another recipe": func(_ *testing.T, x *adapter.Tensor, n expr.Node) { x.Node = n },
		"another dtype": func(t *testing.T, x *adapter.Tensor, _ expr.Node) {
			n, err := expr.Cast(x.Node, safetensors.F32)
			if err != nil {
				t.Fatal(err)
			}
			x.Node = n
		},
		"another name": func(_ *testing.T, x *adapter.Tensor, _ expr.Node) { x.Name += "s" },
		"experts":      func(_ *testing.T, x *adapter.Tensor, _ expr.Node) { x.OfRank = true },
	} {
		t.Run(name, func(t *testing.T) {
			c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			views := planned(t, c, ranks("native", 0, 3))
			tensors := views[1].Plan.Tensors
			other := slices.IndexFunc(tensors, func(x adapter.Tensor) bool {
				return x.Name == strings.Replace(key, "input", "post_attention", 1)
			})
			i := slices.IndexFunc(tensors, func(x adapter.Tensor) bool { return x.Name == key })
			change(t, &tensors[i], tensors[other].Node)
			f, err := New(c, views, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			defer f.Close()
			first, second, third := wantRank(t, f, f.views[0]), wantRank(t, f, f.views[1]),
				wantRank(t, f, f.views[2])
			if !slices.Equal(first, third) {
				t.Errorf("equal ranks have %v and %v", first, third)
			}
			differ := 0
			for i := range first {
				if first[i] != second[i] {
					differ++
				}
			}
			if differ != 1 || len(first) != 4 || len(second) != 4 {
				t.Errorf("%v and %v: %d files differ, want one of four", first, second, differ)
			}
		})
	}
}

// Layouts and dtypes never share by accident: what is shared is the same file.
func TestFilesOfOtherDTypesAreNotShared(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 2, Experts: 2})
	var views []View
	for _, d := range []safetensors.DType{safetensors.BF16, safetensors.F32} {
		for _, v := range ranks("hf", d, 2) {
			v.Dir = d.String() + "/" + v.Dir
			v.Plan.Options.Cast = adapter.CastAll
			views = append(views, v)
		}
	}
	f := openViews(t, dir, Options{}, views...)
	var all [][]uint64
	for _, v := range f.views {
		all = append(all, wantRank(t, f, v))
	}
	if !slices.Equal(all[0], all[1]) || !slices.Equal(all[2], all[3]) {
		t.Errorf("ranks differ: %v", all)
	}
	for _, ino := range all[0] {
		if slices.Contains(all[2], ino) {
			t.Errorf("BF16 and F32 share a file: %v", all)
		}
	}
}

// The file that follows another is right for every rank. From a shared file, it is a shared file.
func TestNoFileIsFollowedByThatOfAnotherRank(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 4, Experts: 4, Shards: 3})
	for _, of := range []string{"native", "hf"} {
		f := openViews(t, dir, Options{}, ranks(of, 0, 2)...)
		for r := range 2 {
			names := shardsOf(t, f, rankDir(of, r))
			for i, name := range names {
				var want uint64
				if i+1 < len(names) {
					want = inode(t, f, names[i+1])
				}
				if got := inodeAfter(f, name); got != want {
					t.Errorf("%s is followed by %d, want %d", name, got, want)
				}
			}
		}
	}
}

// inodeAfter returns the inode of the file that follows another; 0 is none.
func inodeAfter(f *FS, name string) uint64 {
	next := f.find(name).content.(*file).next
	if next == nil {
		return 0
	}
	return f.find(next.name).ino
}

// Where the names of the source put the experts between other files, no file is known to follow.
func TestAFileThatRanksFollowDifferentlyIsFollowedByNone(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 3, Experts: 2, Shards: 3})
	c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	views := planned(t, c, ranks("hf", 0, 2))
	shards := c.Shards()
	for _, v := range views {
		for i := range v.Plan.Tensors {
			x := &v.Plan.Tensors[i]
			switch {
			case x.OfRank:
				x.Group = shards[1]
			case x.Group == shards[1]:
				x.Group = shards[2]
			}
		}
	}
	f, err := New(c, views, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer f.Close()
	for r := range 2 {
		dir := rankDir("hf", r)
		if len(wantRank(t, f, f.views[r])) != 2 {
			t.Fatalf("%s has %v", dir, shardsOf(t, f, dir))
		}
		last := inode(t, f, path.Join(dir, shards[2]))
		for i, want := range []uint64{0, last, 0} {
			if got := inodeAfter(f, path.Join(dir, shards[i])); got != want {
				t.Errorf("%s/%s is followed by %d, want %d", dir, shards[i], got, want)
			}
		}
	}
}

// plan.json names the files as they are called in the rank's directory.
func TestThePlanNamesTheFilesOfEachRank(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 3, Experts: 2, Shards: 2})
	f := openViews(t, dir, Options{}, ranks("hf", 0, 3)...)
	for _, v := range f.describe() {
		var index struct {
			WeightMap map[string]string `json:"weight_map"`
		}
		if err := json.Unmarshal(readTree(t, f, path.Join(v.Dir, indexName)), &index); err != nil {
			t.Fatal(err)
		}
		for _, x := range v.Tensors {
			if x.File == "" || x.File != index.WeightMap[x.Name] {
				t.Errorf("%s: %s is in %q, by the index in %q", v.Dir, x.Name, x.File,
					index.WeightMap[x.Name])
			}
		}
	}
}

// The size of the tree has shared files once.
func TestSharedFilesCountOnce(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 3, Experts: 4})
	f := openViews(t, dir, Options{}, ranks("native", 0, 4)...)
	sizes, names := map[uint64]int64{}, map[uint64]int{}
	var walk func(n *node)
	walk = func(n *node) {
		for _, kid := range n.kids {
			if kid.content == nil {
				walk(kid)
				continue
			}
			sizes[kid.ino] = kid.content.Size()
			names[kid.ino]++
		}
	}
	walk(f.root)
	var total int64
	for ino, size := range sizes {
		total += size
		if names[ino] != 1 && names[ino] != 4 {
			t.Errorf("inode %d has %d names", ino, names[ino])
		}
	}
	if f.size != total || f.files != len(sizes) {
		t.Errorf("%d bytes in %d files, want %d in %d", f.size, f.files, total, len(sizes))
	}
	for _, name := range shardsOf(t, f, rankDir("native", 2)) {
		n := f.find(name)
		if n.links() != names[n.ino] {
			t.Errorf("%s has %d links, want %d", name, n.links(), names[n.ino])
		}
	}
}

// The reader of a shared file may be of any rank, so shared files are apart from those of a rank.
// Without ranks, the files of a directory are together.
func TestFilesThatAreReadTogether(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Layers: 3, Experts: 4, Shards: 2})
	views := append(ranks("hf", 0, 3), layout("whole", "hf", 0))
	f := openViews(t, dir, Options{}, views...)
	together := f.together()
	if len(together) != 5 {
		t.Fatalf("%d lists of files, want one of each rank, of what they share, and of the whole",
			len(together))
	}
	seen := map[string]bool{}
	for _, files := range together {
		var names []string
		for _, v := range files {
			if path.Dir(v.name) != path.Dir(files[0].name) || v.links != files[0].links ||
				seen[v.name] {
				t.Errorf("%s (%d links) is together with %s (%d links)", v.name, v.links,
					files[0].name, files[0].links)
			}
			seen[v.name] = true
			names = append(names, v.name)
		}
		if !slices.IsSorted(names) {
			t.Errorf("the files are read in the order %v", names)
		}
	}
	f.eachFile(func(_, _ string, v *file) {
		if !seen[v.name] {
			t.Errorf("%s is missing", v.name)
		}
	})
}
