package adapter_test

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// messages is a log that keeps its lines: "WARN text, key value".
type messages struct{ lines []string }

func (m *messages) Write(p []byte) (int, error) {
	m.lines = append(m.lines, strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (m *messages) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(m, &slog.HandlerOptions{ReplaceAttr: func(_ []string,
		a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// folderOf writes a source. Files with keys are shards, and the others are text.
func folderOf(t *testing.T, shards map[string][]string, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "config.json", []byte("{}"))
	for name, keys := range shards {
		write(t, filepath.Dir(filepath.Join(dir, name)), filepath.Base(name), shard(t, keys...))
	}
	for name, text := range texts {
		write(t, filepath.Dir(filepath.Join(dir, name)), filepath.Base(name), []byte(text))
	}
	return dir
}

// indexOf returns the text of an index.
func indexOf(t *testing.T, keys map[string]string, metadata map[string]any) string {
	t.Helper()
	b, err := (&safetensors.Index{WeightMap: keys, Metadata: metadata}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	whole   = "model.safetensors"
	overlay = "model-overlay-00001-of-00001.safetensors"
)

func TestWhichFilesAreTheModel(t *testing.T) {
	two := map[string]string{weight: shard1, head: shard2}
	for _, c := range []struct {
		name   string
		shards map[string][]string
		texts  map[string]string
		index  map[string]string
		want   []string // shard and key
		says   []string // each line has these words
	}{
		{
			name:   "the index names the newer of two copies",
			shards: map[string][]string{shard1: {bias, weight}, shard2: {head}, overlay: {weight}},
			index:  map[string]string{weight: overlay, bias: shard1, head: shard2},
			want:   []string{shard1 + " " + bias, shard2 + " " + head, overlay + " " + weight},
			says: []string{"WARN a tensor is in two shards: that of the index is shown " +
				weight + " " + overlay + " " + shard1},
		},
		{
			name:   "the index names the older of two copies",
			shards: map[string][]string{shard1: {weight}, shard2: {head, weight}},
			index:  two,
			want:   []string{shard1 + " " + weight, shard2 + " " + head},
			says:   []string{"WARN a tensor is in two shards " + weight + " " + shard2},
		},
		{
			name:   "several copies are one line",
			shards: map[string][]string{shard1: {weight, bias}, shard2: {head, weight, bias}},
			index:  map[string]string{weight: shard1, bias: shard1, head: shard2},
			want:   []string{shard1 + " " + weight, shard1 + " " + bias, shard2 + " " + head},
			says:   []string{"WARN two shards " + weight + " (and 1 more)"},
		},
		{
			name:   "a whole file beside an index whose shards are gone",
			shards: map[string][]string{whole: {weight, head}},
			index:  two,
			want:   []string{whole + " " + weight, whole + " " + head},
		},
		{
			name:   "a whole file beside an index whose shards are there",
			shards: map[string][]string{whole: {weight, head}, shard1: {weight}, shard2: {head}},
			index:  two,
			want:   []string{whole + " " + weight, whole + " " + head},
			says: []string{"WARN weights left out: " + shard1 + ", " + shard2 + " " + whole +
				" " + index},
		},
		{
			name:   "a whole file beside an index with one shard",
			shards: map[string][]string{whole: {weight, head}, shard2: {head}},
			index:  two,
			want:   []string{whole + " " + weight, whole + " " + head},
			says: []string{"WARN weights left out: " + shard2 + ": " + whole +
				" is the whole model"},
		},
		{
			name:   "a whole file that an index lists alone, with keys that are gone",
			shards: map[string][]string{whole: {weight}},
			index:  map[string]string{weight: whole, head: whole},
			want:   []string{whole + " " + weight},
		},
		{
			name: "a whole file that the index lists as one of two",
			shards: map[string][]string{whole: {weight}, "model_mtp.safetensors": {"mtp.fc.weight"},
				"more.safetensors": {head}},
			index: map[string]string{weight: whole, "mtp.fc.weight": "model_mtp.safetensors"},
			want:  []string{whole + " " + weight, "model_mtp.safetensors mtp.fc.weight"},
			says: []string{"WARN weights left out: more.safetensors: " + index +
				" does not list it"},
		},
		{
			name:   "a whole file beside an index that is not one",
			shards: map[string][]string{whole: {weight}},
			texts:  map[string]string{index: "[]"},
			want:   []string{whole + " " + weight},
			says:   []string{"WARN the index is not read " + whole + " bad index"},
		},
		{
			name:   "a whole file beside shards without an index",
			shards: map[string][]string{whole: {weight, head}, shard1: {weight}, shard2: {head}},
			want:   []string{whole + " " + weight, whole + " " + head},
			says:   []string{"WARN weights left out: " + shard1 + ", " + shard2 + ": " + whole},
		},
		{
			name: "a folder that is named like a whole file",
			shards: map[string][]string{shard1: {weight}, shard2: {head},
				whole + "/x.safetensors": {bias}},
			index: two,
			want:  []string{shard1 + " " + weight, shard2 + " " + head},
		},
		{
			name: "a folder that is named like a shard",
			shards: map[string][]string{shard1: {weight}, shard2: {head},
				"x.safetensors/x.safetensors": {bias}},
			want: []string{shard1 + " " + weight, shard2 + " " + head},
		},
		{
			name: "an adapter beside a whole file",
			shards: map[string][]string{whole: {weight},
				"adapter_model.safetensors": {"base_model.model.q_proj.lora_A.weight"}},
			texts: map[string]string{"adapter_config.json": "{}"},
			want:  []string{whole + " " + weight},
			says:  []string{"WARN weights left out: adapter_model.safetensors: an adapter"},
		},
		{
			name: "an adapter beside shards, also without an index",
			shards: map[string][]string{shard1: {weight}, shard2: {head},
				"adapter_model.safetensors": {weight}},
			want: []string{shard1 + " " + weight, shard2 + " " + head},
			says: []string{"WARN weights left out: adapter_model.safetensors: an adapter"},
		},
		{
			name: "variants beside shards",
			shards: map[string][]string{
				shard1: {weight}, shard2: {head},
				"model.fp16-00001-of-00002.safetensors": {weight}, "model.fp16-00002-of-00002.safetensors": {head},
				"model-00001-of-00001.bf16.safetensors": {weight, head}, "model.non_ema.safetensors": {weight},
			},
			want: []string{shard1 + " " + weight, shard2 + " " + head},
			says: []string{"WARN weights left out: model-00001-of-00001.bf16.safetensors, " +
				"model.fp16-00001-of-00002.safetensors, model.fp16-00002-of-00002.safetensors " +
				"and 1 more: a variant"},
		},
		{
			name: "one variant and nothing else",
			shards: map[string][]string{"model.fp16.safetensors": {weight},
				"adapter_model.safetensors": {weight}},
			want: []string{"model.fp16.safetensors " + weight},
			says: []string{"WARN weights left out: adapter_model.safetensors"},
		},
		{
			name: "names that look like variants and are not",
			shards: map[string][]string{"model.safetensors-00001-of-00002.safetensors": {weight},
				"model.safetensors-00002-of-00002.safetensors": {head}, "Qwen3.5-0.8B.safetensors": {bias}, "model.part1.safetensors": {"norm.weight"}},
			want: []string{"Qwen3.5-0.8B.safetensors " + bias,
				"model.part1.safetensors norm.weight", "model.safetensors-00001-of-00002.safetensors " + weight, "model.safetensors-00002-of-00002.safetensors " + head},
		},
		{
			name: "the format of Mistral beside shards",
			shards: map[string][]string{shard1: {weight}, shard2: {head},
				"consolidated.safetensors": {"layers.0.wq.weight"}},
			index: two,
			want:  []string{shard1 + " " + weight, shard2 + " " + head},
			says: []string{"INFO weights left out: consolidated.safetensors: the model in the " +
				"format of Mistral"},
		},
		{
			name: "a shard that the index does not list",
			shards: map[string][]string{shard1: {weight}, shard2: {head},
				"model-mtp-of-00001.safetensors": {"mtp.fc.weight"}},
			index: two,
			want:  []string{shard1 + " " + weight, shard2 + " " + head},
			says: []string{"WARN weights left out: model-mtp-of-00001.safetensors: " + index +
				" does not list it"},
		},
		{
			name: "a shard of another name that the index lists",
			shards: map[string][]string{shard1: {weight}, shard2: {head},
				"mtp.safetensors": {"mtp.fc.weight"}},
			index: map[string]string{weight: shard1, head: shard2,
				"mtp.fc.weight": "mtp.safetensors"},
			want: []string{shard1 + " " + weight, shard2 + " " + head,
				"mtp.safetensors mtp.fc.weight"},
		},
		{
			name:   "keys that the index does not list are one line",
			shards: map[string][]string{shard1: {weight, bias}, shard2: {head, "norm.weight"}},
			index:  two,
			want: []string{shard1 + " " + weight, shard1 + " " + bias, shard2 + " " + head,
				shard2 + " norm.weight"},
			says: []string{"WARN a tensor is not in the index " + shard1 + " " + bias +
				" (and 1 more)"},
		},
		{
			name: "shards counted from 0",
			shards: map[string][]string{"model-00000-of-00003.safetensors": {weight},
				"model-00001-of-00003.safetensors": {bias}, "model-00002-of-00003.safetensors": {head}},
			want: []string{"model-00000-of-00003.safetensors " + weight,
				"model-00001-of-00003.safetensors " + bias, "model-00002-of-00003.safetensors " + head},
		},
		{
			name: "shards counted from 0 to the last number",
			shards: map[string][]string{"model-0-of-2.safetensors": {weight},
				"model-1-of-2.safetensors": {bias}, "model-2-of-2.safetensors": {head}},
			want: []string{"model-0-of-2.safetensors " + weight, "model-1-of-2.safetensors " + bias,
				"model-2-of-2.safetensors " + head},
		},
		{
			name:   "config.json names the file",
			shards: map[string][]string{whole: {weight}, "other.safetensors": {head}},
			texts:  map[string]string{"config.json": `{"transformers_weights": "other.safetensors", "x": NaN}`},
			want:   []string{"other.safetensors " + head},
			says: []string{"WARN weights left out: " + whole + ": config.json says that the " +
				"weights are in other.safetensors"},
		},
		{
			name:   "config.json names the index",
			shards: map[string][]string{whole: {weight}, "other.safetensors": {head}},
			texts: map[string]string{
				"config.json":                  `{"transformers_weights": "other.safetensors.index.json"}`,
				"other.safetensors.index.json": `{"weight_map": {"head.weight": "other.safetensors"}}`,
			},
			want: []string{"other.safetensors " + head},
			says: []string{"WARN weights left out: " + whole + ": config.json says that the " +
				"weights are in other.safetensors.index.json"},
		},
		{
			name:   "config.json names nothing",
			shards: map[string][]string{whole: {weight}},
			texts:  map[string]string{"config.json": `{"transformers_weights": null}`},
			want:   []string{whole + " " + weight},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folderOf(t, c.shards, c.texts)
			if c.index != nil {
				writeIndex(t, dir, c.index)
			}
			var log messages
			checkpoint, err := adapter.Open(t.Context(), dir,
				adapter.OpenOptions{Logger: log.logger()})
			if err != nil {
				t.Fatal(err)
			}
			defer checkpoint.Close()
			if diff := cmp.Diff(c.want, keys(checkpoint)); diff != "" {
				t.Error(diff)
			}
			if len(checkpoint.SideFiles()) != 0 {
				t.Errorf("side files %v", checkpoint.SideFiles())
			}
			if len(log.lines) != len(c.says) {
				t.Fatalf("log: %q\nwant: %q", log.lines, c.says)
			}
			for i, words := range c.says {
				for _, w := range strings.Fields(words) {
					if !strings.Contains(log.lines[i], w) {
						t.Errorf("no %q in %s", w, log.lines[i])
					}
				}
			}
		})
	}
}

func TestWhereItCannotBeToldWhichFilesAreTheModel(t *testing.T) {
	numbered := func(names ...string) map[string][]string {
		m := map[string][]string{}
		for i, n := range names {
			m[n+".safetensors"] = []string{"k" + string(rune('a'+i))}
		}
		return m
	}
	for _, c := range []struct {
		name   string
		shards map[string][]string
		texts  map[string]string
		want   []string
	}{
		{"several variants", numbered("model.fp16", "model.bf16"), nil,
			[]string{"variants of the weights (bf16, fp16), but neither model.safetensors nor " +
				index, "as in model.bf16.safetensors"}},
		{"an adapter alone", numbered("adapter_model"), nil,
			[]string{"the only weights are adapter_model.safetensors: an adapter, not a model: " +
				"merge it"}},
		{"the format of Mistral alone", numbered("consolidated-00001-of-00001"), nil,
			[]string{"the only weights are consolidated-00001-of-00001.safetensors: the model in " +
				"the format of Mistral"}},
		{"two sets of the same model", map[string][]string{
			"model-00001-of-00001.safetensors": {weight, head}, shard1: {weight}, shard2: {head},
		}, nil,
			[]string{shard1 +
				`: tensor "layers.0.weight": it is also in model-00001-of-00001.safetensors, and no index says which one counts`}},
		{"from 0, one between is missing", numbered("model-00000-of-00003", "model-00002-of-00003"),
			nil,
			[]string{"1 of 3 shards is missing, about 68 bytes: model-00001-of-00003.safetensors"}},
		{"from 0, the last is missing", numbered("model-00000-of-00003", "model-00001-of-00003"),
			nil,
			[]string{"1 of 3 shards is missing, about 68 bytes: model-00002-of-00003.safetensors"}},
		{"from 1, the first is missing", numbered("model-00002-of-00003", "model-00003-of-00003"),
			nil,
			[]string{"1 of 3 shards is missing, about 68 bytes: model-00001-of-00003.safetensors"}},
		{"most are missing", numbered("model-00002-of-00009"), nil,
			[]string{"8 of 9 shards are missing: model-00001-of-00009.safetensors, " +
				"model-00003-of-00009.safetensors, model-00004-of-00009.safetensors and 5 more"}},
		{"config.json names a file elsewhere", numbered("model"),
			map[string]string{"config.json": `{"transformers_weights": "../x.safetensors"}`},
			[]string{`config.json: transformers_weights is "../x.safetensors": expected a *.safetensors or a *.safetensors.index.json file of the folder`}},
		{"config.json names an index elsewhere", numbered("model"),
			map[string]string{"config.json": `{"transformers_weights": "/x.safetensors.index.json"}`},
			[]string{`config.json: transformers_weights is "/x.safetensors.index.json": expected`}},
		{"config.json names another kind of file", numbered("model"),
			map[string]string{"config.json": `{"transformers_weights": "x.bin"}`},
			[]string{`config.json: transformers_weights is "x.bin": expected`}},
		{"config.json names a number", numbered("model"),
			map[string]string{"config.json": `{"transformers_weights": 5}`},
			[]string{`config.json: transformers_weights is not a string`}},
		{"config.json names a file that is missing", numbered("model"),
			map[string]string{"config.json": `{"transformers_weights": "x.safetensors"}`},
			[]string{"1 of 1 shards is missing: x.safetensors"}},
		{"config.json names an index that is missing", numbered("model"),
			map[string]string{"config.json": `{"transformers_weights": "x.safetensors.index.json"}`},
			[]string{"x.safetensors.index.json: missing"}},
	} {
		t.Run(c.name, func(t *testing.T) { refuses(t, folderOf(t, c.shards, c.texts), c.want...) })
	}
}

// TestMissingShardsAreCounted removes some of four shards. Each has 1,084 bytes, 1,000 of them
// data.
func TestMissingShardsAreCounted(t *testing.T) {
	names := []string{"model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors",
		"model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors"}
	for _, c := range []struct {
		name  string
		total any // of the index; nil: no index
		gone  []int
		want  string
	}{
		{"one by the index", 4000, []int{2}, ": 1 of 4 shards is missing, about 784 bytes: " + names[2]},
		{"three by the index", 4000, []int{0, 1, 3}, ": 3 of 4 shards are missing, about 2.9 kB: " + strings.Join([]string{names[0], names[1], names[3]}, ", ")},
		{"all by the index", 12_600_000_000, []int{0, 1, 2, 3}, ": 4 of 4 shards are missing, about 12.6 GB: " + strings.Join(names[:3], ", ") + " and 1 more"},
		{"the index's total is too small", 5, []int{1}, ": 1 of 4 shards is missing, about 1.1 kB: " + names[1]},
		{"the index's total is no number", "many", []int{1}, ": 1 of 4 shards is missing, about 1.1 kB: " + names[1]},
		{"the index's total is beyond reason", json.Number("1e300"), []int{1}, ": 1 of 4 shards is missing, about 1.1 kB: " + names[1]},
		{"one without an index", nil, []int{1}, ": 1 of 4 shards is missing, about 1.1 kB: " + names[1]},
		{"half without an index", nil, []int{0, 1}, ": 2 of 4 shards are missing, about 2.1 kB: " + names[0] + ", " + names[1]},
		{"most without an index", nil, []int{0, 1, 2}, ": 3 of 4 shards are missing: " + strings.Join(names[:3], ", ")},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folderOf(t, nil, nil)
			keys := map[string]string{}
			for i, name := range names {
				key := "k" + string(rune('a'+i))
				keys[key] = name
				if !slices.Contains(c.gone, i) {
					_, b,
						err := safetensors.NewHeader([]safetensors.Tensor{{Name: key,
						DType: safetensors.U8, Shape: []int64{1000}}}, nil, 4)
					if err != nil {
						t.Fatal(err)
					}
					write(t, dir, name, append(b, make([]byte, 1072-len(b))...))
				}
			}
			if c.total != nil {
				write(t, dir, index, []byte(indexOf(t, keys,
					map[string]any{"total_size": c.total})))
			}
			refuses(t, dir, c.want)
		})
	}
}

// TestLinksThatLeadNowhereAreMissingShards removes the blobs of some shards, as the cleaning of a
// cache does.
func TestLinksThatLeadNowhereAreMissingShards(t *testing.T) {
	dir := source(t, t.TempDir())
	for _, name := range []string{shard1, shard2} {
		remove(t, dir, name)
		link(t, "blobs/"+name, filepath.Join(dir, name))
	}
	refuses(t, dir, shard1+": its link leads to blobs/"+shard1+
		", which does not exist (and 1 more)")
	remove(t, dir, shard2)
	refuses(t, dir, "2 of 2 shards are missing: "+shard1+", "+shard2)
}

// plain writes a source of BF16 tensors, of no known family.
func plain(t *testing.T) string {
	t.Helper()
	dir := source(t, t.TempDir())
	write(t, dir, "config.json", []byte(`{"model_type":"frobnicate"}`))
	for name, keys := range map[string][]string{shard1: {weight, bias}, shard2: {head}} {
		var tensors []safetensors.Tensor
		for _, k := range keys {
			tensors = append(tensors, safetensors.Tensor{Name: k, DType: safetensors.BF16,
				Shape: []int64{2}})
		}
		_, b, err := safetensors.NewHeader(tensors, nil, 8)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, name, append(b, make([]byte, 4*len(keys))...))
	}
	return dir
}

func TestAWholeFileThatIsALinkToNowhereIsNotThere(t *testing.T) {
	dir := source(t, t.TempDir())
	link(t, "nowhere", filepath.Join(dir, whole))
	if got := open(t, dir).Shards(); !slices.Equal(got, []string{shard1, shard2}) {
		t.Errorf("%v", got)
	}
	remove(t, dir, index, shard1, shard2)
	refuses(t, dir, whole+": its link leads to nowhere, which does not exist")
}

func TestKeysThatNoShardHasAreRefusedUnlessTheViewLeavesThemOut(t *testing.T) {
	for _, c := range []struct {
		name    string
		absent  []string
		options adapter.Options
		want    string // empty: the view is shown
		note    bool
	}{
		{"one", []string{"more.weight"}, adapter.Options{}, `tensor "more.weight" should be in ` + shard1 + ", but no shard holds it: index and shards disagree", false},
		{"two", []string{"more.weight", "another.weight"}, adapter.Options{}, `tensor "another.weight" should be in ` + shard1 + ", but no shard holds it (and 1 more): index", false},
		{"excluded", []string{"more.weight", "more.bias"}, adapter.Options{Exclude: regexp.MustCompile(`more\.`)}, "", false},
		{"excluded with some that are there", []string{"head.more"}, adapter.Options{Exclude: regexp.MustCompile(`head`)}, "", false},
		{"excluded but for one", []string{"more.weight", "other.weight"}, adapter.Options{Exclude: regexp.MustCompile(`more\.`)}, `tensor "other.weight" should be`, false},
		{"not included", []string{"more.weight"}, adapter.Options{Include: regexp.MustCompile(`head`)}, "", false},
		{"included", []string{"head.more"}, adapter.Options{Include: regexp.MustCompile(`head`)}, `tensor "head.more" should be`, false},
		{"excluded where it does not begin", []string{"the.more.weight"}, adapter.Options{Exclude: regexp.MustCompile(`more\.`)}, `tensor "the.more.weight" should be`, false},
		{"a prediction layer", []string{"mtp.fc.weight"}, adapter.Options{}, `tensor "mtp.fc.weight" should be`, false},
		{"a prediction layer that is dropped", []string{"mtp.fc.weight"}, adapter.Options{MTP: "drop"}, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := plain(t)
			listed := map[string]string{weight: shard1, bias: shard1, head: shard2}
			for _, key := range c.absent {
				listed[key] = shard1
			}
			writeIndex(t, dir, listed)
			checkpoint := open(t, dir)
			c.options.Layout = "hf"
			plan, err := adapter.NewPlan(checkpoint, c.options)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want == "" && (len(plan.Notes) > 0) != c.note:
				t.Errorf("notes %q", plan.Notes)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), index+": "+c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAPatternThatExcludesNothingIsNoted(t *testing.T) {
	c := open(t, plain(t))
	for pattern, want := range map[string]int{"": 0, "eight": 1, ".*eight": 0, "weight": 1,
		"layers": 0} {
		o := adapter.Options{Layout: "hf"}
		if pattern != "" {
			o.Exclude = regexp.MustCompile(pattern)
		}
		plan, err := adapter.NewPlan(c, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(plan.Notes) != want || want == 1 &&
			!strings.Contains(plan.Notes[0], "exclude: the pattern matches the beginning of no "+
				"name in layout hf") {
			t.Errorf("%q: notes %q", pattern, plan.Notes)
		}
	}
}

func TestAPatternThatIncludesNothingIsNoted(t *testing.T) {
	c := open(t, plain(t))
	for pattern, want := range map[string]int{
		"": 0, "eight": 1, ".*eight": 0, "weight": 1, "layers": 0,
	} {
		o := adapter.Options{Layout: "hf"}
		if pattern != "" {
			o.Include = regexp.MustCompile(pattern)
		}
		plan, err := adapter.NewPlan(c, o)
		if err != nil {
			t.Fatal(err)
		}
		const note = "include: the pattern matches the beginning of no name in layout hf"
		if len(plan.Notes) != want || want == 1 && !strings.Contains(plan.Notes[0], note) {
			t.Errorf("%q: notes %q", pattern, plan.Notes)
		}
		if (len(plan.Tensors) == 0) != (want == 1) {
			t.Errorf("%q: %d tensors", pattern, len(plan.Tensors))
		}
	}
}

// TestTheSameFolderIsAlwaysReadTheSame opens a folder with files of every kind.
func TestTheSameFolderIsAlwaysReadTheSame(t *testing.T) {
	dir := folderOf(t, map[string][]string{
		shard1: {weight, bias, "x", "y"}, shard2: {head, weight, bias, "z"},
		"mtp.safetensors":           {"mtp.a", "mtp.b"},
		"adapter_model.safetensors": {"a"}, "model.fp16.safetensors": {"a"}, "consolidated.safetensors": {"a"}, "left.safetensors": {"a"},
	}, map[string]string{
		"tokenizer.json": "version https://git-lfs.github.com/spec/v1\n", "tokenizer.model": "", "vocab.txt": "Entry not found",
		"1_Pooling/config.json": "{}", "weights/x.safetensors": "", "deep/a/b/c/d.txt": "",
	})
	writeIndex(t, dir, map[string]string{weight: shard1, bias: shard2, head: shard2,
		"mtp.a": "mtp.safetensors", "gone.1": shard1, "gone.2": shard2, "gone.3": shard2})
	write(t, dir, "config.json", []byte(`{"model_type":"frobnicate"}`))
	var first []string
	for i := range 50 {
		var log messages
		c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{Logger: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		got := append(slices.Clone(log.lines), keys(c)...)
		for _, s := range c.SideFiles() {
			got = append(got, s.Name)
		}
		_, err = adapter.NewPlan(c, adapter.Options{Layout: "hf"})
		got = append(got, err.Error())
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = got
		}
		if diff := cmp.Diff(first, got); diff != "" {
			t.Fatalf("time %d: %s", i, diff)
		}
	}
	if len(first) < 20 {
		t.Errorf("too little to compare: %q", first)
	}
}

// withMetadata returns a shard with metadata in its header.
func withMetadata(t *testing.T, metadata map[string]string, keys ...string) []byte {
	t.Helper()
	plain := shard(t, keys...)
	h, err := safetensors.ReadHeader(strings.NewReader(string(plain)), int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	_, b, err := safetensors.NewHeader(h.Tensors, metadata, 8)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, plain[h.DataOffset:]...)
}

func TestPiecesOfTensorsAreRefused(t *testing.T) {
	const (
		rank1 = "shard-00001-model-00001-of-00001.safetensors"
		rank2 = "shard-00002-model-00001-of-00001.safetensors"
	)
	info := func(text string) map[string]string {
		return map[string]string{"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": text}
	}
	at := func(n ...int64) map[string]string {
		b, err := json.Marshal(map[string]any{weight: map[string]any{"saved_offsets": n}})
		if err != nil {
			t.Fatal(err)
		}
		return info(string(b))
	}
	const piece = `tensor "layers.0.weight": it is a piece that begins at [2 0] of the whole tensor, written by one rank of a distributed save: consolidate them first`
	for _, c := range []struct {
		name   string
		first  map[string]string
		second map[string]string // of a second file, or nil
		index  bool
		want   string // empty: it opens
	}{
		{"two pieces", at(0, 0), at(2, 0), false, rank2 + ": " + piece},
		{"two pieces, the other way round", at(2, 0), at(0, 0), false, rank1 + ": " + piece},
		{"two pieces with an index", at(0, 0), at(2, 0), true, rank2 + ": " + piece},
		{"the second piece alone", at(2, 0), nil, false, rank1 + ": " + piece},
		{"a whole tensor of a distributed save", at(0, 0), nil, false, ""},
		{"a scalar of a distributed save", at(), nil, false, ""},
		{"metadata of another tensor", info(`{"other": {"saved_offsets": [9, 9]}}`), nil, false, ""},
		{"metadata without pieces", info(`{}`), nil, false, ""},
		{"the same tensor twice, and no word of pieces", at(0, 0), map[string]string{}, false,
			rank2 + `: tensor "layers.0.weight": it is also in ` + rank1 +
				", and no index says which one counts: consolidate"},
		{"metadata that cannot be read", info(`{"a": 5}`), nil, false, rank1 + ": metadata: DCP_SHARDING_INFO: "},
		{"metadata that is not JSON", info(`pieces`), nil, false, rank1 + ": metadata: DCP_SHARDING_INFO: "},
		{"offsets that are not whole", info(`{"layers.0.weight": {"saved_offsets": [0.5]}}`), nil, false, rank1 + ": metadata: DCP_SHARDING_INFO: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folderOf(t, nil,
				map[string]string{rank1: string(withMetadata(t, c.first, weight))})
			if c.second != nil {
				write(t, dir, rank2, withMetadata(t, c.second, weight))
			}
			if c.index {
				writeIndex(t, dir, map[string]string{weight: rank1, head: rank2})
				write(t, dir, rank2, withMetadata(t, c.second, weight, head))
			}
			if c.want == "" {
				open(t, dir)
				return
			}
			refuses(t, dir, c.want)
		})
	}
}

// TestAPieceGivenAloneIsRefused checks that a single file as SOURCE does not avoid the check.
func TestAPieceGivenAloneIsRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "x.safetensors", withMetadata(t,
		map[string]string{"DCP_SHARDING_INFO": `{"head.weight": {"saved_offsets": [0, 1]}}`}, head))
	refuses(t, filepath.Join(dir, "x.safetensors"),
		"it is a piece that begins at [0 1] of the whole")
}

// TestEverySelectionCanBeOpenedAgainAlone copies the files of a view to a folder of their own. The
// tensors must be the same.
func TestEverySelectionCanBeOpenedAgainAlone(t *testing.T) {
	dir := folderOf(t, map[string][]string{
		"model-00000-of-00002.safetensors": {weight}, "model-00001-of-00002.safetensors": {head},
		"adapter_model.safetensors": {weight}, "model.fp16.safetensors": {weight, head}, "consolidated.00.safetensors": {"a"},
	}, nil)
	c := open(t, dir)
	alone := folderOf(t, nil, nil)
	for _, name := range c.Shards() {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, alone, name, data)
	}
	got := map[string]bool{}
	for _, k := range keys(open(t, alone)) {
		got[k] = true
	}
	if want := keys(c); len(want) != 2 || !maps.Equal(got,
		map[string]bool{want[0]: true, want[1]: true}) {
		t.Errorf("%v, alone %v", want, got)
	}
}

// aria2 first reserves the whole file. The gaps would be read as zeros.
func TestShardsThatAria2HasNotFinishedAreRefused(t *testing.T) {
	const first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
	dir := folderOf(t, map[string][]string{first: {weight}, second: {head}},
		map[string]string{second + ".aria2": "\x00\x01", "tokenizer.json.aria2": ""})
	refuses(t, dir, "1 of 2 shards are only partly downloaded, because a file *.aria2 is beside "+
		"them: "+second+": run the download again")
	refuses(t, filepath.Join(dir, second), "1 of 1 shards are only partly downloaded")
	open(t, filepath.Join(dir, first))
}
