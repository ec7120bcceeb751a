package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// file returns a header's JSON with its length before it and data zero bytes after it.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func read(b []byte) (*safetensors.Header, error) {
	return safetensors.ReadHeader(bytes.NewReader(b), int64(len(b)))
}

func TestReadHeaderGivesTensorsInDataOrder(t *testing.T) {
	h, err := read(file(`{"__metadata__":{"format":"pt","é":"\u00e9\ud83d\ude00\n"},
		"b":{"dtype":"F32","shape":[],"data_offsets":[6,10]},
		"none":{"shape":[3,0,5],"dtype":"BF16","data_offsets":[6,6]},
		"a\"\\\/":{"data_offsets":[0,6],"dtype":"F8_E4M3","shape":[2,3],"later":[{"x":-1.5e+3},null,true,"s"]}}   `, 10))
	if err != nil {
		t.Fatal(err)
	}
	want := []safetensors.Tensor{
		{Name: `a"\/`, DType: safetensors.F8E4M3, Shape: []int64{2, 3}, Begin: 0, End: 6},
		{Name: "none", DType: safetensors.BF16, Shape: []int64{3, 0, 5}, Begin: 6, End: 6},
		{Name: "b", DType: safetensors.F32, Shape: []int64{}, Begin: 6, End: 10},
	}
	if diff := cmp.Diff(want, h.Tensors); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"format": "pt", "é": "é😀\n"}, h.Metadata); diff != "" {
		t.Error(diff)
	}
}

func TestReadHeaderAcceptsTheEdgesOfTheFormat(t *testing.T) {
	for name, header := range map[string]string{
		"no tensors":    `{}`,
		"no metadata":   `{"__metadata__":null}`,
		"padded":        "{} \n\t\r ",
		"zero length":   `{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[7,0],"data_offsets":[0,0]}}`,
		"sub-byte":      `{"a":{"dtype":"F4","shape":[0,3],"data_offsets":[0,0]}}`,
		"deep unknown":  `{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":` + strings.Repeat("[", 125) + strings.Repeat("]", 125) + `}}`,
		"many shapes":   `{"a":{"dtype":"U8","shape":[` + strings.Repeat("1,", 63) + `0],"data_offsets":[0,0]}}`,
		"number shapes": `{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":[0,-0.0,1e5,1E-5,12.5e+2]}}`,
	} {
		if _, err := read(file(header, 0)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadHeaderRefuses(t *testing.T) {
	entry := func(dtype, shape, offsets string) string {
		return fmt.Sprintf(`{"x":{"dtype":%q,"shape":%s,"data_offsets":%s}}`, dtype, shape, offsets)
	}
	two := func(a, b string) string {
		return fmt.Sprintf(`{"x":{"dtype":"U8","shape":[4],"data_offsets":%s},"y":{"dtype":"U8","shape":[4],"data_offsets":%s}}`, a, b)
	}
	for _, c := range []struct {
		name, header string
		data         int
		want         string // part of the error
	}{
		{"empty header", "", 0, "empty"},
		{"leading space", " {}", 0, "brace"},
		{"array", "[]", 0, "brace"},
		{"rubbish behind", "{}x", 0, "expected the end"},
		{"a zero byte behind", "{}\x00", 0, "expected the end"},
		{"open object", `{"x":{"dtype":"U8"`, 0, "the text ends"},
		{"open string", `{"x`, 0, "does not end"},
		{"not UTF-8", "{\"\xff\":1}", 0, "not UTF-8"},
		{"control character", "{\"a\nb\":1}", 0, "control character"},
		{"escaped control character", "{\"\\t\n\":1}", 0, "control character"},
		{"bad escape", `{"\q":1}`, 0, "unknown escape"},
		{"half a pair", `{"\ud800":1}`, 0, "surrogate"},
		{"two first halves", `{"\ud800\ud800":1}`, 0, "surrogate"},
		{"short escape", `{"\u12`, 0, "does not end"},
		{"short escape in a string", `{"\u12"}`, 0, "hexadecimal"},
		{"trailing comma", `{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},}`, 0, "another element"},
		{"no comma", `{"__metadata__":{}"x":1}`, 0, "','"},
		{"no colon", `{"x"{}}`, 0, "':'"},
		{"empty name", `{"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0, "name of 0 bytes"},
		{"endless name", `{"` + strings.Repeat("x", 5000) + `":{}}`, 0, "name of 5000 bytes"},
		{"twice", `{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0078":{}}`, 0, `"x" appears twice`},
		{"two metadata", `{"__metadata__":{},"__metadata__":{}}`, 0, "twice"},
		{"metadata key twice", `{"__metadata__":{"a":"","a":""}}`, 0, `"a" appears twice`},
		{"metadata with a number", `{"__metadata__":{"a":1}}`, 0, "__metadata__"},
		{"field twice", `{"x":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0, "field appears twice"},
		{"field missing", `{"x":{"dtype":"U8","shape":[0]}}`, 0, `tensor "x": dtype, shape or`},
		{"no object", `{"x":3}`, 0, `tensor "x"`},
		{"unknown dtype", entry("F7", "[0]", "[0,0]"), 0, `tensor "x": unknown dtype "F7"`},
		{"lower-case dtype", entry("f32", "[0]", "[0,0]"), 0, `unknown dtype "f32"`},
		{"the invalid dtype", entry("INVALID", "[0]", "[0,0]"), 0, `unknown dtype "INVALID"`},
		{"negative dimension", entry("U8", "[-1]", "[0,0]"), 0, "whole number"},
		{"fraction", entry("U8", "[1.0]", "[0,1]"), 1, "whole number"},
		{"exponent", entry("U8", "[1e0]", "[0,1]"), 1, "whole number"},
		{"leading zero", entry("U8", "[01]", "[0,1]"), 1, "leading zero"},
		{"number too large", entry("U8", "[9223372036854775808]", "[0,1]"), 1, "too large"},
		{"string for a number", entry("U8", `["1"]`, "[0,1]"), 1, "whole number"},
		{"too many dimensions", entry("U8", "["+strings.Repeat("1,", 64)+"0]", "[0,0]"), 0, "dimensions"},
		{"three offsets", entry("U8", "[1]", "[0,1,2]"), 1, "']'"},
		{"one offset", entry("U8", "[1]", "[0]"), 1, "','"},
		{"shape overflows", entry("U8", "[4294967296,4294967296]", "[0,0]"), 0, `tensor "x": shape [4294967296 4294967296] overflows`},
		{"bits overflow", entry("F64", "[4611686018427387904]", "[0,0]"), 0, "overflows"},
		{"overflow before a zero", entry("U8", "[4294967296,4294967296,0]", "[0,0]"), 0, "overflows"},
		{"half a byte", entry("F4", "[3]", "[0,2]"), 2, "whole number of bytes"},
		{"size differs", entry("F32", "[2]", "[0,4]"), 4, "F32 of shape [2] takes 8"},
		{"offsets turned round", entry("U8", "[1]", "[1,0]"), 1, "end before they begin"},
		{"hole at the start", entry("U8", "[1]", "[1,2]"), 2, "a hole of 1 bytes"},
		{"hole between", two("[0,4]", "[5,9]"), 9, `tensor "y": a hole of 1`},
		{"overlap", two("[0,4]", "[3,7]"), 7, `tensor "y": data_offsets [3,7] overlap`},
		{"same place", two("[0,4]", "[0,4]"), 4, "overlap"},
		{"truncated", two("[0,4]", "[4,8]"), 7, `tensor "y": ends at byte 8`},
		{"too long", two("[0,4]", "[4,8]"), 9, "1 bytes more"},
		{"data of no tensor", `{}`, 1, "1 bytes more"},
		{"deep", `{"a":{"x":` + strings.Repeat("[", 200), 0, "deeper"},
		{"one too deep", `{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":` + strings.Repeat("[", 126) + strings.Repeat("]", 126) + `}}`, 0, "deeper than 127"},
		{"deep objects", `{"a":{"x":` + strings.Repeat(`{"a":`, 200), 0, "deeper"},
		{"bad literal", `{"a":{"x":nul}}`, 0, "a value"},
		{"bad number", `{"a":{"x":1.}}`, 0, "a value"},
		{"bad exponent", `{"a":{"x":1e}}`, 0, "a value"},
		{"plus sign", `{"a":{"x":+1}}`, 0, "a value"},
		{"zero in front", `{"a":{"x":-01}}`, 0, "a value"},
		{"not a number", `{"a":{"x":NaN}}`, 0, "a value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(file(c.header, c.data))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestReadHeaderRefusesLengthsThatLie(t *testing.T) {
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"no file", nil, "not a safetensors file"},
		{"seven bytes", make([]byte, 7), "not a safetensors file"},
		{"no header", make([]byte, 8), "empty"},
		{"beyond the file", []byte{3, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, "truncated"},
		{"beyond the limit", []byte{1, 0xe1, 0xf5, 5, 0, 0, 0, 0}, "at most 100000000"},
		{"largest number", bytes.Repeat([]byte{0xff}, 16), "at most 100000000"},
		{"sign bit", []byte{0, 0, 0, 0, 0, 0, 0, 0x80, '{', '}'}, "at most 100000000"},
		{"a zip file", []byte("PK\x03\x04aaaaaaaaaaaaaaaa"), "not a safetensors file"},
	} {
		if _, err := read(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestReadHeaderFailsWhenTheFileIsShorterThanItsSize(t *testing.T) {
	b := file(`{}`, 0)
	for n := range b {
		if _, err := safetensors.ReadHeader(bytes.NewReader(b[:n]), int64(len(b))); err == nil {
			t.Errorf("no error with %d of %d bytes", n, len(b))
		}
	}
}

func TestTruncationAnywhereIsAnError(t *testing.T) {
	b := file(`{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}`, 8)
	if _, err := read(b); err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, err := read(b[:n]); err == nil {
			t.Errorf("no error at %d of %d bytes", n, len(b))
		}
	}
}

func TestNewHeaderReadsBack(t *testing.T) {
	tensors := []safetensors.Tensor{
		{Name: "w", DType: safetensors.F32, Shape: []int64{3, 5}},
		{Name: "scalar", DType: safetensors.BF16, Shape: []int64{}},
		{Name: "none", DType: safetensors.I64, Shape: []int64{0, 7}},
		{Name: "odd \"\\\n<é>\u2028", DType: safetensors.F8E4M3, Shape: []int64{3}},
	}
	for _, align := range []int{0, 1, 8, 64, 4096} {
		h, b, err := safetensors.NewHeader(tensors, map[string]string{"format": "pt", "a": "<b>"},
			align)
		if err != nil {
			t.Fatal(err)
		}
		if int(h.DataOffset) != len(b) || len(b)%max(align, 8) != 0 {
			t.Errorf("align %d: %d bytes, data at %d", align, len(b), h.DataOffset)
		}
		got, err := read(append(b, make([]byte, 60+2+0+3)...))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(h, got); diff != "" {
			t.Errorf("align %d: %s", align, diff)
		}
		_, again, _ := safetensors.NewHeader(tensors, map[string]string{"a": "<b>", "format": "pt"},
			align)
		if !bytes.Equal(b, again) {
			t.Errorf("align %d: two calls differ", align)
		}
	}
	if tensors[1].End != 0 {
		t.Error("the caller's tensors were changed")
	}
}

func TestNewHeaderOfNothingReadsBack(t *testing.T) {
	_, b, err := safetensors.NewHeader(nil, nil, 16)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := read(b); err != nil || len(h.Tensors) != 0 {
		t.Errorf("got %v, %v", h, err)
	}
	_, b, err = safetensors.NewHeader(nil, map[string]string{"format": "pt"}, 16)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := read(b); err != nil || h.Metadata["format"] != "pt" {
		t.Errorf("got %v, %v", h, err)
	}
}

func TestNewHeaderRefuses(t *testing.T) {
	big := safetensors.Tensor{Name: "big", DType: safetensors.U8, Shape: []int64{1 << 62}}
	more := big
	more.Name = "more"
	for name, tensors := range map[string][]safetensors.Tensor{
		"the same name twice": {{Name: "x", DType: safetensors.U8}, {Name: "x", DType: safetensors.U8}},
		"an empty name":       {{DType: safetensors.U8}},
		"the metadata's name": {{Name: "__metadata__", DType: safetensors.U8}},
		"bytes in a name":     {{Name: "\xff", DType: safetensors.U8}},
		"no dtype":            {{Name: "x"}},
		"a negative shape":    {{Name: "x", DType: safetensors.U8, Shape: []int64{-1}}},
		"half a byte":         {{Name: "x", DType: safetensors.F4, Shape: []int64{1}}},
		"an endless file":     {big, more},
	} {
		if _, _, err := safetensors.NewHeader(tensors, nil, 8); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add(file(`{}`, 0))
	f.Add(file(`{"__metadata__":{"a":"b"},"x":{"dtype":"F4","shape":[2,2],"data_offsets":[0,2]}}`,
		2))
	f.Add(file(`{"\ud83d\ude00":{"dtype":"BOOL","shape":[],"data_offsets":[0,1],"z":[{"a":-1.5e3}]}}`, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := read(b)
		if err != nil {
			return
		}
		at := int64(0)
		for _, x := range h.Tensors {
			if n, err := safetensors.Size(x.DType, x.Shape); err != nil || x.Begin != at ||
				x.End-x.Begin != n {
				t.Fatalf("accepted %+v at %d (%d, %v)", x, at, n, err)
			}
			at = x.End
		}
		if h.DataOffset+at != int64(len(b)) {
			t.Fatalf("accepted %d bytes with data that ends at %d", len(b), h.DataOffset+at)
		}
		again, enc, err := safetensors.NewHeader(h.Tensors, h.Metadata, 8)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(append(enc, b[h.DataOffset:]...))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(again.Tensors, got.Tensors); diff != "" {
			t.Fatal(diff)
		}
	})
}

// BenchmarkReadHeader reads the header of a shard of DeepSeek-V3's size, 565 tensors.
func BenchmarkReadHeader(b *testing.B) {
	tensors := make([]safetensors.Tensor, 565)
	for i := range tensors {
		tensors[i] = safetensors.Tensor{
			Name:  fmt.Sprintf("model.layers.%d.mlp.experts.%d.gate_proj.weight", i/256, i%256),
			DType: safetensors.F8E4M3, Shape: []int64{0, 7168},
		}
	}
	_, enc, err := safetensors.NewHeader(tensors, nil, 8)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(enc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := read(enc); err != nil {
			b.Fatal(err)
		}
	}
}
