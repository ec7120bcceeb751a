package safetensors_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

func TestParseIndex(t *testing.T) {
	x, err := safetensors.ParseIndex([]byte(`{"other":[1,{"a":2}],
		"metadata":{"total_size":688586727753,"f":1.5},
		"weight_map":{"b":"2.safetensors","a\u00e9":"1.safetensors"}}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &safetensors.Index{
		Metadata: map[string]any{"total_size": json.Number("688586727753"),
			"f": json.Number("1.5")},
		WeightMap: map[string]string{"b": "2.safetensors", "aé": "1.safetensors"},
	}
	if diff := cmp.Diff(want, x); diff != "" {
		t.Error(diff)
	}
}

func TestParseIndexRefuses(t *testing.T) {
	for _, c := range []struct{ name, index, want string }{
		{"nothing", "", "the text ends"},
		{"no object", "[]", "'{'"},
		{"no map", "{}", "no weight_map"},
		{"two maps", `{"weight_map":{},"weight_map":{}}`, "twice"},
		{"a key twice", `{"weight_map":{"a":"x","a":"x"}}`, `tensor "a" appears twice`},
		{"a number for a file", `{"weight_map":{"a":1}}`, "'\"'"},
		{"null for a map", `{"weight_map":null}`, "'{'"},
		{"a list for metadata", `{"metadata":[1],"weight_map":{}}`, "metadata"},
		{"rubbish behind", `{"weight_map":{}}{}`, "the end"},
		{"not UTF-8", "{\"\xff\":1}", "UTF-8"},
		{"deep", `{"x":` + strings.Repeat("[", 1000), "deeper"},
	} {
		if _, err := safetensors.ParseIndex([]byte(c.index)); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestIndexEncodesAsTheHubWritesIt(t *testing.T) {
	x := &safetensors.Index{
		Metadata:  map[string]any{"total_size": int64(12)},
		WeightMap: map[string]string{"b<": "2.safetensors", "a": "1.safetensors"},
	}
	got, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "metadata": {
    "total_size": 12
  },
  "weight_map": {
    "a": "1.safetensors",
    "b<": "2.safetensors"
  }
}
`
	if string(got) != want {
		t.Errorf("got %s", got)
	}
}

func TestIndexReadsBack(t *testing.T) {
	for _, x := range []*safetensors.Index{
		{WeightMap: map[string]string{}},
		{Metadata: map[string]any{"total_size": json.Number("3"), "more": "é\""}, WeightMap: map[string]string{"a\n": "\"x\""}},
	} {
		b, err := x.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b) {
			t.Errorf("no JSON: %s", b)
		}
		got, err := safetensors.ParseIndex(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(x.WeightMap, got.WeightMap); diff != "" {
			t.Error(diff)
		}
		if x.Metadata != nil && !cmp.Equal(x.Metadata, got.Metadata) {
			t.Errorf("metadata %v, want %v", got.Metadata, x.Metadata)
		}
	}
}

func TestIndexRefusesMetadataThatIsNoJSON(t *testing.T) {
	x := &safetensors.Index{Metadata: map[string]any{"f": func() {}}}
	if _, err := x.Encode(); err == nil {
		t.Error("no error")
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":1},"weight_map":{"a":"b"}}`))
	f.Add([]byte(`{"weight_map":{"\u00e9\ud83d\ude00":"../b"},"x":[1e5,null]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := safetensors.ParseIndex(b)
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Fatal("accepted what is no JSON")
		}
		enc, err := x.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := safetensors.ParseIndex(enc)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(x.WeightMap, again.WeightMap); diff != "" {
			t.Fatal(diff)
		}
	})
}

// BenchmarkIndex parses and writes an index of DeepSeek-V3's size.
func BenchmarkIndex(b *testing.B) {
	x := &safetensors.Index{WeightMap: map[string]string{}}
	for i := range 92_000 {
		x.WeightMap[fmt.Sprintf("model.layers.%d.mlp.experts.%d.gate_proj.weight",
			i/1500, i)] = fmt.Sprintf("model-%05d-of-00163.safetensors", i/565)
	}
	enc, err := x.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("parse", func(b *testing.B) {
		b.SetBytes(int64(len(enc)))
		for b.Loop() {
			_, _ = safetensors.ParseIndex(enc)
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(enc)))
		for b.Loop() {
			_, _ = x.Encode()
		}
	})
}

// TestLongMetadataIsWalkedOver checks that long metadata is skipped, because decoding it takes many
// times its size in memory.
func TestLongMetadataIsWalkedOver(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		kept  bool
	}{
		"short": {strings.Repeat("[],", 100) + "0", true},
		"long":  {strings.Repeat("[],", 100_000) + "0", false},
	} {
		x, err := safetensors.ParseIndex([]byte(`{"metadata":{"x":[` + c.value +
			`]},"weight_map":{"a":"1.safetensors"}}`))
		if err != nil || len(x.WeightMap) != 1 || (x.Metadata != nil) != c.kept {
			t.Errorf("%s: metadata of %d members, map of %d, %v",
				name, len(x.Metadata), len(x.WeightMap), err)
		}
	}
	for _, bad := range []string{`[` + strings.Repeat("[],", 100_000) + `0]`,
		`{"x":` + strings.Repeat("[],", 100_000) + "0}"} {
		if _,
			err := safetensors.ParseIndex([]byte(`{"metadata":` + bad +
			`,"weight_map":{}}`)); err == nil {
			t.Errorf("%.20s… is taken for metadata", bad)
		}
	}
}
