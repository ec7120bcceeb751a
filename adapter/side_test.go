package adapter

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/testdata/inmemory"
)

// recorder keeps a log, one line per record: the message and its values.
type recorder struct{ lines []string }

func (r *recorder) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r, nil))
}

// Write is called once for each record.
func (r *recorder) Write(p []byte) (int, error) {
	_, line, _ := strings.Cut(strings.TrimSpace(string(p)), "msg=")
	r.lines = append(r.lines, strings.NewReplacer(`"\"`, `"`, `\""`, `"`, `\"`, `"`).Replace(line))
	return len(p), nil
}

// sideSource writes a source with these files. A name that ends in / is an empty folder.
func sideSource(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := inmemory.Dir(t)
	for name, data := range files {
		folder, file := filepath.Split(filepath.Join(dir, name))
		if strings.HasSuffix(name, "/") {
			folder, file = filepath.Join(dir, name), ""
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if file != "" {
			if err := os.WriteFile(filepath.Join(folder, file), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, data := range map[string]string{configName: "{}", wholeName: emptyShard} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSmallSubfoldersAreSideFiles(t *testing.T) {
	files := map[string]string{
		"modules.json":                             "[]",
		"1_Pooling/config.json":                    `{"pooling_mode_mean_tokens": true}`,
		"additional_chat_templates/tool_use.jinja": "{{ x }}",
		"encoding/encoding_dsv32.py":               "pass",
		"encoding/tests/deep/in.json":              "{}",
		"voices/a.pt":                              "PK",
		"empty/":                                   "",
		"assets/.hidden":                           "x",
		"assets/a\x1b[2Jb.txt":                     "x",
		"assets/part.incomplete":                   "x",
		"assets/logo.png":                          "\x89PNG",
	}
	want := []string{
		"1_Pooling/config.json", "additional_chat_templates/tool_use.jinja", "assets/logo.png", "encoding/encoding_dsv32.py",
		"encoding/tests/deep/in.json", "modules.json", "voices/a.pt",
	}
	dir := sideSource(t, files)
	c := openedAt(t, dir)
	var got []string
	for _, s := range c.SideFiles() {
		got = append(got, s.Name)
		data := make([]byte, s.Size)
		if n, err := s.File.ReadAt(t.Context(), data, 0); n != len(data) ||
			string(data) != files[s.Name] {
			t.Errorf("%s: %q, %v", s.Name, data, err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if lines, _ := warned(t, dir); len(lines) != 0 {
		t.Errorf("warned: %q", lines)
	}
}

func TestSubfoldersThatAreNotShown(t *testing.T) {
	many := func(n int, name string) map[string]string {
		files := map[string]string{}
		for i := range n {
			files[fmt.Sprintf(name, i)] = "x"
		}
		return files
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		big   string // a file that is made too large to be shown
		want  string // of the warning, or empty
	}{
		{"original", map[string]string{"original/params.json": "{}", "original/consolidated.00.pth": "x"}, "", ""},
		{"onnx", map[string]string{"onnx/model.onnx": "x"}, "", ""},
		{"openvino", map[string]string{"openvino/openvino_model.xml": "x"}, "", ""},
		{"gguf", map[string]string{"gguf/README.md": "x"}, "", ""},
		{"hidden", map[string]string{".cache/huggingface/x": "x", ".git/config": "x", "__pycache__/a.pyc": "x"}, "", ""},
		{"weights", map[string]string{"2_Dense/config.json": "{}", "2_Dense/model.safetensors": emptyShard}, "", `2_Dense holds weights (2_Dense/model.safetensors)"`},
		{"weights saved with torch.save", map[string]string{"2_Dense/pytorch_model.bin": "x"}, "", "2_Dense holds weights (2_Dense/pytorch_model.bin)"},
		{"weights deeper down", map[string]string{"a/b/c/x.GGUF": "x"}, "", "a holds weights (a/b/c/x.GGUF)"},
		{"many files", many(201, "a/%d.txt"), "", "a has more than 200 files"},
		{"many files deeper down", many(201, "a/%d/x.txt"), "", "a has more than 200 files"},
		{"many hidden files", many(2001, "a/.%d"), "", "a has more than 2000 entries"},
		{"many folders", many(2001, "a/%d/"), "", "a has more than 2000 entries"},
		{"many folders deeper down", many(1999, "a/b/%d/"), "", ""},
		{"more folders deeper down", many(2000, "a/b/%d/"), "", "a has more than 2000 entries"},
		{"large", map[string]string{"a/x.txt": "x", "a/y.bmp": "y"}, "a/y.bmp", "a has more than 67.1 MB"},
		{"deep", map[string]string{"a/b/c/d/x.txt": "x"}, "", "a has folders deeper than 3"},
		{"named like a shard", map[string]string{"model-00001-of-00001.safetensors.index.json/x.txt": "x", "x.safetensors/y.txt": "y", "y.bin/z.txt": "z"}, "", ""},
		{"named like an adapter", map[string]string{"adapter_x/config.json": "{}"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := sideSource(t, c.files)
			if c.big != "" {
				if err := os.Truncate(filepath.Join(dir, c.big), maxFolderBytes); err != nil {
					t.Fatal(err)
				}
			}
			lines, side := warned(t, dir)
			if len(side) != 0 {
				t.Errorf("side files %q", side)
			}
			switch {
			case c.want == "" && len(lines) != 0:
				t.Errorf("warned: %q", lines)
			case c.want != "" && (len(lines) != 1 ||
				!strings.Contains(lines[0], "subfolders left out: ") ||
				!strings.Contains(lines[0], c.want)):
				t.Errorf("got %q, want %q", lines, c.want)
			}
		})
	}
}

// TestSubfoldersAreShownUpToTheirBounds tests the permitted side of each bound.
func TestSubfoldersAreShownUpToTheirBounds(t *testing.T) {
	files := map[string]string{"deep/b/c/x.txt": "x", "large/x.bmp": "x"}
	for i := range maxFolderFiles {
		files[fmt.Sprintf("many/%d.txt", i)] = "x"
	}
	dir := sideSource(t, files)
	if err := os.Truncate(filepath.Join(dir, "large", "x.bmp"), maxFolderBytes); err != nil {
		t.Fatal(err)
	}
	if lines, side := warned(t, dir); len(lines) != 0 || len(side) != len(files) {
		t.Errorf("%d of %d side files, log %q", len(side), len(files), lines)
	}
}

func TestASubfolderIsLeftOutWholeWhenThereAreTooManySideFiles(t *testing.T) {
	files := map[string]string{}
	for i := range maxSide - 1 {
		files[fmt.Sprintf("%d.txt", i)] = "x"
	}
	files["a/1.txt"], files["b/1.txt"], files["b/2.txt"] = "x", "x", "x"
	lines, side := warned(t, sideSource(t, files))
	if len(side) != maxSide || len(lines) != 1 ||
		!strings.Contains(lines[0], "b would make more than 1000 side files") {
		t.Errorf("%d side files, log %q", len(side), lines)
	}
}

func TestManySubfoldersAreOneWarning(t *testing.T) {
	files := map[string]string{}
	for i := range maxFolders + 20 {
		files[fmt.Sprintf("%03d/x.txt", i)] = "x"
	}
	for i := range 10 {
		files[fmt.Sprintf("%03d/x.bin", i)] = "x"
	}
	lines, side := warned(t, sideSource(t, files))
	want := "subfolders left out: 000 holds weights (000/x.bin), 001 holds weights (001/x.bin), " +
		"002 holds weights (002/x.bin) and 8 more"
	if len(side) != maxFolders-10 || len(lines) != 1 || !strings.Contains(lines[0], want) {
		t.Errorf("%d side files, log %q", len(side), lines)
	}
}

func TestLinksInSubfoldersLeadNowhereOutside(t *testing.T) {
	outside := sideSource(t, map[string]string{"secret/x.txt": "secret"})
	dir := sideSource(t, map[string]string{"templates/a.jinja": "a", "real/b.txt": "b"})
	for _, l := range []struct{ target, name string }{
		{"../real/b.txt", "templates/inside.txt"},
		{filepath.Join(dir, "real", "b.txt"), "templates/absolute.txt"},
		{filepath.Join(outside, "secret", "x.txt"), "templates/outside.txt"},
		{"../../" + filepath.Base(outside) + "/secret/x.txt", "templates/relative.txt"},
		{"/dev/zero", "templates/device.txt"},
		{"nowhere", "templates/dangling.txt"},
		{"../real", "templates/folder"},
		{filepath.Join(outside, "secret"), "elsewhere"},
		{"real", "linked"},
		{".", "round"},
	} {
		if err := os.Symlink(l.target, filepath.Join(dir, l.name)); err != nil {
			t.Fatal(err)
		}
	}
	lines, side := warned(t, dir)
	if diff := cmp.Diff([]string{"real/b.txt", "templates/a.jinja", "templates/absolute.txt",
		"templates/inside.txt"}, side); diff != "" {
		t.Error(diff)
	}
	log := strings.Join(lines, "\n")
	if !strings.Contains(log, "subfolders left out: linked is a link, round is a link") {
		t.Errorf("links to folders are not told of: %s", log)
	}
	for _, name := range []string{"templates/outside.txt", "templates/relative.txt",
		"templates/device.txt", "templates/dangling.txt", "templates/folder", "elsewhere"} {
		if strings.Count(log, `"`+name+`"`) != 1 {
			t.Errorf("%s should be told of once: %s", name, log)
		}
	}
}

// TestFilesOfAPrivateSubfolderStayPrivate checks permissions. A user who may not enter a folder may
// not read its files, even if their own bits permit it.
func TestFilesOfAPrivateSubfolderStayPrivate(t *testing.T) {
	dir := sideSource(t, map[string]string{"a/x": "x", "a/b/x": "x", "c/x": "x", "c/d/x": "x"})
	for name, mode := range map[string]os.FileMode{"a": 0o700, "a/b": 0o755, "c": 0o755,
		"c/d": 0o710, "c/d/x": 0o664} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]uint32{}
	for _, s := range openedAt(t, dir).SideFiles() {
		got[s.Name] = s.Mode
	}
	want := map[string]uint32{"a/x": 0o600, "a/b/x": 0o600, "c/x": 0o644, "c/d/x": 0o660}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestWeightsOfOtherFormatsAndAdaptersAreNoSideFiles checks that views omit them, because a loader
// might take them for the model.
func TestWeightsOfOtherFormatsAndAdaptersAreNoSideFiles(t *testing.T) {
	files := map[string]string{"tokenizer.json": "{}", "spk_dict.pt": "PK"}
	for _, name := range []string{
		"pytorch_model.bin", "model.gguf", "MODEL.GGUF", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.onnx", "model.onnx_data",
		"last.ckpt", "weights.pth", "model.tflite", "adapter_config.json", "adapter_model.bin",
		"model.safetensors.index.fp16.json", "pytorch_model.bin.index.json", "hf_quant_config.json", "quantize_config.json", ".gitattributes",
	} {
		files[name] = "{}"
	}
	lines, side := warned(t, sideSource(t, files))
	if diff := cmp.Diff([]string{"spk_dict.pt", "tokenizer.json"}, side); diff != "" ||
		len(lines) != 0 {
		t.Errorf("%s, log %q", diff, lines)
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 1: "1 bytes", 999: "999 bytes", 1000: "1.0 kB", 999_949: "999.9 kB",
		999_951:        "1.0 MB",
		12_600_000_000: "12.6 GB", 688_586_727_753: "688.6 GB", 1_400_000_000_000: "1.4 TB",
		1 << 62: "4.6 EB",
	} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestVariantsAreKnownByName(t *testing.T) {
	for name, want := range map[string]string{
		"model.fp16.safetensors":                       "fp16",
		"model.fp16-00001-of-00002.safetensors":        "fp16",
		"model-00001-of-00002.fp16.safetensors":        "fp16",
		"diffusion_pytorch_model.bf16.safetensors":     "bf16",
		"model.non_ema.safetensors":                    "non_ema",
		"model.fp8_e4m3fn.safetensors":                 "fp8_e4m3fn",
		"model.8bit.safetensors":                       "8bit",
		"model.nvfp4.safetensors":                      "nvfp4",
		"model.safetensors":                            "",
		"model-00001-of-00002.safetensors":             "",
		"model.safetensors-00001-of-00002.safetensors": "",
		"Qwen3.5-0.8B.safetensors":                     "",
		"model.part1.safetensors":                      "",
		"model.00001-of-00002.safetensors":             "",
		"fp16.safetensors":                             "",
	} {
		if got := variant(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestSiblingsAreThoseThatTheNamesSpeakOf compares with a manual count.
func TestSiblingsAreThoseThatTheNamesSpeakOf(t *testing.T) {
	const end = ".safetensors"
	for _, c := range []struct{ have, missing string }{
		{"model", ""},
		{"model-1-of-3 model-3-of-3", "model-2-of-3"},
		{"model-00002-of-00002 mtp", "model-00001-of-00002"},
		{"model-0-of-2 model-1-of-2", ""},
		{"model-0-of-2 model-2-of-2", "model-1-of-2"},
		{"model-0-of-2 model-1-of-2 model-2-of-2", ""},
		{"model-00000-of-00001", ""},
		{"a-1-of-2 b-2-of-2", "a-2-of-2 b-1-of-2"},
		{"model-00001-of-3", "model-00002-of-3 model-00003-of-3"},
	} {
		var have, missing []string
		for _, n := range strings.Fields(c.have) {
			have = append(have, n+end)
		}
		for _, n := range strings.Fields(c.missing) {
			missing = append(missing, n+end)
		}
		if diff := cmp.Diff(append(slices.Clone(have), missing...),
			withSiblings(have)); diff != "" {
			t.Errorf("%s: %s", c.have, diff)
		}
	}
}
