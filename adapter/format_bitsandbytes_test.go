package adapter

import (
	"reflect"
	"strings"
	"testing"
)

const plainState = `{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [48, 32]}`

const nestedText = `{"quant_type": "fp4", "blocksize": 128, "dtype": "float16", "shape": [3, 48, 32], ` +
	`"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.038926538079977036}`

func TestDescriptionsOfFourBitsAreRead(t *testing.T) {
	for text, want := range map[string]quantState{
		plainState: {"nf4", 64, []int64{48, 32}, nil},
		nestedText: {"fp4", 128, []int64{3, 48, 32}, &nestedScales{256, 0.038926538079977036}},
		" \n" + strings.ReplaceAll(plainState, " ", "\t") + "\r": {"nf4", 64, []int64{48, 32}, nil},
		strings.Replace(nestedText, "0.038926538079977036", "-1", 1): {"fp4", 128,
			[]int64{3, 48, 32}, &nestedScales{256, -1}},
		strings.Replace(plainState, "[48, 32]", "[7]", 1): {"nf4", 64, []int64{7}, nil},
	} {
		got, err := parseQuantState([]byte(text))
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestDescriptionsOfFourBitsThatLieAreRefused(t *testing.T) {
	for change, want := range map[[2]string]string{
		{"64", "0"}:                    "blocksize is 0: expected a whole number",
		{"64", "-64"}:                  "blocksize is -64: expected",
		{"64", "64.0"}:                 "blocksize is 64.0: expected",
		{"64", "6e1"}:                  "blocksize is 6e1: expected",
		{"64", "99999999999999999999"}: "blocksize is 9999",
		{"64", "4294967296"}:           "blocksize is 4294967296: expected",
		{"64", `"64"`}:                 `blocksize is "64": expected`,
		{"64", "true"}:                 "blocksize is true: expected",
		{"64", "NaN"}:                  "blocksize is NaN: expected",
		{`"blocksize": 64, `, ""}:      "blocksize is missing: expected",
		{`"blocksize": 64, `, `"blocksize": 64, "blocksize": 64, `}:    "blocksize is there twice",
		{`"blocksize": 64, `, `"blocksize": 64, "block\u0073ize": 3,`}: "blocksize is there twice",
		{`"blocksize": 64, `, `"blocksize": 64, "size": 3, `}:          `"size" is not a field`,
		{"[48, 32]", "[]"}:                                             "shape is []: expected",
		{"[48, 32]", "[48, -32]"}:                                      "shape is [48, -32]: expected",
		{"[48, 32]", "[0, 32]"}:                                        "shape is [0, 32]: expected",
		{"[48, 32]", "[48, 3.5]"}:                                      "shape is [48, 3.5]: expected",
		{"[48, 32]", "[48, [32]]"}:                                     "shape is [48, [32]]: expected",
		{"[48, 32]", "[4294967296, 4294967296]"}:                       "shape is [4294967296, 4294967296]: expected",
		{"[48, 32]", "[9223372036854775807, 9223372036854775807]"}:     "shape is [9223",
		{"[48, 32]", "[1,1,1,1,1,1,1,1,1]"}:                            "shape is [1,1",
		{"[48, 32]", "48"}:                                             "shape is 48: expected",
		{"[48, 32]", `{"48": 32}`}:                                     "shape is {",
		{`, "shape": [48, 32]`, ""}:                                    "shape is missing: expected",
		{`"nf4"`, `"int8"`}:                                            `quant_type is "int8": expected one of`,
		{`"nf4"`, `4`}:                                                 "quant_type is 4: expected a string",
		{`"bfloat16"`, `"int8"`}:                                       `dtype is "int8": expected one of`,
		{`, "dtype": "bfloat16"`, ""}:                                  "dtype is missing",
		{"}", `, "nested_offset": 1}`}:                                 "nested_blocksize is missing",
		{"}", `, "nested_blocksize": 256, "nested_dtype": "float32"}`}: "nested_offset is missing",
		{"}", `, "nested_blocksize": 256, "nested_offset": 0}`}:        "nested_dtype is missing",
		{"}", `, "nested_blocksize": 256, "nested_dtype": "float16", "nested_offset": 0}`}:        "nested_dtype is \"float16\": expected",
		{"}", `, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 1e39}`}:     "nested_offset is 1e39: expected",
		{"}", `, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": NaN}`}:      "nested_offset is NaN: expected",
		{"}", `, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": Infinity}`}: "nested_offset is Infinity: expected",
		{"}", `, "nested_blocksize": -1, "nested_dtype": "float32", "nested_offset": 0}`}:         "nested_blocksize is -1: expected",
		{"}", ""}:                            "unexpected EOF",
		{"}", "} {}"}:                        "something follows it",
		{"}", "}\x00"}:                       "something follows it",
		{plainState, "[]"}:                   "not a JSON object",
		{plainState, ""}:                     "not a JSON object",
		{`{"quant`, "{\"\xff\": 1, \"quant"}: "is not a field",
	} {
		text := strings.Replace(plainState, change[0], change[1], 1)
		s, err := parseQuantState([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, error %v, want %q", text, s, err, want)
		}
	}
}

func FuzzQuantState(f *testing.F) {
	f.Add([]byte(plainState))
	f.Add([]byte(nestedText))
	f.Add([]byte(`{"shape":[9223372036854775807,2]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseQuantState(text)
		if err != nil {
			return
		}
		n := product(s.shape)
		if n < 1 || n > maxStateValues || s.block < 1 || s.nested != nil && s.nested.block < 1 {
			t.Errorf("%s: %+v", text, s)
		}
	})
}
