package adapter

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dequantfs/dequantfs/adapter/source"
)

const (
	headBytes = 4096        // bytes at the beginning of a file that identify its contents
	maxLength = 100_000_000 // of a header; a larger number cannot begin a safetensors file
)

// Remedies for a file with unexpected contents.
const (
	pullAgain     = "run git lfs pull in the folder"
	downloadAgain = "remove it and download it again"
	signInAgain   = "remove it, sign in if the model needs that (hf auth login), and download it " +
		"again"
)

// head is the beginning of a file, or all of a short file.
type head struct {
	name string
	data []byte
	size int64 // of the whole file
}

// disguises are the unexpected contents of files. The first match counts. is describes the contents
// and returns "" if they are something else.
var disguises = []struct {
	in  func(name string) bool // selects the files to check
	is  func(h head) string
	way string
}{
	{needsBytes, head.empty, downloadAgain},
	{anyFile, head.pointer, pullAgain},
	{anyFile, head.zeros, downloadAgain},
	{endsOtherwise(".html", ".htm", ".xhtml", ".svg", ".md"), head.webPage, signInAgain},
	{endsOtherwise(".html", ".htm", ".xhtml", ".svg", ".md", ".xml", ".plist"), head.xml,
		signInAgain},
	{endsWith(".json", shardEnd), head.jsonError, signInAgain},
	{endsOtherwise(".html", ".htm", ".md", ".py"), head.textError, signInAgain},
	{endsWith(".json"), head.otherFormat, downloadAgain},
	{endsWith(shardEnd), head.otherFormat, "use a checkpoint in safetensors"},
	{endsWith(shardEnd), head.text, signInAgain},
}

// recognise describes the contents of a file that has unexpected contents, and the remedy.
func (h head) recognise() (is, way string) {
	for _, d := range disguises {
		if !d.in(h.name) {
			continue
		}
		if is := d.is(h); is != "" {
			return is, d.way
		}
	}
	return "", ""
}

func anyFile(string) bool { return true }

func endsWith(ends ...string) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(ends,
			func(end string) bool { return strings.HasSuffix(strings.ToLower(name), end) })
	}
}

func endsOtherwise(ends ...string) func(string) bool {
	listed := endsWith(ends...)
	return func(name string) bool { return !listed(name) }
}

// needsBytes reports whether a file of that name is useless when empty.
func needsBytes(name string) bool {
	switch path.Base(name) {
	case "vocab.txt", "merges.txt":
		return true
	}
	return endsWith(shardEnd, ".json", ".model", ".jinja", ".tiktoken")(name)
}

func (h head) empty() string {
	if h.size == 0 {
		return "empty"
	}
	return ""
}

var pointer = regexp.MustCompile(`\Aversion https://(?:git-lfs|hawser)\.github\.com/spec/`)

// pointer recognises the text that git keeps in place of a file of git-lfs.
func (h head) pointer() string {
	if pointer.Match(h.data) {
		return "a git-lfs pointer, not the file"
	}
	return ""
}

var pointedSize = regexp.MustCompile(`(?m)^size (\d{1,18})$`)

// pointed returns the size of the file behind a pointer, or 0 if the pointer does not give it.
func (h head) pointed() int64 {
	m := pointedSize.FindSubmatch(h.data)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n
}

// zeros recognises space that a downloader has reserved and not written.
func (h head) zeros() string {
	switch {
	case h.size == 0 || len(bytes.Trim(h.data, "\x00")) > 0:
		return ""
	case h.size == int64(len(h.data)):
		return "only zero bytes, as an interrupted download leaves them"
	}
	return fmt.Sprintf("its first %d bytes are zero, as an interrupted download leaves them",
		len(h.data))
}

// trimmed returns the beginning in lower case, without a byte order mark and leading white space.
func (h head) trimmed() []byte {
	return bytes.ToLower(bytes.TrimLeft(h.data[:min(len(h.data), 512)], "\ufeff \t\r\n"))
}

// begins reports whether the text begins with one of the given strings.
func (h head) begins(starts ...string) bool {
	text := h.trimmed()
	return slices.ContainsFunc(starts, func(s string) bool {
		return bytes.HasPrefix(text, []byte(s))
	})
}

func (h head) webPage() string {
	if h.begins("<!doctype html", "<html", "<head", "<body") {
		return "a web page (HTML), not the file"
	}
	return ""
}

func (h head) xml() string {
	if h.begins("<?xml", "<error>") {
		return "a message of a server (XML), not the file"
	}
	return ""
}

// errorFields are the fields of JSON objects that servers send as errors in place of a file.
var errorFields = []string{
	"error", "errors", "error_code", "errorCode", "code", "detail", "details", "message", "msg",
	"path", "request_id", "requestId", "status", "statusCode", "status_code", "success",
	"timestamp", "title", "type", "url",
}

// jsonError recognises objects such as {"error": "Repository not found"}. They have an error, and
// no field that has nothing to do with one.
func (h head) jsonError() string {
	var object map[string]any
	if h.size != int64(len(h.data)) || json.Unmarshal(h.data, &object) != nil {
		return ""
	}
	for field := range object {
		if !slices.Contains(errorFields, field) {
			return ""
		}
	}
	for _, field := range []string{"error", "errors"} {
		if text, ok := object[field]; ok {
			return fmt.Sprintf("an error message of a server (%.80q), not the file",
				fmt.Sprint(text))
		}
	}
	return ""
}

// serverTexts matches the beginning of short texts that servers send in place of a file.
var serverTexts = regexp.MustCompile(`^(?:` +
	`(?:entry|repository|revision|file|page|object)? ?not found|` +
	`invalid (?:username or password|credentials|token)|unauthorized|forbidden|` +
	`access (?:denied|to (?:model|dataset) )|cannot access gated|` +
	`you (?:must|need to) be (?:authenticated|logged)|` +
	`(?:error ?(?:code)?:? ?)?(?:401|403|404|410|429|50[0234])[: ]+[a-z]|` +
	`too many requests|we had to rate limit|internal server error|bad gateway|` +
	`service unavailable|gateway time-?out)`)

// textError recognises short texts such as "Entry not found".
func (h head) textError() string {
	const longest = 1024
	if h.size > longest || !serverTexts.Match(h.trimmed()) {
		return ""
	}
	return fmt.Sprintf("an error message of a server (%.80q), not the file",
		bytes.TrimSpace(h.data))
}

// magics are the first bytes of other formats.
var magics = []struct{ magic, is string }{
	{"GGUF", "a GGUF file, for llama.cpp"},
	{"PK\x03\x04", "a zip archive, as torch.save writes"},
	{"\x80\x02", "a pickle, as torch.save writes"},
	{"\x80\x03", "a pickle"},
	{"\x80\x04", "a pickle"},
	{"\x80\x05", "a pickle"},
	{"\x1f\x8b", "compressed with gzip"},
	{"\x28\xb5\x2f\xfd", "compressed with zstd"},
	{"\xfd7zXZ\x00", "compressed with xz"},
	{"7z\xbc\xaf\x27\x1c", "a 7z archive"},
	{"BZh", "compressed with bzip2"},
	{"\x89HDF\r\n", "an HDF5 file, as Keras writes"},
	{"\x93NUMPY", "an array of NumPy"},
}

// otherFormat recognises a file that begins like another format and not like the length of a
// header.
func (h head) otherFormat() string {
	if !h.tooLong() {
		return ""
	}
	for _, m := range magics {
		if bytes.HasPrefix(h.data, []byte(m.magic)) {
			return m.is
		}
	}
	return ""
}

// tooLong reports whether the first eight bytes cannot be the length of a header.
func (h head) tooLong() bool {
	return len(h.data) < 8 || binary.LittleEndian.Uint64(h.data) > maxLength
}

// text recognises any text. Text has no zero bytes, but the length of a header has.
func (h head) text() string {
	text := h.data
	if len(text) == headBytes {
		text = text[:headBytes-utf8.UTFMax] // the last rune may be incomplete
	}
	control := func(r rune) bool {
		return unicode.IsControl(r) && !strings.ContainsRune("\t\r\n\f", r)
	}
	if !h.tooLong() || !utf8.Valid(text) || bytes.ContainsFunc(text, control) {
		return ""
	}
	return fmt.Sprintf("text that begins with %.40q, not safetensors", bytes.TrimSpace(text))
}

// headOf reads the beginning of a file.
func (d *folder) headOf(f source.File) (head, error) {
	data := make([]byte, min(f.Size(), headBytes))
	if n, err := f.ReadAt(d.ctx, data, 0); n < len(data) {
		return head{}, err
	}
	return head{name: f.Name(), data: data, size: f.Size()}, nil
}

// unlikeJSON returns an error that describes the contents of a JSON file, even if it could be
// parsed (err is nil). It returns err if they are not recognised.
func (d *folder) unlikeJSON(raw []byte, err error) error {
	h := head{name: ".json", data: raw[:min(len(raw), headBytes)], size: int64(len(raw))}
	if is, way := h.recognise(); is != "" {
		return errors.New(is + ": " + d.way(way))
	}
	return err
}

// unlikeShard returns an error that describes the contents of a shard, or err if they are not
// recognised. It counts the git-lfs pointers of all shards, because usually none was pulled.
func (d *folder) unlikeShard(f source.File, shards []source.File, err error) error {
	h, failed := d.headOf(f)
	if failed != nil {
		return err
	}
	is, way := h.recognise()
	switch {
	case is == "":
		return err
	case way == pullAgain:
		is += d.countPointers(shards)
	}
	return errors.New(is + ": " + d.way(way))
}

// countPointers counts the shards that are pointers and adds up the sizes of their files.
func (d *folder) countPointers(shards []source.File) string {
	pointers, size := 0, int64(0)
	for _, f := range shards {
		if h, err := d.headOf(f); err == nil && h.pointer() != "" {
			pointers, size = pointers+1, size+h.pointed()
		}
	}
	if size <= 0 {
		return fmt.Sprintf(" (%d of %d shards)", pointers, len(shards))
	}
	return fmt.Sprintf(" (%d of %d shards, %s)", pointers, len(shards), formatBytes(size))
}

// way adds the command that downloads a file again, if the repository is known.
func (d *folder) way(way string) string {
	command := d.store.Download().Command
	if command == "" || way == pullAgain {
		return way
	}
	return strings.ReplaceAll(way, "download it again", "run "+command+" --force-download")
}

// Remedies for weights in other formats.
const (
	pickled = "convert them first: load the model with transformers and save it with " +
		"save_pretrained"
	madeFrom = "use the safetensors checkpoint that it was made from"
)

// otherFormats are files of weights that are not safetensors, by their endings. Views show the
// formats that a model may need beside its weights, such as voices.
var otherFormats = []struct {
	end   string
	is    string
	way   string
	shown bool
}{
	{end: ".gguf", is: "GGUF, for llama.cpp", way: madeFrom},
	{end: ".bin", is: "weights saved with torch.save", way: pickled},
	{end: ".pth", is: "weights saved with torch.save", way: pickled},
	{end: ".ckpt", is: "weights saved with torch.save", way: pickled},
	{end: ".pt", is: "weights saved with torch.save", way: pickled, shown: true},
	{end: ".msgpack", is: "weights of Flax", way: "convert them to safetensors first"},
	{end: ".h5", is: "weights of Keras", way: "convert them to safetensors first"},
	{end: ".ot", is: "weights of rust-bert", way: "convert them to safetensors first"},
	{end: ".onnx", is: "an ONNX graph", way: madeFrom},
	{end: ".onnx_data", is: "the weights of an ONNX graph", way: madeFrom},
	{end: ".tflite", is: "a graph of LiteRT", way: madeFrom},
}

// isOtherWeights reports whether a file holds weights in another format that no view shows.
func isOtherWeights(name string) bool {
	for _, o := range otherFormats {
		if strings.HasSuffix(strings.ToLower(name), o.end) {
			return !o.shown
		}
	}
	return false
}

// noConfig refuses a folder without config.json. The folder of an adapter never has one, so its
// message names the adapter.
func (d *folder) noConfig() error {
	models := slices.DeleteFunc(d.weights(),
		func(name string) bool { return notTheModel(name) != "" })
	if len(models) > 0 {
		err := fmt.Errorf("%s: missing beside %s", configName, few(models))
		return d.incomplete(kindError{err, ErrNoConfig})
	}
	if err := d.noWeights(); err != nil {
		return err
	}
	err := fmt.Errorf("%s: missing, and no *%s: not a checkpoint's folder", configName, shardEnd)
	return d.incomplete(kindError{err, ErrNoCheckpoint})
}

// noWeights describes a folder that has no weights to show, if it is recognised.
func (d *folder) noWeights() error {
	for _, o := range otherModels {
		found := d.where(func(name string) bool {
			return isShardName(name) && strings.HasPrefix(name, o.start)
		})
		if len(found) > 0 {
			return fmt.Errorf("the only weights are %s: %s: %s", few(found), o.is, o.way)
		}
	}
	for _, o := range otherFormats {
		if found := d.where(endsWith(o.end)); len(found) > 0 {
			return fmt.Errorf("no *%s, but %s: %s: %s", shardEnd, few(found), o.is, o.way)
		}
	}
	if inside := d.where(d.hasWeightsInside); len(inside) > 0 {
		return fmt.Errorf("no *%s here, but in subfolders (%s): give one of them as SOURCE",
			shardEnd, few(inside))
	}
	return nil
}

// where returns the entries of the folder that fit and have printable names.
func (d *folder) where(fits func(name string) bool) []string {
	var found []string
	for _, name := range d.entries {
		if isFileName(name) && fits(name) {
			found = append(found, name)
		}
	}
	return found
}

// hasWeightsInside reports whether an entry is a subfolder with shards.
func (d *folder) hasWeightsInside(name string) bool {
	l, err := d.readFolder(name)
	return err == nil && slices.ContainsFunc(l.Entries,
		func(e source.Entry) bool { return isShardName(e.Name) })
}
