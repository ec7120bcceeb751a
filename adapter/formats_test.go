package adapter

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// The goldens are results of the published libraries: the SHA-256 of each tensor of the hf view.
func TestFormatsEqualTheirLibraries(t *testing.T) {
	dirs, err := filepath.Glob("../testdata/golden/formats/*/expected.json")
	if err != nil || len(dirs) < 10 {
		t.Fatalf("%d goldens, error %v", len(dirs), err)
	}
	for _, path := range dirs {
		dir := filepath.Dir(path)
		for name, d := range dtypes {
			t.Run(filepath.Base(dir)+" "+name, func(t *testing.T) {
				equalGolden(t, dict(t, openedAt(t, dir), Options{Layout: "hf", DType: d}), path,
					strings.ToLower(name))
			})
		}
	}
}

// equalGolden compares a view with an expected.json.
func equalGolden(t *testing.T, d *StateDict, path, dtype string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		HF map[string]struct {
			Shape                         []int64
			DType, SHA256, BF16, F32, F16 string
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	if d.Len() != len(golden.HF) {
		t.Errorf("%d tensors, want %d", d.Len(), len(golden.HF))
	}
	for name, want := range golden.HF {
		got, ok := d.Tensor(name)
		if !ok {
			t.Errorf("%s: missing", name)
			continue
		}
		sum := sha256.Sum256(content(t, got))
		hash := map[string]string{"bf16": want.BF16, "f32": want.F32, "f16": want.F16}[dtype]
		if want.SHA256 != "" {
			hash = want.SHA256
		}
		if hex.EncodeToString(sum[:]) != hash || !slices.Equal(got.Shape(), want.Shape) {
			t.Errorf("%s %s %v: other bytes than the library's, want shape %v",
				name, got.DType(), got.Shape(), want.Shape)
		}
	}
}

// toyFormat is a complete format: a row, and code to decode it. A value is its byte times the
// single number of the scale, which has its own name.
var toyFormat = &format{
	name: "a toy", codes: ".toy_codes", parts: []string{".toy_scale"},
	open: func(o *opening) (decoder, error) {
		return toy{o.part(".toy_codes"), o.part(".toy_scale")}, nil
	},
}

type toy struct{ codes, scale *Stored }

func (d toy) shape() []int64 { return d.codes.Shape }

func (d toy) describe() (string, safetensors.DType) { return "one scale per tensor", d.scale.DType }

func (d toy) node(out safetensors.DType) (expr.Node, error) {
	codes := d.codes.Source
	codes.DType = safetensors.F8E4M3
	return expr.Dequantize(&codes, &d.scale.Source, expr.DequantizeOptions{Out: out})
}

// Only a row was written for the toy format. It must be decoded, shown under the module's name with
// ".weight", and accounted for.
func TestAFormatIsOneRow(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	codes := synth.Tensor{Name: "m.toy_codes", DType: "U8", Shape: []int64{6, 10},
		Data: synth.Random(rng, "F8_E4M3", []int64{6, 10})}
	scale := synth.Tensor{Name: "m.toy_scale", DType: "F32", Shape: []int64{1},
		Data: synth.Random(rng, "F32", []int64{1})}
	bias := synth.Tensor{Name: "m.bias", DType: "BF16", Shape: []int64{6}, Data: make([]byte, 12)}
	c := opened(t, &synth.Checkpoint{Config: map[string]any{},
		Tensors: []synth.Tensor{bias, codes, scale}})
	c.pairing.once.Do(func() {
		p := &pairer{c: c, table: newFormatTable(append([]*format{toyFormat}, formats...))}
		if err := p.run(); err != nil {
			t.Fatal(err)
		}
		c.pairing.weights = p.weights
	})
	want := synth.Tensor{Name: "m.weight", DType: "BF16", Shape: codes.Shape}
	for _, b := range codes.Data {
		want.Data = append(want.Data, synth.Round("BF16", synth.E4M3(b)*number32(scale, 0))...)
	}
	d := dict(t, c, Options{Layout: "hf"})
	equal(t, d, []synth.Tensor{want, bias})
	for _, a := range d.Plan.Account {
		if a.Fate == Dropped || len(a.Into) != 1 {
			t.Errorf("%s: %s, into %v", a.Key, a.Fate, a.Into)
		}
	}
}

// Only a format's own file and the table may name a format. So a new format changes no other file.
func TestOnlyFilesOfFormatsNameThem(t *testing.T) {
	words := map[string]bool{}
	for _, f := range formats {
		for _, w := range regexp.MustCompile(`[A-Z][A-Z]+[A-Z0-9]*`).FindAllString(f.name, -1) {
			words[w] = true
		}
	}
	delete(words, "FP8") // the number format, which packages and layouts are named after
	if len(words) < 15 {
		t.Fatalf("only %d names of formats: %v", len(words), words)
	}
	own := regexp.MustCompile(`/(format_\w+|leftovers)\.go$`)
	for _, pattern := range []string{"../adapter/*.go", "../adapter/*/*.go", "../fs/*.go",
		"../fs/*/*.go", "../cmd/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") || own.MatchString(path) {
				continue
			}
			for _, w := range wordsIn(t, path) {
				if words[w] {
					t.Errorf("%s names the format %s", path, w)
				}
			}
		}
	}
}

// wordsIn returns the words of all names and strings of a file, but not of its comments.
func wordsIn(t *testing.T, path string) (words []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile(`[A-Za-z0-9]+`)
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			words = append(words, n.Name)
		case *ast.BasicLit:
			words = append(words, word.FindAllString(n.Value, -1)...)
		}
		return true
	})
	return words
}

func TestTheTableOfFormatsIsSound(t *testing.T) {
	if n := len(knownFormats.endings); n > 128 {
		t.Errorf("%d endings: a set holds 128", n)
	}
	for _, r := range knownFormats.rows {
		if r.name == "" || len(r.parts)+len(r.format.signs) == 0 && r.fits == nil {
			t.Errorf("%+v: a row without a name, or that fits everything", r.format)
		}
		if r.open == nil && len(r.read)+len(r.optional) > 0 && r.name != "MLX" {
			t.Errorf("%s: tensors of a format that is not decoded are read", r.name)
		}
	}
	for key, want := range map[string][2]string{
		"a.b.weight_scale_inv":        {"a.b", ".weight_scale_inv"},
		"a.b.weight_scale":            {"a.b", ".weight_scale"},
		"a.gate_up_proj_scale_inv":    {"a.gate_up_proj", "_scale_inv"},
		"a.gate_up_proj_weight_scale": {"a.gate_up_proj", "_weight_scale"},
		"a.w.weight.absmax":           {"a.w", ".weight.absmax"},
		"a.experts.up_proj.absmax":    {"a.experts.up_proj", ".absmax"},
		"a.b.weight":                  {},
		"a.b.bias":                    {},
		"a.b.weight_scaled":           {},
		"_scale":                      {},
	} {
		module, e := knownFormats.split(key)
		if got := ""; e != nil {
			got = e.text
			if module != want[0] || got != want[1] {
				t.Errorf("%s: %q and %q, want %q", key, module, got, want)
			}
		} else if want[1] != "" {
			t.Errorf("%s: no ending, want %q", key, want)
		}
	}
}

// Each format that is not decoded must be refused by name before scales are checked. The error must
// not suggest to download something that is not missing.
func TestFormatsThatAreNotDecodedAreRefusedByName(t *testing.T) {
	m := func(rows, cols int64) []int64 { return []int64{rows, cols} }
	for name, tensors := range map[string][]tensor{
		"AWQ scales":         {{"x.weight", "U8", m(8, 16)}, {"x.weight_scale", "F32", nil}, {"x.pre_quant_scale", "F32", []int64{32}}},
		"SVDQuant":           {{"x.weight", "U8", m(8, 16)}, {"x.svdquant_lora_a", "BF16", m(4, 32)}},
		"SDNQ":               {{"x.weight", "F8_E4M3", m(8, 16)}, {"x.scale", "F32", m(8, 1)}, {"x.svd_up", "BF16", m(8, 4)}, {"x.svd_down", "BF16", m(4, 16)}},
		"NVFP4-CSF":          {{"x.weight", "U8", m(8, 16)}, {"x.weight_scale.nvfp4_csf_fixed", "U8", m(8, 2)}},
		"EXL3":               {{"x.trellis", "I16", m(4, 4)}, {"x.suh", "F16", []int64{8}}, {"x.svh", "F16", []int64{8}}},
		"EXL2":               {{"x.q_weight", "I32", m(4, 4)}, {"x.q_scale_max", "F16", []int64{8}}},
		"HQQ":                {{"x.W_q", "U8", m(4, 4)}, {"x.scale", "F16", m(8, 1)}, {"x.zero", "F16", m(8, 1)}},
		"EETQ":               {{"x.weight", "I8", m(8, 16)}, {"x.weight_scales", "F16", []int64{8}}},
		"AQLM":               {{"x.codebooks", "F16", []int64{1, 4, 1, 8}}, {"x.codes", "I8", m(8, 2)}, {"x.scales", "F16", m(8, 1)}},
		"torchao":            {{"x._weight_qdata", "I8", m(8, 16)}, {"x._weight_scale", "BF16", m(8, 1)}},
		"sparse pack":        {{"x.weight.compressed", "BF16", m(8, 8)}, {"x.weight.bitmask", "U8", m(8, 2)}},
		"sparse pack ":       {{"x.weight_scale", "F32", m(8, 1)}, {"x.compressed", "F8_E4M3", m(8, 8)}, {"x.bitmask", "U8", m(8, 2)}, {"x.shape", "I64", []int64{2}}},
		"sparse pack  ":      {{"x.weight_scale", "F32", []int64{1}}, {"x.compressed", "F8_E4M3", []int64{64}}, {"x.bitmask", "U8", m(8, 2)}, {"x.row_offsets", "I64", m(8, 1)}},
		"order of a kernel":  {{"x.weight", "F8_E4M3", m(128, 128)}, {"x.weight_scale", "U8", m(128, 4)}, {"x.comfy_quant", "U8", []int64{20}}},
		"order of a kernel ": {{"x.weight", "F8_E4M3", m(128, 128)}, {"x.weight_scale", "F8_E8M0", m(128, 4)}, {"x.comfy_quant", "U8", []int64{20}}},
		"kernel (ComfyUI)":   {{"x.weight", "U8", m(128, 64)}, {"x.weight_scale", "F8_E4M3", m(128, 8)}, {"x.weight_scale_2", "F32", nil}, {"x.comfy_quant", "U8", []int64{20}}},
		"MLX":                {{"x.weight", "U32", m(8, 4)}, {"x.scales", "BF16", m(8, 1)}, {"x.biases", "BF16", m(8, 1)}},
		"MXFP6":              {{"x.weight_packed", "U8", m(8, 48)}, {"x.weight_scale", "U8", m(8, 2)}},
		"grouped experts":    {{"experts.up_proj_weight_packed", "I32", []int64{2, 8, 4}}, {"experts.up_proj_weight_scale", "BF16", []int64{2, 8, 1}}},
		"grouped experts ":   {{"experts.up_proj_packed", "U8", []int64{2, 8, 16}}, {"experts.up_proj_scale", "F8_E4M3", []int64{2, 8, 2}}},
		"OpenAI's own":       {{"mlp.mlp1_weight.blocks", "U8", []int64{2, 8, 1, 16}}, {"mlp.mlp1_weight.scales", "U8", []int64{2, 8, 1}}},
		"ordered groups":     {{"x.weight", "F8_E4M3", m(8, 64)}, {"x.weight_scale", "BF16", m(8, 2)}, {"x.weight_g_idx", "I32", []int64{64}}},
		"zero points":        {{"x.weight", "F8_E4M3", m(8, 64)}, {"x.weight_scale", "BF16", m(8, 2)}, {"x.weight_zero_point", "F8_E4M3", m(8, 2)}},
		"INT8 without":       {{"x.weight", "I8", m(8, 16)}},
		"pack of bytes":      {{"x.weight", "U8", m(8, 16)}},
		"pack of integers":   {{"x.weight", "I32", m(8, 16)}},
		"FP8 E4M3FNUZ":       {{"x.weight", "F8_E4M3FNUZ", m(8, 16)}, {"x.weight_scale", "F32", nil}},
	} {
		c := &synth.Checkpoint{Config: map[string]any{}}
		// The first scale is part of nothing. The error must not be about it.
		c.Tensors = append(c.Tensors, synth.Tensor{Name: "a.weight_scale", DType: "F32",
			Shape: m(3, 3)})
		for _, x := range tensors {
			c.Tensors = append(c.Tensors, synth.Tensor{Name: "model.layers.0." + x.key,
				DType: x.dtype, Shape: x.shape})
		}
		_, err := NewPlan(opened(t, c), Options{Layout: "hf"})
		if err == nil {
			t.Errorf("%s: a plan, want an error", name)
			continue
		}
		said := err.Error()
		if !strings.Contains(said, strings.TrimSpace(name)) ||
			!strings.Contains(said, "model.layers.0.") ||
			!strings.Contains(said, "is not decoded: ") {
			t.Errorf("%s: error %q", name, said)
		}
		if strings.Contains(said, "without its") || strings.Contains(said, "incomplete") ||
			strings.Contains(said, "download") {
			t.Errorf("%s: error %q speaks of something missing", name, said)
		}
	}
}

func TestRotatedWeightsAreRefused(t *testing.T) {
	for _, config := range []string{
		`{"quantization_config": {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"R1": {}}}}}`,
		`{"online-rotate": true}`,
	} {
		s, err := parseSettings([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		_,
			err = NewPlan(opened(t, &synth.Checkpoint{Config: s,
			Tensors: []synth.Tensor{{Name: "x", DType: "BF16", Shape: []int64{1}}}}),
			Options{Layout: "hf"})
		if err == nil || !strings.Contains(err.Error(), "rotated") {
			t.Errorf("%s: error %v", config, err)
		}
	}
}

// The metadata of a shard may say, in place of a tensor, that scales are in kernel order. Their
// shape is that of scales row by row.
func TestScalesInTheOrderOfAKernelAreRefused(t *testing.T) {
	stored := map[string][]safetensors.Tensor{
		"mxfp8": {{Name: "x.weight", DType: safetensors.F8E4M3, Shape: []int64{128, 128}},
			{Name: "x.weight_scale", DType: safetensors.U8, Shape: []int64{128, 4}}},
		"nvfp4": {{Name: "x.weight", DType: safetensors.U8, Shape: []int64{128, 64}},
			{Name: "x.weight_scale", DType: safetensors.F8E4M3, Shape: []int64{128, 8}},
			{Name: "x.weight_scale_2", DType: safetensors.F32}},
	}
	for _, test := range []struct {
		tensors, format string
		refused         bool
	}{
		{"mxfp8", "mxfp8", true}, {"mxfp8", "hybrid_mxfp8", true},
		{"mxfp8", "float8_e4m3fn", false},
		{"nvfp4", "nvfp4", true}, {"nvfp4", "float8_e4m3fn", false},
	} {
		tensors, end := slices.Clone(stored[test.tensors]), int64(0)
		for i := range tensors {
			x := &tensors[i]
			x.Begin = end
			end += product(x.Shape) * int64(x.DType.Bits()/8)
			x.End = end
		}
		metadata := `{"format_version": "1.0", "layers": {"x": {"format": "` + test.format + `"}}}`
		_, b, err := safetensors.NewHeader(tensors,
			map[string]string{"_quantization_metadata": metadata}, 8)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for name, data := range map[string][]byte{"config.json": []byte("{}"),
			"model.safetensors": append(b, make([]byte, end)...)} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		_, err = NewPlan(openedAt(t, dir), Options{Layout: "hf"})
		if (err != nil) != test.refused || test.refused &&
			!strings.Contains(err.Error(), "x.weight: scales in the order of a kernel "+
				"(ComfyUI) is not decoded: ") {
			t.Errorf("%s of %s: error %v", test.format, test.tensors, err)
		}
	}
}

// An ending that formats share with parameters of models does not make a format alone.
func TestParametersThatAreCalledAsPartsOfFormatsPass(t *testing.T) {
	c := &synth.Checkpoint{Config: map[string]any{}}
	for _, key := range []string{"attn.q_weight", "quantizer.codebooks", "a.weight_scales",
		"b.scale_packed", "c.compressed", "d.bitmask", "e.q_scale_max"} {
		c.Tensors = append(c.Tensors, random(rand.New(rand.NewPCG(31, 32)), "model.layers.0."+key,
			"F32", 4, 4))
	}
	equal(t, dict(t, opened(t, c), Options{Layout: "hf"}), c.Tensors)
}

// The help lists what each format is recognised by, and every method that is refused.
func TestTheHelpListsEveryFormat(t *testing.T) {
	raw, err := os.ReadFile("../cmd/dequantfs/help/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	help := string(raw)
	for _, f := range formats {
		if f.open == nil {
			continue
		}
		for _, ending := range slices.Concat(f.needed(), f.optional) {
			grouped := strings.Replace(ending, "_", ".", 1)
			for _, short := range []string{".absmax", ".quant_", ".nested_"} { // of grouped experts
				if strings.HasPrefix(ending, short) {
					ending = ".weight" + ending
				}
			}
			ending = strings.Replace(ending, "__fp4", "__nf4", 1) // listed together
			if !strings.Contains(help, "`X"+ending+"`") &&
				!strings.Contains(help, "`X"+grouped+"`") {
				t.Errorf("%s: no `X%s` in the help", f.name, ending)
			}
		}
	}
	for _, method := range undecodedMethods {
		if !strings.Contains(strings.ToLower(help), method) {
			t.Errorf("the refused method %s is not in the help", method)
		}
	}
}
