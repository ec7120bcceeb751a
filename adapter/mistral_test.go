package adapter

import (
	"bytes"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

const (
	params        = `{"dim": 64, "norm_eps": 1e-05, "quantization": {"qformat_weight": "fp8_e4m3"}, "vision_encoder": {"quantization_config": {}, "image_size": 1540}}`
	paramsInViews = `{
  "dim": 64,
  "norm_eps": 1e-05,
  "vision_encoder": {
    "image_size": 1540
  }
}
`
)

// mistralShards are the shards of a small model in Mistral's own layout, one weight in each.
func mistralShards(names ...string) map[string][]synth.Tensor {
	shards := map[string][]synth.Tensor{}
	for i, name := range names {
		module := "layers." + string(rune('0'+i)) + ".attention.wq"
		shards[name] = []synth.Tensor{stock(module+".weight", "F8_E4M3", 8, 64),
			stock(module+".qscale_weight", "F32"), stock(module+".qscale_act", "F32")}
	}
	return shards
}

// says checks the words of an error.
func says(t *testing.T, err error, words []string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestMistralsOwnLayoutHasHFAlone(t *testing.T) {
	c := openedAt(t, "../testdata/golden/formats/mistral_native")
	if got := Layouts(c); !slices.Equal(got, []string{LayoutHF}) || !c.IsMistral() {
		t.Errorf("layouts %v, own layout %v", got, c.IsMistral())
	}
	for _, l := range layouts {
		_, err := NewPlan(c, Options{Layout: l.Name})
		if l.Name == LayoutHF {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: a plan, want an error", l.Name)
			continue
		}
		says(t, err, []string{"layout " + l.Name, "Mistral's own layout",
			"params.json: ", "give --layout hf, or the same model in the format of transformers"})
	}
	if _, err := NewPlan(c, Options{Layout: "gguf"}); err == nil ||
		!strings.Contains(err.Error(), `unknown layout "gguf"`) {
		t.Errorf("an unknown layout: %v", err)
	}
}

func TestShardsOfMistralsOwnLayout(t *testing.T) {
	const one, two, whole = "consolidated-00001-of-00002.safetensors",
		"consolidated-00002-of-00002.safetensors", "consolidated.safetensors"
	listed := `{"weight_map": {"layers.0.attention.wq.weight": "` + two + `",
		"layers.0.attention.wq.qscale_weight": "` + two + `", "layers.0.attention.wq.qscale_act": "` + two + `"}}`
	for _, test := range []struct {
		name  string
		files []string
		index string
		want  []string // shards, or words of the error
	}{
		{"one", []string{whole}, "", []string{whole}},
		{"two", []string{two, one}, "", []string{one, two}},
		{"an index", []string{two}, listed, []string{two}},
		{"one is the whole", []string{whole, "consolidated-lora.safetensors"}, "", []string{whole}},
		{"one is missing", []string{one}, "", []string{"1 of 2 shards is missing", two}},
		{"one of the index is missing", []string{one}, listed, []string{"1 of 1 shards is missing", two}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := published{texts: map[string]string{"params.json": params},
				files: mistralShards(test.files...)}
			if test.index != "" {
				p.texts["consolidated.safetensors.index.json"] = test.index
			}
			c, err := Open(t.Context(), p.write(t), OpenOptions{})
			if err != nil {
				says(t, err, test.want)
				return
			}
			defer c.Close()
			if !slices.Equal(c.Shards(), test.want) || c.Stem() != "consolidated" {
				t.Errorf("shards %v with stem %q, want %v", c.Shards(), c.Stem(), test.want)
			}
		})
	}
}

func TestFilesLeftOutOfMistralsOwnLayoutAreNamed(t *testing.T) {
	var log bytes.Buffer
	p := published{texts: map[string]string{"params.json": params},
		files: mistralShards("consolidated.safetensors", "consolidated-old.safetensors")}
	c, err := Open(t.Context(), p.write(t),
		OpenOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if want := "weights left out: consolidated-old.safetensors: consolidated.safetensors is the " +
		"whole model"; !strings.Contains(log.String(), want) ||
		!strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log %q, want %q", &log, want)
	}
}

// params.json loses what it says of the quantization, beside a config.json too. All else is kept,
// and a file that says nothing of it passes byte for byte.
func TestParamsLoseTheQuantization(t *testing.T) {
	plain := map[string]string{"no quantization": `{"dim":64,"lora":[{"a":1.50}]}`,
		"no JSON": `{"quantization": `, "a list": `[{"quantization": 1}]`}
	for _, config := range []bool{false, true} {
		p := published{texts: map[string]string{"params.json": params, "tekken.json": "{}"},
			files: mistralShards("consolidated.safetensors")}
		if config {
			p.texts["config.json"] = `{"quantization_config": {"activation_scheme": "static"}}`
			p.files["model.safetensors"] = p.files["consolidated.safetensors"]
		}
		c := openedAt(t, p.write(t))
		plan, err := NewPlan(c, Options{Layout: LayoutHF})
		if err != nil {
			t.Fatal(err)
		}
		if string(plan.Params) != paramsInViews {
			t.Errorf("with config.json %v: got %s", config, plan.Params)
		}
		if len(c.side) != 1 || c.side[0].Name != "tekken.json" {
			t.Errorf("with config.json %v: side files %v", config, c.side)
		}
		for name, text := range plain {
			if name != "no quantization" && !config {
				continue // refused
			}
			p := published{texts: maps.Clone(p.texts), files: p.files}
			p.texts["params.json"] = text
			c := openedAt(t, p.write(t))
			plan, err := NewPlan(c, Options{Layout: LayoutHF})
			if err != nil {
				t.Fatal(err)
			}
			if plan.Params != nil || len(c.side) != 2 || c.side[0].Name != "params.json" {
				t.Errorf("%s: %q, side files %v", name, plan.Params, c.side)
			}
		}
	}
}

// The files that a view is computed from decide who may read it. A params.json that passes has
// permissions of its own.
func TestOnlyAParamsThatIsRewrittenIsASource(t *testing.T) {
	for text, want := range map[string]bool{params: true, `{"dim": 64}`: false} {
		c := openedAt(t,
			published{texts: map[string]string{"params.json": text, "config.json": "{}"},
				files: mistralShards("model.safetensors")}.write(t))
		is := func(f interface{ Name() string }) bool { return f.Name() == "params.json" }
		got := false
		for _, f := range c.read {
			got = got || is(f)
		}
		if got != want {
			t.Errorf("%s: a source of the view: %v, want %v", text, got, want)
		}
	}
}

func TestParamsOfMistralsOwnLayoutAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		`{"dim": `: "params.json: ", `[]`: "params.json: ", "": "params.json: empty",
		"version https://git-lfs.github.com/spec/v1\n": "params.json: a git-lfs pointer",
	} {
		p := published{texts: map[string]string{"params.json": text},
			files: mistralShards("consolidated.safetensors")}
		_, err := Open(t.Context(), p.write(t), OpenOptions{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// params.json may describe the quantization as config.json does, or in Mistral's own words.
func TestParamsDescribeTheQuantization(t *testing.T) {
	for _, field := range []string{"quantization", "quantization_config"} {
		p := published{texts: map[string]string{"params.json": `{"` + field + `": ` + ctNVFP4 +
			`}`},
			files: mistralShards("consolidated.safetensors")}
		q, err := readQuantization(openedAt(t, p.write(t)), nil)
		if err != nil || !q.there || q.method != "compressed-tensors" {
			t.Errorf("%s: %+v, %v", field, q, err)
		}
	}
	// A config.json beside it decides alone.
	p := published{texts: map[string]string{"config.json": "{}",
		"params.json": `{"quantization": ` + ctNVFP4 + `}`}, files: mistralShards("model.safetensors")}
	if q, err := readQuantization(openedAt(t, p.write(t)), nil); err != nil || q.there {
		t.Errorf("beside config.json: %+v, %v", q, err)
	}
}

// A folder that holds the model twice shows the format of transformers, under its names.
func TestBothFormatsShowThatOfTransformers(t *testing.T) {
	p := published{texts: map[string]string{"config.json": `{"model_type": "mistral"}`,
		"params.json": params},
		files: mistralShards("consolidated.safetensors")}
	p.files["model.safetensors"] = []synth.Tensor{stock("model.norm.weight", "BF16", 8)}
	dir := p.write(t)
	c := openedAt(t, dir)
	if c.IsMistral() || c.Stem() != "model" ||
		!slices.Equal(c.Shards(), []string{"model.safetensors"}) {
		t.Errorf("own layout %v, stem %q, shards %v", c.IsMistral(), c.Stem(), c.Shards())
	}
	if err := os.Remove(filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, OpenOptions{}); err == nil ||
		!strings.Contains(err.Error(), "the model in the format of Mistral") {
		t.Errorf("without shards of transformers: %v", err)
	}
}
