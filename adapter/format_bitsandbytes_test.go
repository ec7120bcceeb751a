package adapter

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
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

// fourBitTensors returns the tensors of a weight of 8 rows and 64 columns in blocks of 64. name is
// that of the weight.
func fourBitTensors(name string) []synth.Tensor {
	return []synth.Tensor{
		{Name: name, DType: "U8", Shape: []int64{256, 1}},
		{Name: name + ".absmax", DType: "F32", Shape: []int64{8}},
		{Name: name + ".quant_map", DType: "F32", Shape: []int64{16}},
		stateTensor(name, plainState, "[48, 32]", "[8, 64]"),
	}
}

// nestedTensors returns the tensors of the same weight with scales that are codes.
func nestedTensors(name string) []synth.Tensor {
	all := fourBitTensors(name)
	all[1].DType = "U8"
	all[3] = stateTensor(name, nestedText, `"fp4", "blocksize": 128`, `"nf4", "blocksize": 64`,
		"[3, 48, 32]", "[8, 64]")
	return append(all, synth.Tensor{Name: name + ".nested_absmax", DType: "F32", Shape: []int64{1}},
		synth.Tensor{Name: name + ".nested_quant_map", DType: "F32", Shape: []int64{256}})
}

// stateTensor returns the description of a weight after replacements.
func stateTensor(name, text string, changes ...string) synth.Tensor {
	text = strings.NewReplacer(changes...).Replace(text)
	return synth.Tensor{Name: name + ".quant_state.bitsandbytes__nf4", DType: "U8",
		Shape: []int64{int64(len(text))}, Data: []byte(text)}
}

// eightBitTensors returns the tensors of a weight in 8 bits.
func eightBitTensors(module string, order byte) []synth.Tensor {
	return []synth.Tensor{
		{Name: module + ".weight", DType: "I8", Shape: []int64{8, 64}},
		{Name: module + ".SCB", DType: "F32", Shape: []int64{8}},
		{Name: module + ".weight_format", DType: "U8", Data: []byte{order}},
	}
}

const fourBitConfig = `{"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}`

func TestBitsandbytesIsRecognisedByItsTensors(t *testing.T) {
	const weight, experts = upProj + ".weight", "model.layers.0.mlp.experts.gate_up_proj"
	changedTo := func(all []synth.Tensor, i int, dtype string, shape ...int64) []synth.Tensor {
		all[i].DType, all[i].Shape = dtype, shape
		return all
	}
	stacked := fourBitTensors(experts)
	stacked[3] = stateTensor(experts, plainState, "[48, 32]", "[2, 4, 64]")
	odd := changedTo(changedTo(fourBitTensors(weight), 0, "U8", 23, 1), 1, "F32", 1)
	odd[3] = stateTensor(weight, plainState, "[48, 32]", "[5, 9]")
	for name, x := range map[string]struct {
		tensors []synth.Tensor
		key     string
		shape   []int64
		want    string
	}{
		"plain":         {fourBitTensors(weight), weight, []int64{8, 64}, "1 bitsandbytes NF4, blocks of 64, F32"},
		"nested":        {nestedTensors(weight), weight, []int64{8, 64}, "1 bitsandbytes NF4, blocks of 64, with scales in blocks of their own, U8"},
		"as BF16":       {changedTo(fourBitTensors(weight), 0, "BF16", 128, 1), weight, []int64{8, 64}, "1 bitsandbytes NF4, blocks of 64, F32"},
		"as F32":        {changedTo(fourBitTensors(weight), 0, "F32", 64, 1), weight, []int64{8, 64}, "1 bitsandbytes NF4, blocks of 64, F32"},
		"odd":           {odd, weight, []int64{5, 9}, "1 bitsandbytes NF4, blocks of 64, F32"},
		"odd, as F16":   {changedTo(odd, 0, "F16", 12, 1), weight, []int64{5, 9}, "1 bitsandbytes NF4, blocks of 64, F32"},
		"parameter":     {stacked, experts, []int64{2, 4, 64}, "1 bitsandbytes NF4, blocks of 64, F32"},
		"INT8":          {eightBitTensors(upProj, 0), weight, []int64{8, 64}, "1 bitsandbytes INT8, one scale per row, F32"},
		"INT8, no mark": {eightBitTensors(upProj, 0)[:2], weight, []int64{8, 64}, "1 bitsandbytes INT8, one scale per row, F32"},
	} {
		c, err := plannedWords(t, fourBitConfig, "", x.tensors)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := summaryOf(t, c); got != x.want {
			t.Errorf("%s: %s, want %s", name, got, x.want)
		}
		d := dict(t, c, Options{Layout: "hf", DType: safetensors.F16})
		if w, ok := d.Tensor(x.key); !ok || !slices.Equal(w.Shape(), x.shape) || d.Len() != 1 {
			t.Errorf("%s: %d tensors, want one, %s %v", name, d.Len(), x.key, x.shape)
		}
		for _, a := range d.Plan.Account {
			if a.Fate != Used {
				t.Errorf("%s: %s is %s", name, a.Key, a.Fate)
			}
		}
	}
}

func TestBitsandbytesThatDoesNotFitIsRefused(t *testing.T) {
	const weight = upProj + ".weight"
	changed := func(all []synth.Tensor, i int, dtype string, shape ...int64) []synth.Tensor {
		all[i].DType, all[i].Shape, all[i].Data = dtype, shape, nil
		return all
	}
	restated := func(all []synth.Tensor, changes ...string) []synth.Tensor {
		all[3] = stateTensor(weight, string(all[3].Data), changes...)
		return all
	}
	renamed := fourBitTensors(weight)
	renamed[3].Name = weight + ".quant_state.bitsandbytes__fp4"
	for name, x := range map[string]struct {
		tensors []synth.Tensor
		want    []string
	}{
		"codes of I32":            {changed(fourBitTensors(weight), 0, "I32", 64, 1), []string{weight, "stored as I32", "expected U8"}},
		"a row of codes":          {changed(fourBitTensors(weight), 0, "U8", 1, 256), []string{weight, "[1 256]", "a column"}},
		"too few codes":           {changed(fourBitTensors(weight), 0, "U8", 255, 1), []string{weight, "[255 1]", "shape [8 64]", "256 bytes"}},
		"too many codes":          {changed(fourBitTensors(weight), 0, "BF16", 129, 1), []string{weight, "[129 1]", "256 bytes"}},
		"too few scales":          {changed(fourBitTensors(weight), 1, "F32", 7), []string{weight + ".absmax", "F32 [7]", "F32 [8]"}},
		"scales of BF16":          {changed(fourBitTensors(weight), 1, "BF16", 8), []string{weight + ".absmax", "BF16 [8]", "F32 [8]"}},
		"codes as scales":         {changed(fourBitTensors(weight), 1, "U8", 8), []string{weight + ".absmax", "U8 [8]", "F32 [8]"}},
		"nested scales of F32":    {changed(nestedTensors(weight), 1, "F32", 8), []string{weight + ".absmax", "F32 [8]", "U8 [8]"}},
		"numbers of BF16":         {changed(fourBitTensors(weight), 2, "BF16", 16), []string{weight + ".quant_map", "BF16 [16]", "F32 [16]"}},
		"numbers of 8 bits":       {changed(fourBitTensors(weight), 2, "F32", 256), []string{weight + ".quant_map", "F32 [256]", "F32 [16]"}},
		"a huge description":      {changed(fourBitTensors(weight), 3, "U8", 1<<20), []string{".quant_state.bitsandbytes__nf4", "at most 4096 bytes"}},
		"another shape":           {restated(fourBitTensors(weight), "[8, 64]", "[64, 64]"), []string{weight, "shape [64 64]", "2048 bytes"}},
		"another block":           {restated(fourBitTensors(weight), `"blocksize": 64`, `"blocksize": 32`), []string{weight + ".absmax", "blocks of 32", "F32 [16]"}},
		"another type":            {renamed, []string{".quant_state.bitsandbytes__fp4", `quant_type is "nf4"`, `"fp4"`}},
		"another type configured": {fourBitTensors(weight), []string{".quant_state.bitsandbytes__nf4", `quant_type is "nf4"`, `bnb_4bit_quant_type is "fp4"`}},
		"nested without numbers":  {nestedTensors(weight)[:5], []string{".quant_state.bitsandbytes__nf4", "nested_quant_map", "missing"}},
		"nested without scales":   {append(nestedTensors(weight)[:4], nestedTensors(weight)[5]), []string{".quant_state.bitsandbytes__nf4", "nested_absmax", "missing"}},
		"nested, not described":   {append(fourBitTensors(weight), nestedTensors(weight)[4:]...), []string{".quant_state.bitsandbytes__nf4", "nested_blocksize", "missing"}},
		"short nested numbers":    {changed(nestedTensors(weight), 5, "F32", 255), []string{weight + ".nested_quant_map", "F32 [255]", "F32 [256]"}},
		"nested scales that lack": {changed(nestedTensors(weight), 4, "F32", 2), []string{weight + ".nested_absmax", "F32 [2]", "F32 [1]"}},
		"no description":          {fourBitTensors(weight)[:3], []string{"bitsandbytes", "quant_state", "is not decoded"}},
		"no numbers":              {append(fourBitTensors(weight)[:2], fourBitTensors(weight)[3]), []string{weight, "without " + weight + ".quant_map"}},
		"no codes":                {fourBitTensors(weight)[1:], []string{".quant_state.bitsandbytes__nf4", "without " + weight}},
		"INT8 in a kernel order":  {eightBitTensors(upProj, 2), []string{upProj + ".weight_format is 2", "not decoded"}},
		"INT8, mark of 4 bytes":   {changed(eightBitTensors(upProj, 0), 2, "F32"), []string{upProj + ".weight_format", "F32", "U8"}},
		"INT8, too few scales":    {changed(eightBitTensors(upProj, 0), 1, "F32", 7), []string{upProj + ".SCB", "F32 [7]", "F32 [8]"}},
		"INT8, scales of F16":     {changed(eightBitTensors(upProj, 0), 1, "F16", 8), []string{upProj + ".SCB", "F16 [8]", "F32 [8]"}},
		"INT8 of U8":              {changed(eightBitTensors(upProj, 0), 0, "U8", 8, 64), []string{weight, "U8", "a matrix of I8"}},
		"INT8 without codes":      {eightBitTensors(upProj, 0)[1:], []string{upProj + ".SCB", "without " + weight}},
	} {
		config := fourBitConfig
		if name == "another type configured" {
			config = strings.Replace(config, "nf4", "fp4", 1)
		}
		_, err := plannedWords(t, config, "", x.tensors)
		if err == nil {
			t.Errorf("%s: a plan, want an error", name)
			continue
		}
		for _, want := range append(x.want, "model-00001-of-000001.safetensors") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q, want %q", name, err, want)
			}
		}
	}
}
