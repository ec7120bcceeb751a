package adapter

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/inmemory"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// opened writes a checkpoint and opens it.
func opened(t testing.TB, c *synth.Checkpoint) *Checkpoint {
	t.Helper()
	dir := inmemory.Dir(t)
	if err := c.Write(dir); err != nil {
		t.Fatal(err)
	}
	return openedAt(t, dir)
}

func openedAt(t testing.TB, dir string) *Checkpoint {
	t.Helper()
	c, err := Open(t.Context(), dir, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// dict gives a view as a value.
func dict(t *testing.T, c *Checkpoint, o Options) *StateDict {
	t.Helper()
	d, err := FromHF(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// content reads a whole tensor.
func content(t *testing.T, l *Lazy) []byte {
	t.Helper()
	b, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// equal compares a view with the tensors that it should have.
func equal(t *testing.T, d *StateDict, want []synth.Tensor) {
	t.Helper()
	names := map[string]bool{}
	for _, w := range want {
		names[w.Name] = true
		got, ok := d.Tensor(w.Name)
		if !ok {
			t.Errorf("%s: missing", w.Name)
			continue
		}
		if got.DType().String() != w.DType || !slices.Equal(got.Shape(), w.Shape) {
			t.Errorf("%s: %s %v, want %s %v", w.Name, got.DType(), got.Shape(), w.DType, w.Shape)
			continue
		}
		if b := content(t, got); !bytes.Equal(b, w.Data) {
			t.Errorf("%s: other bytes, the first at %d of %d", w.Name, firstDifference(b, w.Data),
				len(b))
		}
	}
	for l := range d.All() {
		if !names[l.Name()] {
			t.Errorf("%s: not expected", l.Name())
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

var dtypes = map[string]safetensors.DType{"BF16": safetensors.BF16, "F16": safetensors.F16,
	"F32": safetensors.F32}

// The reference's own results, as SHA-256 of each tensor.
func TestGoldenEqualsTheReference(t *testing.T) {
	raw, err := os.ReadFile("../testdata/golden/aligned-native-sha256.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden map[string]map[string][3]any
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for from, to := range map[string]string{"aligned-config.json": "config.json",
		"aligned-hf.safetensors": "model.safetensors"} {
		b, err := os.ReadFile(filepath.Join("../testdata/golden", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := openedAt(t, dir)
	for _, run := range slices.Sorted(maps.Keys(golden)) {
		name, _, _ := strings.Cut(run, "/")
		dtype := map[string]safetensors.DType{
			"torch.bfloat16": safetensors.BF16, "torch.float16": safetensors.F16, "torch.float32": safetensors.F32,
		}[name]
		t.Run(run, func(t *testing.T) {
			d := dict(t, c, Options{Layout: "native", DType: dtype})
			if d.Len() != len(golden[run]) {
				t.Errorf("%d tensors, want %d", d.Len(), len(golden[run]))
			}
			for l := range d.All() {
				want := golden[run][l.Name()]
				got := [3]any{"torch." + torchName[l.DType()], l.Shape(),
					fmt.Sprintf("%x", sha256.Sum256(content(t, l)))}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s: %v, want %v", l.Name(), got, want)
				}
			}
		})
	}
}

// awkward are sources whose shapes and numbers do not fit each other.
var awkward = map[string]synth.Options{
	"plain sizes":          {Hidden: 128, ExpertIntermediate: 64, MTP: 1, Shards: 2},
	"uneven":               {Layers: 2, Experts: 12, Hidden: 140, ExpertIntermediate: 70, DenseIntermediate: 130, MTP: 1, Shards: 3, ScalesApart: true},
	"tiny":                 {Experts: 12, Hidden: 8, ExpertIntermediate: 1, DenseIntermediate: 1, Heads: 1, QRank: 1, KVRank: 3, Nope: 1, Rope: 1, VHead: 1, Vocab: 5},
	"no prefix":            {Prefix: synth.NoPrefix, Experts: 3, Hidden: 130, ExpertIntermediate: 129},
	"language_model":       {Prefix: "language_model.", Hidden: 64, ExpertIntermediate: 200},
	"model.language_model": {Prefix: "model.language_model.", Hidden: 64, ExpertIntermediate: 32, Single: true},
	"BF16 scales":          {Scale: "BF16", Hidden: 150, ExpertIntermediate: 70},
	"E8M0 scales":          {Scale: "F8_E8M0", Hidden: 150, ExpertIntermediate: 70},
	"padded grids":         {PaddedGrid: 2, Hidden: 150, ExpertIntermediate: 140},
	"unquantized experts":  {PlainExperts: true, Hidden: 90, ExpertIntermediate: 50},
	"nothing quantized":    {Plain: true, Hidden: 90, ExpertIntermediate: 50},
	"other blocks":         {Block: [2]int64{25, 50}, Hidden: 90, ExpertIntermediate: 60},
	"all layers sparse":    {Dense: -1, Layers: 2, Experts: 1, Hidden: 64, ExpertIntermediate: 32},
	"weight_scale":         {ScaleSuffix: "_scale", Hidden: 64, ExpertIntermediate: 32},
}

// small gives sizes that do not matter little ones.
func small(o synth.Options) synth.Options {
	for _, v := range []*int64{&o.Vocab, &o.DenseIntermediate, &o.QRank} {
		if *v == 0 {
			*v = 24
		}
	}
	if o.Heads == 0 {
		o.Heads, o.Nope, o.Rope, o.VHead = 2, 12, 4, 12
	}
	return o
}

func TestViewsEqualTheOracle(t *testing.T) {
	t.Parallel()
	for name, o := range awkward {
		t.Run(name, func(t *testing.T) {
			s := synth.DeepSeek(small(o))
			c := opened(t, s)
			for dtype, d := range dtypes {
				equal(t, dict(t, c, Options{Layout: "native", DType: d}), s.Native(dtype, 0, 1))
				equal(t, dict(t, c, Options{Layout: "hf", DType: d}), s.HF(dtype))
			}
		})
	}
}

func TestRanksEqualTheOracle(t *testing.T) {
	t.Parallel()
	s := synth.DeepSeek(small(synth.Options{Experts: 5, Hidden: 70, ExpertIntermediate: 33,
		MTP: 1}))
	c := opened(t, s)
	for _, size := range []int{1, 2, 3, 7} {
		for rank := range size {
			equal(t, dict(t, c, Options{Layout: "native", EP: EP{rank, size}}),
				s.Native("BF16", rank, size))
			equal(t, dict(t, c, Options{Layout: "hf", EP: EP{rank, size}}),
				ofRank(s.HF("BF16"), 5, rank, size))
		}
	}
}

// ofRank leaves the experts of other ranks out.
func ofRank(ts []synth.Tensor, experts, rank, size int) []synth.Tensor {
	lo, hi := EP{rank, size}.Range(experts)
	re := regexp.MustCompile(`\.experts\.(\d+)\.`)
	return slices.DeleteFunc(ts, func(t synth.Tensor) bool {
		m := re.FindStringSubmatch(t.Name)
		if m == nil {
			return false
		}
		n, _, _ := number(m[1])
		return n < lo || n >= hi
	})
}

// grouping stacks published experts by hand: bytes put behind each other.
func grouping(ts []synth.Tensor, names [roles]string) []synth.Tensor {
	byName := map[string]synth.Tensor{}
	for _, t := range ts {
		byName[t.Name] = t
	}
	re := regexp.MustCompile(`^(.*\.mlp\.experts\.)0\.gate_proj\.weight$`)
	var out []synth.Tensor
	for _, t := range ts {
		if !strings.Contains(t.Name, ".mlp.experts.") {
			out = append(out, t)
			continue
		}
		m := re.FindStringSubmatch(t.Name)
		if m == nil {
			continue
		}
		groups := map[string]*synth.Tensor{}
		for e := 0; ; e++ {
			if _, ok := byName[fmt.Sprintf("%s%d.up_proj.weight", m[1], e)]; !ok {
				break
			}
			for r, proj := range []string{"gate_proj", "up_proj", "down_proj"} {
				one := byName[fmt.Sprintf("%s%d.%s.weight", m[1], e, proj)]
				g := groups[names[r]]
				if g == nil {
					g = &synth.Tensor{Name: m[1] + names[r], DType: one.DType,
						Shape: []int64{0, 0, one.Shape[1]}}
					groups[names[r]] = g
				}
				g.Shape[0] = int64(e + 1)
				if e == 0 {
					g.Shape[1] += one.Shape[0]
				}
				g.Data = append(g.Data, one.Data...)
			}
		}
		for _, g := range groups {
			out = append(out, *g)
		}
	}
	return out
}

func TestGroupedLayoutsEqualStackingByHand(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Experts: 12, Hidden: 70, ExpertIntermediate: 33,
		MTP: 1}))
	c := opened(t, s)
	want := grouping(s.HF("BF16"), [roles]string{"gate_up_proj", "gate_up_proj", "down_proj"})
	equal(t, dict(t, c, Options{Layout: "transformers"}), want)

	d := dict(t, c, Options{Layout: "torchtitan"})
	for _, w := range grouping(s.HF("BF16"), [roles]string{"w1_EFD", "w3_EFD", "w2_EDF"}) {
		head, name, ok := strings.Cut(w.Name, "mlp.experts.")
		if !ok {
			continue
		}
		head = strings.Replace(strings.TrimPrefix(head, "model."), "layers.3.", "mtp_layers.0.", 1)
		got, ok := d.Tensor(head + "moe.routed_experts.inner_experts." + name)
		if !ok {
			t.Errorf("%s: missing", w.Name)
			continue
		}
		if !slices.Equal(got.Shape(), w.Shape) || !bytes.Equal(content(t, got), w.Data) {
			t.Errorf("%s: %v with other bytes than %v", got.Name(), got.Shape(), w.Shape)
		}
	}
}

// regrouped makes a source whose experts are grouped of the tensors of a view.
func regrouped(s *synth.Checkpoint, ts []synth.Tensor) *synth.Checkpoint {
	config := maps.Clone(s.Config)
	delete(config, "quantization_config")
	return &synth.Checkpoint{Config: config, Tensors: ts}
}

func TestGroupedSourcesAreTakenApart(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Experts: 12, Hidden: 70, ExpertIntermediate: 33,
		MTP: 1}))
	hf, native := s.HF("BF16"), s.Native("BF16", 0, 1)
	transformers := grouping(s.HF("BF16"),
		[roles]string{"gate_up_proj", "gate_up_proj", "down_proj"})
	for name, source := range map[string][]synth.Tensor{"native": native,
		"transformers": transformers} {
		t.Run(name, func(t *testing.T) {
			c := opened(t, regrouped(s, source))
			equal(t, dict(t, c, Options{Layout: "hf"}), hf)
			equal(t, dict(t, c, Options{Layout: "hf", EP: EP{1, 5}}),
				ofRank(slices.Clone(hf), 12, 1, 5))
			equal(t, dict(t, c, Options{Layout: "native"}), native)
			equal(t, dict(t, c, Options{Layout: "native", EP: EP{2, 5}}), s.Native("BF16", 2, 5))
			equal(t, dict(t, c, Options{Layout: "native", EP: EP{12, 13}}),
				s.Native("BF16", 12, 13))
			equal(t, dict(t, c, Options{Layout: "transformers"}), transformers)
			equal(t, dict(t, c, Options{Layout: "native", DType: safetensors.F32}),
				nativeOf(s, "F32"))
		})
	}
}

// nativeOf merges the BF16 values of a checkpoint into tensors of another dtype.
func nativeOf(s *synth.Checkpoint, dtype string) []synth.Tensor {
	plain := regrouped(s, s.HF("BF16"))
	return plain.Native(dtype, 0, 1)
}

func TestPredictionLayersAreKeptOrDropped(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{MTP: 1, Hidden: 64, ExpertIntermediate: 32}))
	c := opened(t, s)
	without := slices.DeleteFunc(s.Native("BF16", 0, 1),
		func(t synth.Tensor) bool { return strings.HasPrefix(t.Name, "model.layers.3.") })
	d := dict(t, c, Options{Layout: "native", MTP: "drop"})
	equal(t, d, without)
	if !bytes.Contains(d.Plan.Config, []byte(`"num_nextn_predict_layers": 0`)) {
		t.Errorf("config.json still has prediction layers:\n%s", d.Plan.Config)
	}
	for _, a := range d.Plan.Account {
		if dropped := a.Fate == Dropped; dropped != strings.HasPrefix(a.Key, "model.layers.3.") ||
			dropped != (a.Reason != "") {
			t.Errorf("%+v", a)
		}
	}
	equal(t, dict(t, c, Options{Layout: "native", MTP: "keep"}), s.Native("BF16", 0, 1))
	if len(d.Plan.Notes) > 0 {
		t.Errorf("notes %q", d.Plan.Notes)
	}

	s = synth.DeepSeek(small(synth.Options{Hidden: 64, ExpertIntermediate: 32}))
	d = dict(t, opened(t, s), Options{Layout: "native", MTP: "drop"})
	equal(t, d, s.Native("BF16", 0, 1))
	if len(d.Plan.Notes) != 1 ||
		!strings.Contains(d.Plan.Notes[0], "no multi-token-prediction layers") {
		t.Errorf("notes %q, want one about layers that are not there", d.Plan.Notes)
	}
}

func TestExcludedTensorsAreLeftOut(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Hidden: 64, ExpertIntermediate: 32}))
	c := opened(t, s)
	re := regexp.MustCompile(`model\.layers\.\d+\.mlp\.|lm_head|layers`)
	d := dict(t, c, Options{Layout: "native", Exclude: re})
	match := regexp.MustCompile(`^(?:` + re.String() + `)`)
	equal(t, d, slices.DeleteFunc(s.Native("BF16", 0, 1),
		func(t synth.Tensor) bool { return match.MatchString(t.Name) }))
	for _, a := range d.Plan.Account {
		if want := match.MatchString(a.Key); (a.Fate == Dropped) != want {
			t.Errorf("%+v", a)
		}
	}
}

func TestOnlyIncludedTensorsAreShown(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Hidden: 64, ExpertIntermediate: 32}))
	c := opened(t, s)
	include, exclude := regexp.MustCompile(`model\.layers\.\d+\.mlp\.|lm_head|layers`),
		regexp.MustCompile(`.*gate`)
	d := dict(t, c, Options{Layout: "hf", Include: include, Exclude: exclude})
	match := regexp.MustCompile(`^(?:` + include.String() + `)`)
	shown := func(name string) bool {
		return match.MatchString(name) && !strings.Contains(name, "gate")
	}
	if len(d.Plan.Tensors) == 0 || len(d.Plan.Notes) > 0 {
		t.Errorf("%d tensors, notes %q", len(d.Plan.Tensors), d.Plan.Notes)
	}
	for _, v := range d.Plan.Tensors {
		if !shown(v.Name) {
			t.Errorf("%s is shown", v.Name)
		}
	}
	for _, a := range d.Plan.Account {
		if want := !shown(a.Key); (a.Fate == Dropped) != want {
			t.Errorf("%+v", a)
		}
	}
}

func TestEverySourceKeyIsAccountedFor(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Experts: 3, Hidden: 150, ExpertIntermediate: 32,
		Shards: 2, ScalesApart: true}))
	c := opened(t, s)
	for _, layout := range []string{"native", "hf", "transformers", "torchtitan"} {
		p, err := NewPlan(c, Options{Layout: layout})
		if err != nil {
			t.Fatal(err)
		}
		uses := map[string]int{}
		names := map[string]bool{}
		for _, x := range p.Tensors {
			if names[x.Name] || x.Group == "" {
				t.Errorf("%s: %s twice or without group", layout, x.Name)
			}
			names[x.Name] = true
		}
		for i, a := range p.Account {
			if a.Key != c.Tensors()[i].Key {
				t.Fatalf("%s: account %d is of %s, want %s", layout, i, a.Key, c.Tensors()[i].Key)
			}
			if a.Fate == Dropped {
				t.Errorf("%s: %s dropped: %s", layout, a.Key, a.Reason)
			}
			if quantized := strings.Contains(a.Key, "_scale_inv"); quantized && a.Fate != Used {
				t.Errorf("%s: %+v", layout, a)
			}
			for _, n := range a.Into {
				uses[n]++
				if !names[n] {
					t.Errorf("%s: %s goes into %s, which is not there", layout, a.Key, n)
				}
			}
		}
		for n := range names {
			if uses[n] == 0 {
				t.Errorf("%s: nothing goes into %s", layout, n)
			}
		}
	}
}

func TestFileGroups(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 12, Experts: 2, Hidden: 16,
		ExpertIntermediate: 8, MTP: 1, Shards: 3}))
	c := opened(t, s)
	groups := func(layout string) []string {
		p, err := NewPlan(c, Options{Layout: layout})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, x := range p.Tensors {
			all = append(all, x.Group)
		}
		return slices.Compact(all)
	}
	want := []string{"rest-00000"}
	for i := range 13 {
		want = append(want, fmt.Sprintf("layer-%05d", i))
	}
	if got := groups("native"); !slices.Equal(got, want) {
		t.Errorf("native: %v, want %v", got, want)
	}
	if got := groups("hf"); !slices.Equal(got, c.Shards()) {
		t.Errorf("hf: %v, want %v", got, c.Shards())
	}
}

func TestOneFileWithoutConfig(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Layers: 2, Experts: 2, Hidden: 16,
		ExpertIntermediate: 8, Single: true}))
	dir := t.TempDir()
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	c := openedAt(t, filepath.Join(dir, "model.safetensors"))
	d := dict(t, c, Options{})
	equal(t, d, s.HF("BF16"))
	if d.Plan.Config != nil {
		t.Errorf("a config.json out of nowhere: %s", d.Plan.Config)
	}
	if _, err := NewPlan(c, Options{Layout: "native"}); err == nil ||
		!strings.Contains(err.Error(), "--layout hf, which works for every model") {
		t.Errorf("error %v, want one that says what works", err)
	}
}

func TestPlansAtOnce(t *testing.T) {
	s := synth.DeepSeek(small(synth.Options{Experts: 3, Hidden: 30, ExpertIntermediate: 20,
		MTP: 1}))
	c := opened(t, s)
	var wg sync.WaitGroup
	for _, layout := range []string{"native", "hf", "transformers", "torchtitan", "hf-fp8",
		"native", "hf"} {
		for _, d := range dtypes {
			wg.Go(func() {
				if _, err := NewPlan(c, Options{Layout: layout, DType: d}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	equal(t, dict(t, c, Options{Layout: "native"}), s.Native("BF16", 0, 1))
}
