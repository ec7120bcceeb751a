package export

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter/readback"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// recorded reads a file that the first version wrote.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../testdata/records", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// readManifestText reads a manifest from a directory without other files.
func readManifestText(t testing.TB, text string) (*Manifest, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, stateDir), 0o777); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, stateDir, manifestName)
	if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return ReadManifest(dir)
}

func TestManifestsOfTheFirstVersionAreRead(t *testing.T) {
	data := recorded(t, "manifest.json")
	m, err := readManifestText(t, string(data))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Views) != 2 || len(m.Files) != 14 || m.Files[3].Tensors == nil {
		t.Errorf("%+v", m)
	}
	again, err := m.encode()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("encoding it again gives another text: %v\n%s", err, again)
	}

	begun := new(Manifest)
	err = readback.Decode(bytes.NewReader(recorded(t, "export.json")), begun, readback.Limits{})
	if err != nil || begun.check(false) != nil {
		t.Errorf("%v, %v", err, begun.check(false))
	}
	r := new(FileRecord)
	err = readback.Decode(bytes.NewReader(recorded(t, "record.json")), r, readback.Limits{})
	if err != nil || r.check(true) != nil {
		t.Errorf("%v, %v", err, r.check(true))
	}
}

// edits change the manifest of the first version. No export writes the results.
var edits = []struct {
	name     string
	old, new string // the first match of the regular expression old is replaced
	want     string
}{
	{"an empty object", `(?s).*`, `{}`, "version is missing"},
	{"null", `(?s).*`, `null`, "found null"},
	{"a list", `(?s).*`, `[]`, `found "["`},
	{"nothing", `(?s).*`, ``, "unexpected EOF"},
	{"no files", `(?s)"files": \[.*\]`, `"files": []`, "it names no file"},
	{"files are null", `(?s)"files": \[.*\]`, `"files": null`, "files: byte"},
	{"no views", `"views": \[.*\]`, `"views": []`, "it names no view"},
	{"version 99", `"version": 1`, `"version": 99`,
		"a manifest of version 99, which another version of dequantfs wrote: " +
			"this one reads version 1"},
	{"version 0", `"version": 1`, `"version": 0`, "version 0"},
	{"a later version with another field", `"version": 1`, `"version": 2, "seal": "x"`,
		"a manifest of version 2"},
	{"a version that is a string", `"version": 1`, `"version": "1"`,
		`version: byte 16: expected a number, found "1"`},
	{"an unknown field", `"version": 1`, `"version": 1, "seal": "x"`, "seal: byte"},
	{"an unknown field of a tensor", `"begin"`, `"start"`, "start: byte"},
	{"a field in capitals", `"sha256"`, `"SHA256"`, "SHA256: byte"},
	{"a source that is not a sum", `"source": "7`, `"source": "x`, "source: "},
	{"a name outside the directory", `"hf/config.json"`, `"../config.json"`,
		`"../config.json": not the name`},
	{"an absolute name", `"hf/config.json"`, `"/etc/passwd"`, `"/etc/passwd": not the name`},
	{"a name with a dot in it", `"hf/config.json"`, `"hf/./config.json"`, `not the name`},
	{"a hidden name", `"hf/config.json"`, `".dequantfs/manifest.json"`, `not the name`},
	{"a name with a line end", `"hf/config.json"`, `"hf/a\nb"`, `not the name`},
	{"a name with a backslash", `"hf/config.json"`, `"hf\\config.json"`, `not the name`},
	{"an empty name", `"hf/config.json"`, `""`, `not the name`},
	{"a name twice", `"hf/generation_config.json"`, `"hf/config.json"`,
		`"hf/config.json" does not come after "hf/config.json"`},
	{"names out of order", `"hf/config.json"`, `"hf/z.json"`, `does not come after "hf/z.json"`},
	{"a file in a file", `"hf/generation_config.json"`, `"hf/config.json/x"`,
		`"hf/config.json" is both a file and a directory`},
	{"a file in no view", `"hf/config.json"`, `"config.json"`, `"config.json" is in no view`},
	{"a view without files", `"directory":"hf"`, `"directory":"h"`, `is in no view`},
	{"a view twice", `"directory":"native"`, `"directory":"hf"`, `"hf" is there twice`},
	{"a view outside the directory", `"directory":"native"`, `"directory":"../x"`,
		`"../x": not the name of a directory`},
	{"a view of an unknown dtype", `"dtype":"BF16","ep_rank"`, `"dtype":"BF17","ep_rank"`, `BF17`},
	{"a view of a rank that does not exist", `"ep_rank":0`, `"ep_rank":1`,
		`there is no rank 1 of 0`},
	{"a view of no layout", `"layout":"native"`, `"layout":"N A"`, `"N A"`},
	{"shards of a negative size", `"shard_size":0`, `"shard_size":-1`, `-1 bytes`},
	{"a negative size", `"size":892`, `"size":-892`, `-892 bytes`},
	{"sizes that overflow", `"size":892`, `"size":9223372036854775807`,
		`more bytes than there can be`},
	{"a file without a sum", `,"sha256":"[0-9a-f]+"\}`, `}`, `sha256: "" is not a SHA-256`},
	{"a sum that is too short", `"sha256":"83e2`, `"sha256":"`, `is not a SHA-256`},
	{"a sum in capitals", `"sha256":"83e2`, `"sha256":"83E2`, `is not a SHA-256`},
	{"tensors of a file without tensors", `("hf/config.json".*)\}`,
		`$1,"tensors":[{"name":"a","dtype":"U8","shape":[882],"begin":10,"end":892,` +
			`"sha256":"` + strings.Repeat("0", 64) + `"}]}`,
		"is not a safetensors file"},
	{"an empty list of tensors", `("hf/config.json".*)\}`, `$1,"tensors":[]}`, "an empty list"},
	{"a tensor that ends far beyond the file", `"end":4352`, `"end":1099511632128`,
		`"model.embed_tokens.weight": it ends at byte 1099511632128`},
	{"a tensor that ends before it begins", `"end":4352`, `"end":5`, `it ends at byte 5`},
	{"a tensor that begins elsewhere", `"begin":4352`, `"begin":4353`,
		`it begins at byte 4353, not at 4352`},
	{"a first tensor within the header", `"begin":4096,"end":4352`, `"begin":0,"end":256`,
		`within the header`},
	{"a tensor that is too small", `"shape":\[8,16\]`, `"shape":[8,15]`, `takes 240 bytes`},
	{"a negative dimension", `"shape":\[8,16\]`, `"shape":[-8,-16]`, `negative dimension`},
	{"a shape that overflows", `"shape":\[8,16\]`,
		`"shape":[9223372036854775807,9223372036854775807]`, `overflows`},
	{"a tensor of too many dimensions", `"shape":\[8,16\]`,
		`"shape":[8,16` + strings.Repeat(",1", 63) + `]`, `more than 64 elements`},
	{"an unknown dtype", `"dtype":"BF16","shape"`, `"dtype":"bf16","shape"`,
		`unknown dtype "bf16"`},
	{"a tensor without a sum", `"end":4352,"sha256":"[0-9a-f]+"`, `"end":4352,"sha256":""`,
		`sha256: "" is not a SHA-256`},
	{"a tensor without a name", `"name":"model.embed_tokens.weight"`, `"name":""`,
		`a name of 0 bytes`},
	{"a tensor twice", `"name":"model.layers.0.input_layernorm.weight"`,
		`"name":"model.embed_tokens.weight"`, `is there twice`},
	{"a file longer than its tensors", `"size":209568`, `"size":209569`,
		`the last tensor ends at byte 209568, the file at 209569`},
	{"bytes after its end", `\}\n$`, "}\n{}", "something follows the end"},
	{"a truncated manifest", `(?s).{100}$`, "", "unexpected EOF"},
}

func TestManifestsThatNoExportWritesAreRefused(t *testing.T) {
	text := string(recorded(t, "manifest.json"))
	for _, e := range edits {
		t.Run(e.name, func(t *testing.T) {
			re := regexp.MustCompile(e.old)
			at := re.FindStringSubmatchIndex(text)
			if at == nil {
				t.Fatalf("%s does not match", e.old)
			}
			edited := text[:at[0]] + string(re.ExpandString(nil, e.new, text, at)) + text[at[1]:]
			_, err := readManifestText(t, edited)
			if !mentions(err, e.want, manifestName, "export again, or compare with the source") {
				t.Errorf("error %v, want one with %q, the file and the way out", err, e.want)
			}
		})
	}
}

func TestFilesBoundTheSizeOfTheirManifest(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, stateDir, manifestName)
	write(t, name, string(recorded(t, "manifest.json")))
	long := func() error {
		if err := os.Truncate(name, manifestBytes+1); err != nil {
			t.Fatal(err)
		}
		_, err := ReadManifest(dir)
		return err
	}
	if err := long(); !mentions(err, "67108865 bytes, more than the 67108864 that it may have") {
		t.Errorf("a long manifest without files: %v", err)
	}
	// With a file of a long header, the manifest is read, and refused because of its zeros.
	head := make([]byte, 16)
	head[2] = 1
	write(t, filepath.Join(dir, "a.safetensors"), string(head))
	if err := os.Truncate(filepath.Join(dir, "a.safetensors"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := long(); !mentions(err, "invalid character") && !mentions(err, "follows the end") {
		t.Errorf("a long manifest with a file: %v", err)
	}
	if err := os.Truncate(name, 1<<42); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadManifest(dir); err == nil || !strings.Contains(err.Error(), "more than the") {
		t.Errorf("a manifest of terabytes: %v", err)
	}
}

// The manifest of DeepSeek-V3 has 92,000 tensors. This one has 50,000 in one file.
func TestAManifestOfManyTensorsTakesLittleMemory(t *testing.T) {
	const n = 50_000
	f := FileRecord{Name: "a.safetensors", Size: 4096 + n*256, SHA256: sumOf("header")}
	for i := range n {
		at := int64(4096 + i*256)
		f.Tensors = append(f.Tensors, TensorRecord{
			Name:  fmt.Sprintf("model.layers.%d.mlp.experts.%d.gate_proj.weight", i/256, i%256),
			DType: "BF16", Shape: []int64{8, 16},
			Begin: at, End: at + 256, SHA256: sumOf(fmt.Sprint(i)),
		})
	}
	m := Manifest{
		Version: 1, Source: sumOf("source"),
		Views: []ViewRecord{{Layout: "hf", DType: "BF16", MTP: "auto", Scales: "amax"}},
		Files: []FileRecord{f},
	}
	text, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	got, err := readManifestText(t, string(text))
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 3*int64(len(text)) {
		t.Errorf("%d bytes kept of a manifest of %d", kept, len(text))
	}
	if d := cmp.Diff(&m, got); d != "" {
		t.Error(d)
	}
}

func TestNamesOfAnExport(t *testing.T) {
	for name, want := range map[string]bool{
		"config.json": true, "hf/config.json": true, "1_Pooling/config.json": true,
		"rank-0-of-8/hf/ü \U0001F600.json": true, "lost+found": true,
		strings.Repeat("a", 255): true, strings.Repeat("a", 256): false,
		strings.Repeat("a/", 2100) + "a": false, "": false,
		".": false, "..": false, "/a": false, "a/": false, "a//b": false,
		"a/../b": false, "a/.b": false, ".git/config": false, "a\\b": false,
		"a\x00b": false, "a\x1b[31m": false, "a\u0085b": false, "a\xff": false,
	} {
		if got := validName(name); got != want {
			t.Errorf("%.40q: %v", name, got)
		}
	}
}

// wantManifest checks the rules of a manifest without Manifest.check.
func wantManifest(t *testing.T, m *Manifest) {
	t.Helper()
	sum := regexp.MustCompile(`^[0-9a-f]{64}$`)
	if m.Version != 1 || len(m.Views) == 0 || len(m.Files) == 0 ||
		m.Source != "" && !sum.MatchString(m.Source) {
		t.Errorf("%+v", m)
	}
	last := ""
	for _, f := range m.Files {
		if f.Name <= last || !filepath.IsLocal(f.Name) || filepath.Clean(f.Name) != f.Name ||
			f.Size < 0 || !sum.MatchString(f.SHA256) {
			t.Errorf("%+v", f)
		}
		last = f.Name
		end := float64(0)
		for i, x := range f.Tensors {
			d, err := safetensors.ParseDType(x.DType)
			bits := float64(d.Bits())
			for _, n := range x.Shape {
				bits *= float64(n)
			}
			if err != nil || x.Begin < 10 || x.Begin > x.End || x.End > f.Size ||
				math.Abs(float64(x.End-x.Begin)*8-bits) > bits*1e-9 || !sum.MatchString(x.SHA256) {
				t.Errorf("%s: %+v", f.Name, x)
			}
			if i > 0 && float64(x.Begin) != end {
				t.Errorf("%s: %+v begins elsewhere than at %v", f.Name, x, end)
			}
			end = float64(x.End)
		}
		if len(f.Tensors) > 0 && end != float64(f.Size) {
			t.Errorf("%s: %v of %d bytes", f.Name, end, f.Size)
		}
	}
}

// FuzzReadManifest checks that a manifest that is accepted follows the rules, and that encoding and
// reading it again gives the same manifest.
func FuzzReadManifest(f *testing.F) {
	f.Add(recorded(f, "manifest.json"))
	f.Add(recorded(f, "export.json"))
	f.Add([]byte(`{"version":99,"files":[]}`))
	f.Add([]byte(`{"version":1,"source":"","views":[{"directory":"","layout":"hf","dtype":"U8",` +
		`"ep_rank":0,"ep_size":0,"mtp":"auto","scales":"amax","shard_size":0}],"files":[` +
		`{"name":"a.safetensors","size":13,"sha256":"` + sumOf("") + `","tensors":[` +
		`{"name":"a","dtype":"U8","shape":[3],"begin":10,"end":13,"sha256":"` + sumOf("") +
		`"}]}]}`))
	dir := f.TempDir()
	name := filepath.Join(dir, stateDir, manifestName)
	if err := os.Mkdir(filepath.Dir(name), 0o777); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(name, data, 0o666); err != nil {
			t.Fatal(err)
		}
		m, err := ReadManifest(dir)
		if err != nil {
			return
		}
		wantManifest(t, m)
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		same, err := readManifestText(t, string(again))
		if d := cmp.Diff(m, same); err != nil || d != "" {
			t.Errorf("written and read again: %v %s", err, d)
		}
		if _, err := m.Verify(context.Background(), dir, VerifyOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// FuzzReadRecord does the same for the record of one finished file.
func FuzzReadRecord(f *testing.F) {
	f.Add(recorded(f, "record.json"))
	f.Add([]byte(`{"name":"config.json","size":2,"sha256":"` + sumOf("{}") + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := new(FileRecord)
		err := readback.Decode(bytes.NewReader(data), r, readback.Limits{})
		if err != nil || r.check(true) != nil {
			return
		}
		wantManifest(t, &Manifest{Version: 1, Views: []ViewRecord{{}}, Files: []FileRecord{*r}})
		var b bytes.Buffer
		if err := r.encode(&b); err != nil {
			t.Fatal(err)
		}
		same, standard := new(FileRecord), new(FileRecord)
		if err := readback.Decode(bytes.NewReader(b.Bytes()), same, readback.Limits{}); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, standard); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, same) + cmp.Diff(r, standard); d != "" {
			t.Error(d)
		}
	})
}
