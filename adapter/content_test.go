package adapter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

const lfsPointer = "version https://git-lfs.github.com/spec/v1\noid " +
	"sha256:e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8\nsize 17209920\n"

// disguised are files with unexpected contents, and their descriptions as a shard, as JSON, and as
// a side file. An empty description means that the contents may be as expected.
var disguised = []struct {
	name, data        string
	shard, json, side string
}{
	{"pointer", lfsPointer, "a git-lfs pointer, not the file (1 of 2 shards, 17.2 MB): run git lfs pull", "a git-lfs pointer, not the file: run git lfs pull", "a git-lfs pointer"},
	{"pointer of old", "version https://hawser.github.com/spec/v1\n", "a git-lfs pointer, not the file (1 of 2 shards): run git lfs pull", "a git-lfs pointer", "a git-lfs pointer"},
	{"page", "<!DOCTYPE html>\n<html><head>Sign in</head></html>", "a web page (HTML), not the file: remove it, sign in if", "a web page (HTML)", "a web page (HTML)"},
	{"page in capitals", "\ufeff  \n<HTML>", "a web page", "a web page", "a web page"},
	{"error in XML", "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "a message of a server (XML), not the file: remove it, sign in", "a message of a server", "a message of a server"},
	{"error in XML, bare", "<Error><Code>NoSuchKey</Code></Error>", "a message of a server (XML)", "a message of a server (XML)", "a message of a server (XML)"},
	{"error in JSON", `{"error":"Repository not found"}`, `an error message of a server ("Repository not found"), not the file`, `an error message of a server ("Repository not found"), not the file: remove it, sign in`, `an error message of a server ("Repository not found")`},
	{"error in JSON with more", `{"error":{"a":1},"statusCode":401,"message":"no"}`, "an error message of a server", "an error message of a server", "an error message of a server"},
	{"entry not found", "Entry not found", `an error message of a server ("Entry not found"), not the file`, `an error message of a server ("Entry not found")`, `an error message of a server ("Entry not found")`},
	{"bad password", "Invalid username or password.", "an error message of a server", "an error message of a server", "an error message of a server"},
	{"gated", "Access to model org/name is restricted. You must be authenticated to access it.", "an error message of a server", "an error message of a server", "an error message of a server"},
	{"status", "404: Not Found\n", "an error message of a server", "an error message of a server", "an error message of a server"},
	{"too many", "429 Too Many Requests", "an error message of a server", "an error message of a server", "an error message of a server"},
	{"empty", "", "empty: remove it and download it again", "empty: remove it", "empty"},
	{"zeros", strings.Repeat("\x00", 100), "only zero bytes, as an interrupted download leaves them: remove it and download it again", "only zero bytes", "only zero bytes"},
	{"many zeros", strings.Repeat("\x00", 5000), "its first 4096 bytes are zero, as an interrupted download leaves them", "its first 4096 bytes are zero", "its first 4096 bytes are zero"},
	{"text", "These are notes about weights.\r\n\tNot weights.", `text that begins with "These are notes about weights.`, "not a JSON object|bad index", ""},
	{"text in Chinese", strings.Repeat("权重", 3000), `text that begins with "权重`, "not a JSON object|bad index", ""},
	{"zip", "PK\x03\x04\x14\x00\x08\x08\x08\x00rest", "a zip archive, as torch.save writes: use a checkpoint in safetensors", "a zip archive, as torch.save writes: remove it and download it again", ""},
	{"pickle", "\x80\x02}q\x00X\x05\x00\x00\x00hello", "a pickle, as torch.save writes", "a pickle", ""},
	{"gzip", "\x1f\x8b\x08\x00\x01\x02\x03\x04\x05", "compressed with gzip", "compressed with gzip", ""},
	{"zstd", "\x28\xb5\x2f\xfd\x24\x01\x02\x03\x04", "compressed with zstd", "compressed with zstd", ""},
	{"xz", "\xfd7zXZ\x00\x00\x04\xe6", "compressed with xz", "compressed with xz", ""},
	{"bzip2", "BZh91AY&SY", "compressed with bzip2", "compressed with bzip2", ""},
	{"7z", "7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive", "a 7z archive", ""},
	{"GGUF", "GGUF\x03\x00\x00\x00\x01\x00", "a GGUF file, for llama.cpp: use a checkpoint in safetensors", "a GGUF file", ""},
	{"HDF5", "\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", "an HDF5 file", ""},
	{"NumPy", "\x93NUMPY\x01\x00", "an array of NumPy", "an array of NumPy", ""},
	{"a list", "[]", `text that begins with "[]"`, "not a JSON object|bad index", ""},
	{"cut short", "\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":", "truncated", "not a JSON object|bad index|the index is not UTF-8", ""},
}

// disguisedSource writes a source with one file of unexpected contents.
func disguisedSource(t *testing.T, name, data string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{
		configName: "{}", "model-00001-of-00002.safetensors": emptyShard,
		"model-00002-of-00002.safetensors": emptyShard, name: data,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// openError opens a source that must be refused.
func openError(t *testing.T, dir string) string {
	t.Helper()
	c, err := Open(t.Context(), dir, OpenOptions{})
	if err == nil {
		_ = c.Close()
		t.Fatal("it opens")
	}
	return err.Error()
}

func TestFilesThatAreNotWhatTheirNamesSayAreRefusedByWhatTheyAre(t *testing.T) {
	for _, c := range disguised {
		for name, want := range map[string]string{
			"model-00002-of-00002.safetensors": c.shard,
			configName:                         c.json, indexName: c.json, quantizeNames[0]: c.json,
			quantizeNames[1]: c.json,
		} {
			got := openError(t, disguisedSource(t, name, c.data))
			found := false
			for w := range strings.SplitSeq(want, "|") {
				found = found || strings.Contains(got, ": "+name+": ") && strings.Contains(got, w)
			}
			if !found {
				t.Errorf("%s as %s: got %s\nwant %s", c.name, name, got, want)
			}
			if strings.ContainsAny(got, "\n\x1b") || len(got) > 400 {
				t.Errorf("%s as %s: no message: %q", c.name, name, got)
			}
			for _, not := range []string{"header of", "invalid character"} {
				if strings.Contains(got, not) && !strings.Contains(want, "truncated") &&
					!strings.Contains(want, "not a JSON object") {
					t.Errorf("%s as %s: %q in %s", c.name, name, not, got)
				}
			}
		}
	}
}

func TestSideFilesThatAreNotWhatTheirNamesSayAreShownWithAWarning(t *testing.T) {
	for _, c := range disguised {
		for _, name := range []string{"tokenizer.json", "tokenizer.model"} {
			if name == "tokenizer.model" && strings.HasPrefix(c.data, "{") {
				continue // only JSON files are checked for JSON
			}
			want := c.side
			if name == "tokenizer.json" && want == "" && c.json != "not a JSON object|bad index" &&
				!strings.Contains(c.json, "UTF-8") {
				want = c.json
			}
			lines, side := warned(t, disguisedSource(t, name, c.data))
			switch {
			case len(side) != 1 || side[0] != name:
				t.Errorf("%s as %s: side files %q", c.name, name, side)
			case want == "" && len(lines) != 0:
				t.Errorf("%s as %s: warned of: %q", c.name, name, lines)
			case want != "" && (len(lines) != 1 ||
				!strings.Contains(lines[0], "not what its name says: "+name+": "+want)):
				t.Errorf("%s as %s: got %q, want %q", c.name, name, lines, want)
			}
		}
	}
}

// warned opens a source and returns the warnings and the names of its side files.
func warned(t *testing.T, dir string) (lines, side []string) {
	t.Helper()
	var log recorder
	c, err := Open(t.Context(), dir, OpenOptions{Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, s := range c.SideFiles() {
		side = append(side, s.Name)
	}
	return log.lines, side
}

func TestSideFilesOfOneKindAreOneWarning(t *testing.T) {
	dir := disguisedSource(t, "vocab.json", lfsPointer)
	for _, name := range []string{"a.txt", "b.jinja", "tokenizer.json", "tokenizer.model"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(lfsPointer), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lines, _ := warned(t, dir)
	if len(lines) != 1 || !strings.Contains(lines[0], "a.txt, b.jinja, tokenizer.json and 2 "+
		"more: a git-lfs pointer, not the file: run git lfs pull") {
		t.Errorf("%q", lines)
	}
}

// TestSideFilesAreNotSuspectedWithoutReason has unusual files whose contents are as expected.
func TestSideFilesAreNotSuspectedWithoutReason(t *testing.T) {
	for name, data := range map[string]string{
		"README.md":            "<!DOCTYPE html>\n<p align=center>",
		"model_card.html":      "<html></html>",
		"picture.svg":          "<?xml version=\"1.0\"?><svg/>",
		"graph.xml":            "<?xml version=\"1.0\"?><net/>",
		"__init__.py":          "",
		"empty.txt":            "",
		"notes.txt":            "see https://git-lfs.github.com/spec/v1",
		"vocab.txt":            "[PAD]\n404\n",
		"numbers.txt":          "401\n402\n403\n404\n",
		"errors.py":            "not_found = 1",
		"preprocessor.json":    `{"error":"raise","do_resize":true}`,
		"messages.json":        `{"message":"hello","type":"greeting"}`,
		"empty.json":           "{}",
		"tokenizer.model":      "\x0a\x0e\x0a\x05<unk>",
		"spk_dict.pt":          "PK\x03\x04\x00\x00\x08\x08rest",
		"table.npz":            "PK\x03\x04\x14\x00\x00\x00rest",
		"merges.txt":           "#version: 0.2\n",
		"long_not_found.jinja": "not found " + strings.Repeat("x", 2000),
	} {
		lines, side := warned(t, disguisedSource(t, name, data))
		if len(lines) != 0 || len(side) != 1 {
			t.Errorf("%s: side files %q, log %q", name, side, lines)
		}
	}
}

// TestPointersAreCountedWithTheirSizes has a clone of four shards without git-lfs.
func TestPointersAreCountedWithTheirSizes(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{configName: "{}"}
	for i := 1; i <= 4; i++ {
		files[fmt.Sprintf("model-%05d-of-00004.safetensors", i)] = strings.Replace(lfsPointer,
			"17209920", "4300000000", 1)
	}
	files["model-00003-of-00004.safetensors"] = emptyShard
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := "model-00001-of-00004.safetensors: a git-lfs pointer, not the file (3 of 4 shards, " +
		"12.9 GB): run git lfs pull in the folder"
	if got := openError(t, dir); !strings.HasSuffix(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestNoSoundShardIsTakenForSomethingElse reads the beginnings of valid shards. Their headers have
// random lengths, or lengths that look like other formats.
func TestNoSoundShardIsTakenForSomethingElse(t *testing.T) {
	lengths := []uint64{2, 0x280, 0x380, 0x480, 0x580, 0x8b1f, 0x4b50, 0x6842, 0x04034b50, 0x4647,
		0x3c, 0x7b, 0x5b, 0x20, 0x0a, 0x76657273}
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		lengths = append(lengths, r.Uint64N(maxLength))
	}
	for _, n := range lengths {
		if n > maxLength {
			continue
		}
		data := binary.LittleEndian.AppendUint64(nil, n)
		data = append(data, "{"+strings.Repeat(" ", int(min(n, headBytes)))+"}"...)
		h := head{name: "x.safetensors", data: data[:min(len(data), headBytes)], size: int64(n) + 8}
		if is, _ := h.recognise(); is != "" {
			t.Errorf("header of %d bytes: %s", n, is)
		}
	}
	_, b, err := safetensors.NewHeader(nil, nil, 8)
	if err != nil {
		t.Fatal(err)
	}
	h := head{name: "x.safetensors", data: b, size: int64(len(b))}
	if is, _ := h.recognise(); is != "" {
		t.Errorf("a shard without tensors: %s", is)
	}
}

func TestAFolderWithoutSafetensorsSaysWhatItHas(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  string
		not   string
	}{
		{"GGUF alone", []string{"model-Q4_K_M.gguf", "README.md"}, "no *.safetensors, but model-Q4_K_M.gguf: GGUF, for llama.cpp: use the safetensors checkpoint that it was made from", "config.json"},
		{"GGUF in capitals", []string{"MODEL.GGUF", configName}, "no *.safetensors, but MODEL.GGUF: GGUF, for llama.cpp", ""},
		{"many GGUF", []string{"a.gguf", "b.gguf", "c.gguf", "d.gguf"}, "but a.gguf, b.gguf, c.gguf and 1 more: GGUF", ""},
		{"torch", []string{"pytorch_model.bin", configName}, "no *.safetensors, but pytorch_model.bin: weights saved with torch.save: convert them first: load the model with transformers and save it with save_pretrained", ""},
		{"torch in shards", []string{"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json", configName}, "but pytorch_model-00001-of-00002.bin, pytorch_model-00002-of-00002.bin: weights saved", ""},
		{"Meta's", []string{"consolidated.00.pth", "params.json"}, "but consolidated.00.pth: weights saved with torch.save", ""},
		{"a checkpoint of Lightning", []string{"last.ckpt", configName}, "but last.ckpt: weights saved with torch.save", ""},
		{"pt", []string{"model.pt", configName}, "but model.pt: weights saved with torch.save", ""},
		{"Flax", []string{"flax_model.msgpack", configName}, "but flax_model.msgpack: weights of Flax: convert them to safetensors first", ""},
		{"Keras", []string{"tf_model.h5", configName}, "but tf_model.h5: weights of Keras", ""},
		{"Rust", []string{"rust_model.ot", configName}, "but rust_model.ot: weights of rust-bert", ""},
		{"ONNX", []string{"model.onnx", "model.onnx_data", configName}, "but model.onnx: an ONNX graph", ""},
		{"LiteRT", []string{"model.tflite"}, "but model.tflite: a graph of LiteRT", ""},
		{"shards in subfolders", []string{"model_index.json", "transformer/model.safetensors", "vae/x.safetensors", "scheduler/config.json"}, "no *.safetensors here, but in subfolders (transformer, vae): give one of them as SOURCE", ""},
		{"shards in hidden subfolders", []string{".cache/x.safetensors"}, "config.json: missing, and no *.safetensors: not a checkpoint's folder", "subfolders"},
		{"nothing", []string{"README.md"}, "config.json: missing, and no *.safetensors: not a checkpoint's folder", ""},
		{"nothing but a configuration", []string{configName}, "no model.safetensors.index.json and no *.safetensors", ""},
		{"shards without a configuration", []string{"model.safetensors", "model.gguf"}, "config.json: missing beside model.safetensors", "gguf"},
		{"an adapter, which has no configuration of a model", []string{"adapter_model.safetensors", "adapter_config.json"}, "the only weights are adapter_model.safetensors: an adapter, not a model: merge it into the model that it adapts", "config.json"},
		{"Mistral's format without its configuration", []string{"consolidated.safetensors"}, "the only weights are consolidated.safetensors: the model in the format of Mistral: use the same model in the format of transformers", "config.json"},
		{"Mistral's format with a configuration of transformers", []string{"consolidated.safetensors", "params.json", configName}, "the only weights are consolidated.safetensors: the model in the format of Mistral: use the same model in the format of transformers", ""},
		{"Mistral's format beside shards of transformers", []string{"consolidated.safetensors", "params.json", "model.safetensors"}, "config.json: missing beside model.safetensors", ""},
		{"Mistral's format, empty", []string{"consolidated.safetensors", "params.json"}, "consolidated.safetensors: ", configName},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range c.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got := openError(t, dir)
			if !strings.Contains(got, c.want) || c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestASingleFileOfAnotherFormatSaysWhatItIs(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]string{
		"model.gguf": "GGUF, for llama.cpp: use the safetensors checkpoint", "pytorch_model.bin": "weights saved with torch.save: convert them first",
		"notes.txt": "neither a folder nor a .safetensors file: give the folder with config.json", "x.safetensors": "a GGUF file, for llama.cpp",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("GGUF\x03\x00\x00\x00\x01"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := openError(t, path); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// FuzzRecognise recognises any contents under any name. It must end and return one short line.
func FuzzRecognise(f *testing.F) {
	for _, d := range disguised {
		f.Add("x.safetensors", []byte(d.data))
		f.Add("tokenizer.json", []byte(d.data))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		h := head{name: name, data: data[:min(len(data), headBytes)], size: int64(len(data))}
		is, way := h.recognise()
		if (is == "") != (way == "") || len(is) > 500 ||
			bytes.ContainsAny([]byte(is), "\n\x1b\x00") {
			t.Errorf("%q: %q", is, way)
		}
	})
}
