package readback

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// all has a field of each type that can be read back.
type all struct {
	inner
	Name  string           `json:"name"`
	Size  int64            `json:"size"`
	Small int8             `json:"small,omitempty"`
	Count uint64           `json:"count,omitempty"`
	Share float64          `json:"share,omitempty"`
	On    bool             `json:"on,omitempty"`
	At    time.Time        `json:"at,omitzero"`
	Age   time.Duration    `json:"age,omitempty"`
	Shape []int64          `json:"shape,omitempty" most:"3"`
	Parts []part           `json:"parts,omitempty"`
	Kinds map[string]int64 `json:"kinds,omitempty" most:"2"`
	Rest  *part            `json:"rest,omitempty"`
	Other int              `json:"-"`
}

type inner struct {
	Version int `json:"version"`
}

type part struct {
	Name string `json:"name"`
	Sum  string `json:"sum,omitempty"`
}

const least = `"version":1,"name":"n","size":2`

func TestDecodeTakesWhatWasWritten(t *testing.T) {
	want := all{
		inner: inner{1}, Name: "a\"\\é\U0001F600\x00<", Size: math.MaxInt64, Small: -128,
		Count: math.MaxUint64, Share: 0.1, On: true,
		At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Age: time.Minute, Shape: []int64{1, 2, 3},
		Parts: []part{{"p", "s"}, {Name: "q"}},
		Kinds: map[string]int64{"EIO": 1, "": 2}, Rest: &part{Name: "r"},
	}
	plain, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	indented, err := json.MarshalIndent(want, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{
		"plain":       bytes.NewReader(plain),
		"indented":    bytes.NewReader(indented),
		"in one byte": iotest.OneByteReader(bytes.NewReader(plain)),
		"in halves":   iotest.HalfReader(bytes.NewReader(plain)),
		"with EOF":    iotest.DataErrReader(bytes.NewReader(plain)),
	} {
		var got all
		if err := Decode(r, &got, Limits{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(all{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"nothing", ``, "unexpected EOF"},
		{"null", `null`, "expected '{', found null"},
		{"a list", `[]`, `expected '{', found "["`},
		{"no fields", `{}`, "version is missing"},
		{"a field is missing", `{"version":1,"size":2}`, "name is missing"},
		{"an unknown field", `{` + least + `,"new":1}`, "new: byte 38: unknown field"},
		{"another spelling", `{"Version":1,"name":"n","size":2}`, "Version: byte 10: unknown field"},
		{"a field twice", `{` + least + `,"size":2}`, "size: byte 39: it appears twice"},
		{"a field that is not read", `{` + least + `,"-":2}`, "unknown field"},
		{"null for a string", `{"version":1,"name":null,"size":2}`, "name: byte 24: expected a string, found null"},
		{"null for a list", `{` + least + `,"shape":null}`, "shape: byte 45: expected '[', found null"},
		{"a string for a number", `{"version":"1","name":"n","size":2}`, `version: byte 14: expected a number, found "1"`},
		{"a fraction", `{"version":1.0,"name":"n","size":2}`, `parsing "1.0"`},
		{"an exponent", `{"version":1e0,"name":"n","size":2}`, `parsing "1e0"`},
		{"a negative zero", `{"version":-0,"name":"n","size":2}`, "found -0"},
		{"too large", `{"version":1,"name":"n","size":9223372036854775808}`, "out of range"},
		{"too large for a byte", `{` + least + `,"small":128}`, "out of range"},
		{"negative", `{` + least + `,"count":-1}`, `parsing "-1"`},
		{"beyond all floats", `{` + least + `,"share":1e400}`, "out of range"},
		{"NaN", `{` + least + `,"share":NaN}`, "invalid character"},
		{"a number for a truth", `{` + least + `,"on":1}`, "true or false"},
		{"no time", `{` + least + `,"at":"yesterday"}`, "at: "},
		{"too many elements", `{` + least + `,"shape":[1,2,3,4]}`, "shape: byte 47: more than 3 elements"},
		{"too many entries", `{` + least + `,"kinds":{"a":1,"b":2,"c":3}}`, "more than 2 elements"},
		{"an entry twice", `{` + least + `,"kinds":{"a":1,"a":2}}`, "kinds: a: byte 51: it appears twice"},
		{"deep inside", `{` + least + `,"parts":[{"name":"p"},{"name":"q","sum":0}]}`, `parts: [1]: sum: byte 74: expected a string, found "0"`},
		{"more after it", `{` + least + `} {}`, "something follows"},
		{"a word after it", `{` + least + `}x`, "something follows"},
		{"a comma too many", `{` + least + `,}`, "invalid character"},
		{"cut off", `{` + least, "unexpected EOF"},
		{"cut off in a list", `{` + least + `,"shape":[1`, "unexpected EOF"},
		{"the wrong bracket", `{` + least + `,"shape":[1}`, "invalid character"},
		{"not UTF-8", `{"version":1,"name":"` + "\xff" + `","size":2}`, "not UTF-8"},
		{"half a character", `{"version":1,"name":"` + "\xf0\x9f\x98" + `","size":2}`, "not UTF-8"},
		{"half a character at the end", "{" + least + "}\xf0\x9f", "something follows"},
		{"a control character", `{"version":1,"name":"` + "\n" + `","size":2}`, "invalid character"},
		{"a long string", `{"version":1,"name":"` + strings.Repeat("a", 65<<10) + `","size":2}`, "more than 65536 bytes"},
		{"a long name", `{"` + strings.Repeat("a", 65<<10) + `":1}`, "more than 65536 bytes"},
		{"a long number", `{"version":` + strings.Repeat("1", 65<<10) + `}`, "more than 65536 bytes"},
		{"long escapes", `{"version":1,"name":"` + strings.Repeat(`\"`, 33<<10) + `"}`, "more than 65536 bytes"},
		{"a long gap", `{` + least + strings.Repeat(" ", 5<<10) + `}`, "more than 4096 bytes of white"},
		{"too long", `{` + least + `,"parts":[` + strings.Repeat(`{"name":"`+strings.Repeat("a", 1000)+`"},`, 1100) + `]}`, "longer than 1048576 bytes"},
	} {
		for _, r := range []io.Reader{strings.NewReader(test.text),
			iotest.OneByteReader(strings.NewReader(test.text))} {
			var v all
			if err := Decode(r, &v, Limits{}); err == nil ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: error %v, want %q", test.name, err, test.want)
			}
		}
	}
}

func TestLooseReadsWhatOtherVersionsWrote(t *testing.T) {
	for _, test := range []struct {
		text, err string
		want      all
	}{
		{`{}`, "", all{}},
		{`{"name":"n","new":{"deep":[{"er":[1,"x",null,true]}]},"size":3}`, "", all{Name: "n", Size: 3}},
		{`{"name":null,"shape":null,"kinds":null,"parts":[{}],"size":3}`, "", all{Size: 3, Parts: []part{{}}}},
		{`{"size":null,"size":3}`, "twice", all{}},
		{`{"size":"3"}`, "a number", all{}},
		{`{"shape":[1,2,3,4]}`, "more than 3", all{}},
		{`{"new":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested deeper than 64", all{}},
		{`{"new":` + strings.Repeat("[", 60) + strings.Repeat("]", 60) + `}`, "", all{}},
		{`null`, "found null", all{}},
		{`{"size":`, "unexpected EOF", all{}},
	} {
		var got all
		err := Decode(strings.NewReader(test.text), &got, Limits{Loose: true})
		if (err == nil) != (test.err == "") ||
			err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", test.text, err, test.err)
		}
		if d := cmp.Diff(test.want, got, cmp.AllowUnexported(all{})); err == nil && d != "" {
			t.Errorf("%s: %s", test.text, d)
		}
	}
}

// endless is text that never ends.
type endless struct{ head, again string }

func (e *endless) Read(p []byte) (int, error) {
	if e.head == "" {
		e.head = e.again
	}
	n := copy(p, e.head)
	e.head = e.head[n:]
	return n, nil
}

func TestDecodeTakesLittleMemoryWhateverComes(t *testing.T) {
	type many struct {
		Parts []part           `json:"parts" most:"1000000000"`
		Kinds map[string]int64 `json:"kinds" most:"1000000000"`
		Shape []int64          `json:"shape"`
	}
	const limit = 4 << 20
	for name, text := range map[string]*endless{
		"zeros":    {again: "\x00\x00\x00\x00"},
		"spaces":   {again: "    "},
		"brackets": {again: "[[[["},
		"braces":   {again: `{"a":`},
		"a string": {`{"name":"`, "aaaa"},
		"a number": {`{"version":`, "1111"},
		"a list":   {`{"shape":[0`, ",0"},
		"parts":    {`{"parts":[{}`, ",{}"},
		"skipped":  {`{"skipped":[0`, ",0"},
		"fields":   {`{"a":0`, `,"a":0`},
	} {
		for _, loose := range []bool{false, true} {
			var v many
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := Decode(text, &v, Limits{Bytes: limit, Loose: loose})
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Errorf("%s: it ended", name)
			}
			runtime.GC()
			var kept runtime.MemStats
			runtime.ReadMemStats(&kept)
			// A part takes 32 bytes for 3 bytes of text. The growing list takes as much again.
			if n := int64(kept.HeapAlloc) - int64(before.HeapAlloc); n > 30*limit {
				t.Errorf("%s, loose %v: %d bytes kept of %d", name, loose, n, limit)
			}
			runtime.KeepAlive(v)
		}
	}
}

func TestOpenTakesRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("file"), []byte(`{"version":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", path("link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "link"} {
		var v inner
		if err := File(path(name), &v, Limits{}); err != nil || v.Version != 7 {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	var v inner
	if err := File(path("file"), &v, Limits{Bytes: 5}); err == nil ||
		!strings.Contains(err.Error(), "13 bytes, more than the 5 that it may have") {
		t.Errorf("a large file: %v", err)
	}
	if err := File(dir, &v, Limits{}); err == nil ||
		!strings.Contains(err.Error(), "is a directory, not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if err := File(path("none"), &v, Limits{}); !os.IsNotExist(err) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestKindNamesFiles(t *testing.T) {
	for want, mode := range map[string]os.FileMode{
		"a file": 0o644, "a directory": os.ModeDir | 0o755, "a link": os.ModeSymlink, "a FIFO": os.ModeNamedPipe,
		"a socket": os.ModeSocket, "a device": os.ModeDevice | os.ModeCharDevice, "something else": os.ModeIrregular,
	} {
		if got := Kind(mode); got != want {
			t.Errorf("%v is %s, want %s", mode, got, want)
		}
	}
}

// FuzzDecode compares with encoding/json. A value accepted strictly must be the same in the
// standard library and in the loose mode.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{` + least + `}`))
	f.Add([]byte(`{` + least +
		`,"kinds":{"a":1},"parts":[{"name":"p"}],"shape":[1,-2],"at":"2026-01-02T03:04:05Z","on":true,"share":-1.5e3}`))
	f.Add([]byte(`{"new":[[{"a":null}]],"name":"\ud83d\ude00é"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var strict, loose, standard all
		errStrict := Decode(bytes.NewReader(data), &strict, Limits{})
		errLoose := Decode(iotest.OneByteReader(bytes.NewReader(data)), &loose, Limits{Loose: true})
		if errStrict != nil {
			return
		}
		if errLoose != nil || !reflect.DeepEqual(strict, loose) {
			t.Errorf("strictly %+v, loosely %+v, %v", strict, loose, errLoose)
		}
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(&standard); err != nil || !reflect.DeepEqual(strict, standard) {
			t.Errorf("%+v, the standard library reads %+v, %v", strict, standard, err)
		}
	})
}

func ExampleDecode() {
	var v struct {
		Version int    `json:"version"`
		Source  string `json:"source,omitempty"`
	}
	fmt.Println(Decode(strings.NewReader(`{"version": 1}`), &v, Limits{}), v.Version)
	fmt.Println(Decode(strings.NewReader(`{"version": 1, "sources": []}`), &v, Limits{}))
	// Output:
	// <nil> 1
	// sources: byte 24: unknown field
}
