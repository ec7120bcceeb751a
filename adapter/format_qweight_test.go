package adapter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// wordShape is the sizes of a weight in words of 32 bits: its rows are inputs, as stored.
type wordShape struct{ bits, in, out, groups int64 }

// gptq returns the tensors of a weight of GPTQ. list is its g_idx; nil: it has none.
func (w wordShape) gptq(module string, list []int32) []synth.Tensor {
	t := []synth.Tensor{
		{Name: module + ".qweight", DType: "I32", Shape: []int64{w.in * w.bits / 32, w.out}},
		{Name: module + ".qzeros", DType: "I32", Shape: []int64{w.groups, w.out * w.bits / 32}},
		{Name: module + ".scales", DType: "F16", Shape: []int64{w.groups, w.out}},
	}
	if list == nil {
		return t
	}
	data := make([]byte, 0, 4*len(list))
	for _, g := range list {
		data = binary.LittleEndian.AppendUint32(data, uint32(g))
	}
	return append(t, synth.Tensor{Name: module + ".g_idx", DType: "I32",
		Shape: []int64{int64(len(list))}, Data: data})
}

// awq returns the tensors of a weight of AWQ.
func (w wordShape) awq(module string) []synth.Tensor {
	return []synth.Tensor{
		{Name: module + ".qweight", DType: "I32", Shape: []int64{w.in, w.out / 8}},
		{Name: module + ".qzeros", DType: "I32", Shape: []int64{w.groups, w.out / 8}},
		{Name: module + ".scales", DType: "F16", Shape: []int64{w.groups, w.out}},
	}
}

// groupsBy returns a list of groups of n rows.
func groupsBy(n int, group func(i int) int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(group(i))
	}
	return list
}

const (
	gptqConfig = `{"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true, "desc_act": false}`
	awqConfig  = `{"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": true}`
	roundGPTQ  = `{"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": false, "packing_format": "auto_round:auto_gptq"}`
)

// changed replaces a part of a configuration.
func changed(t *testing.T, config, from, to string) string {
	t.Helper()
	if !strings.Contains(config, from) {
		t.Fatalf("%s does not contain %s", config, from)
	}
	return strings.Replace(config, from, to, 1)
}

// plannedWords makes a plan of tensors under a quantization_config. side is a quantize_config.json.
func plannedWords(t *testing.T, config, side string, tensors []synth.Tensor) (*Checkpoint, error) {
	t.Helper()
	c := &synth.Checkpoint{Config: map[string]any{}, Tensors: tensors}
	if config != "" {
		s, err := parseSettings([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		c.Config["quantization_config"] = map[string]any(s)
	}
	if side != "" {
		c.Side = map[string][]byte{"quantize_config.json": []byte(side)}
	}
	o := opened(t, c)
	_, err := NewPlan(o, Options{Layout: "hf", DType: safetensors.BF16})
	return o, err
}

// summaryOf returns the formats and partitions of a checkpoint.
func summaryOf(t *testing.T, c *Checkpoint) string {
	t.Helper()
	counts, err := Summary(c)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, n := range counts {
		all = append(all, fmt.Sprintf("%d %s, %s, %s", n.Weights, n.Format, n.Where, n.Scales))
	}
	return strings.Join(all, "; ")
}

const upProj = "model.layers.0.mlp.up_proj"

func TestWordsOf32BitsAreRecognisedByTheirShapes(t *testing.T) {
	four := wordShape{4, 64, 32, 2}
	sequence := groupsBy(64, func(i int) int { return i / 32 })
	order := groupsBy(64, func(i int) int { return i % 2 })
	for name, x := range map[string]struct {
		config, side string
		tensors      []synth.Tensor
		want         string
	}{
		"AWQ":                    {awqConfig, "", four.awq(upProj), "1 AWQ, groups of 32 in a row, F16"},
		"AWQ, one group":         {changed(t, awqConfig, "32", "-1"), "", wordShape{4, 64, 32, 1}.awq(upProj), "1 AWQ, one scale per row, F16"},
		"AWQ, a short group":     {awqConfig, "", wordShape{4, 70, 32, 3}.awq(upProj), "1 AWQ, groups of 32 in a row, F16"},
		"AWQ, GEMM":              {changed(t, awqConfig, "gemm", "GEMM"), "", four.awq(upProj), "1 AWQ, groups of 32 in a row, F16"},
		"AWQ of GPTQModel":       {changed(t, awqConfig, "version", "checkpoint_format"), "", four.awq(upProj), "1 AWQ, groups of 32 in a row, F16"},
		"AWQ without a word":     {"", "", four.awq(upProj), "1 AWQ, groups of 32 in a row, F16"},
		"AWQ in auto-round":      {changed(t, roundGPTQ, "auto_gptq", "auto_awq"), "", four.awq(upProj), "1 AWQ, groups of 32 in a row, F16"},
		"GPTQ":                   {gptqConfig, "", four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, a version":        {changed(t, gptqConfig, `"bits"`, `"version": "2.2.0", "bits"`), "", four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, g_idx":            {gptqConfig, "", four.gptq(upProj, sequence), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, old g_idx":        {gptqConfig, "", four.gptq(upProj, make([]int32, 64)), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, desc_act":         {changed(t, gptqConfig, "false", "true"), "", four.gptq(upProj, order), "1 GPTQ, groups in a listed order, F16"},
		"GPTQ, desc_act in vain": {changed(t, gptqConfig, "false", "true"), "", four.gptq(upProj, sequence), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, no desc_act":      {changed(t, gptqConfig, `, "desc_act": false`, ""), "", four.gptq(upProj, order), "1 GPTQ, groups in a listed order, F16"},
		"GPTQ, one group":        {changed(t, gptqConfig, "32", "-1"), "", wordShape{4, 64, 32, 1}.gptq(upProj, make([]int32, 64)), "1 GPTQ, one scale per row, F16"},
		"GPTQ, a large group":    {changed(t, gptqConfig, "32", "128"), "", wordShape{4, 64, 32, 1}.gptq(upProj, make([]int32, 64)), "1 GPTQ, one scale per row, F16"},
		"GPTQ, a short group":    {gptqConfig, "", wordShape{4, 72, 32, 3}.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, no group_size":    {changed(t, gptqConfig, `"group_size": 32, `, ""), "", four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, aside":            {"", `{"bits": 4, "group_size": 32, "sym": false, "desc_act": false}`, four.gptq(upProj, sequence), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, twice the same":   {gptqConfig, `{"bits": 4, "group_size": 32, "sym": true}`, four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, 2 bits":           {changed(t, gptqConfig, `"bits": 4`, `"bits": 2`), "", wordShape{2, 64, 32, 2}.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, 3 bits":           {changed(t, gptqConfig, `"bits": 4`, `"bits": 3`), "", wordShape{3, 64, 32, 2}.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, 8 bits":           {changed(t, gptqConfig, `"bits": 4`, `"bits": 8`), "", wordShape{8, 64, 4, 2}.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, some in 8 bits": {changed(t, gptqConfig, `"bits": 4`, `"dynamic": {"-:.*v_proj": {}, "+:.*\\.up_proj": {"bits": 8, "group_size": 16}}, "bits": 4`), "",
			append(wordShape{8, 64, 32, 4}.gptq(upProj, nil), four.gptq("model.layers.0.mlp.down_proj", nil)...),
			"1 GPTQ, groups of 16 in a row, F16; 1 GPTQ, groups of 32 in a row, F16"},
		"GPTQ, some under another name": {changed(t, gptqConfig, `"bits": 4`, `"dynamic": {"language_model.layers.0.mlp.up_proj": {"bits": 8, "group_size": 16}}, "bits": 4`), "",
			wordShape{8, 64, 32, 4}.gptq(upProj, nil), "1 GPTQ, groups of 16 in a row, F16"},
		"auto-round":         {roundGPTQ, "", four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"auto-round, twice":  {roundGPTQ, `{"checkpoint_format": "gptq", "quant_method": "gptq"}`, four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"auto-round, gptq":   {changed(t, roundGPTQ, "auto_gptq", "gptq"), "", four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"auto-round, no zp":  {changed(t, roundGPTQ, "auto_round:auto_gptq", "auto_round"), "", four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"auto-round, by sym": {changed(t, changed(t, roundGPTQ, `, "packing_format": "auto_round:auto_gptq"`, ""), "false", "true"), "", four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"auto-round, but a module": {changed(t, roundGPTQ, `"bits"`, `"extra_config": {"up_proj": {"bits": 8, "group_size": 16}, "model.layers.0.mlp.up_proj": {"sym": true}, ".*proj": {"bits": 16}}, "bits"`), "",
			four.gptq(upProj, nil), "1 GPTQ, groups of 32 in a row, F16"},
		"auto-round, of a pattern": {changed(t, roundGPTQ, `"bits"`, `"extra_config": {"mlp.*up": {"bits": 8, "group_size": 16}}, "bits"`), "",
			wordShape{8, 64, 32, 4}.gptq(upProj, nil), "1 GPTQ, groups of 16 in a row, F16"},
		"auto-round, of a module": {changed(t, roundGPTQ, `"bits"`, `"extra_config": {"model.layers.0.mlp.up_proj": {"bits": 8, "group_size": 16}, "v_proj": {"bits": 16}}, "bits"`), "",
			wordShape{8, 64, 32, 4}.gptq(upProj, nil), "1 GPTQ, groups of 16 in a row, F16"},
	} {
		c, err := plannedWords(t, x.config, x.side, x.tensors)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := summaryOf(t, c); got != x.want {
			t.Errorf("%s: %s, want %s", name, got, x.want)
		}
	}
}

func TestWordsOf32BitsThatAreNotUnderstoodAreRefused(t *testing.T) {
	patterns := make([]string, maxRules+1)
	for i := range patterns {
		patterns[i] = fmt.Sprintf(`"layer%d": {"bits": 8}`, i)
	}
	many := `"dynamic": {` + strings.Join(patterns, ", ") + `}, "bits"`
	four := wordShape{4, 64, 32, 2}
	without := func(all []synth.Tensor, ending string) (rest []synth.Tensor) {
		for _, x := range all {
			if !strings.HasSuffix(x.Name, ending) {
				rest = append(rest, x)
			}
		}
		return rest
	}
	retyped := func(all []synth.Tensor, ending, dtype string) []synth.Tensor {
		for i := range all {
			if strings.HasSuffix(all[i].Name, ending) {
				all[i].DType = dtype
			}
		}
		return all
	}
	order := groupsBy(64, func(i int) int { return i % 2 })
	beyond := groupsBy(64, func(i int) int { return i / 21 })
	for name, x := range map[string]struct {
		config, side string
		tensors      []synth.Tensor
		want         []string
	}{
		"AWQ, version gemv":       {changed(t, awqConfig, "gemm", "gemv"), "", four.awq(upProj), []string{`config.json: version "gemv" is not decoded`}},
		"AWQ, version gemv_fast":  {changed(t, awqConfig, "gemm", "gemv_fast"), "", four.awq(upProj), []string{`version "gemv_fast" is not decoded`}},
		"AWQ, version marlin":     {changed(t, awqConfig, "gemm", "marlin"), "", four.awq(upProj), []string{`version "marlin" is not decoded`}},
		"AWQ, version exllama":    {changed(t, awqConfig, "gemm", "exllama"), "", four.awq(upProj), []string{`version "exllama" is not decoded`}},
		"AWQ, shapes of gemv":     {"", "", []synth.Tensor{{Name: upProj + ".qweight", DType: "I32", Shape: []int64{32, 8}}, {Name: upProj + ".qzeros", DType: "I32", Shape: []int64{32, 1}}, {Name: upProj + ".scales", DType: "F16", Shape: []int64{32, 8}}}, nil},
		"AWQ, words of 16 bits":   {awqConfig, "", retyped(four.awq(upProj), "qweight", "I16"), []string{upProj + ".qweight", "GPTQ or AWQ", "is not decoded", "qweight I16 [64 4]", `quant_method "awq"`}},
		"AWQ, scales as numbers":  {awqConfig, "", retyped(four.awq(upProj), "scales", "I32"), []string{upProj + ".qweight", "is not decoded", "scales I32 [2 32]"}},
		"AWQ, no zero_point":      {changed(t, awqConfig, "true", "false"), "", four.awq(upProj), []string{upProj + ".qzeros", "zero_point false"}},
		"AWQ, another group_size": {changed(t, awqConfig, "32", "64"), "", four.awq(upProj), []string{upProj + ".qweight", "2 scales for 64 rows", "config.json: group_size 64"}},
		"AWQ, other bits":         {changed(t, awqConfig, `"bits": 4`, `"bits": 8`), "", four.awq(upProj), []string{upProj + ".qweight", "4 bits", "config.json: bits 8"}},
		"AWQ called GPTQ":         {gptqConfig, "", four.awq(upProj), []string{upProj + ".qweight", "shapes of AWQ", `quant_method "gptq"`}},
		"GPTQ called AWQ":         {awqConfig, "", four.gptq(upProj, nil), []string{upProj + ".qweight", "shapes of GPTQ", `quant_method "awq"`}},
		"GPTQ called FP8":         {`{"quant_method": "fp8"}`, "", four.gptq(upProj, nil), []string{upProj + ".qweight", `quant_method "fp8"`}},
		"two methods":             {gptqConfig, awqConfig, four.gptq(upProj, nil), []string{`config.json: quant_method "gptq"`, `quantize_config.json: quant_method "awq"`}},
		"GPTQ in an AWQ order":    {changed(t, gptqConfig, `"bits"`, `"checkpoint_format": "gemm", "bits"`), "", four.gptq(upProj, nil), []string{`quant_method "gptq"`, `checkpoint_format "gemm"`}},
		"marlin":                  {changed(t, gptqConfig, `"bits"`, `"checkpoint_format": "marlin", "bits"`), "", four.gptq(upProj, nil), []string{`checkpoint_format "marlin" is not decoded`}},
		"marlin, old":             {changed(t, gptqConfig, `"bits"`, `"is_marlin_format": true, "bits"`), "", four.gptq(upProj, nil), []string{`is_marlin_format`, "not decoded"}},
		"marlin, no words":        {changed(t, gptqConfig, `"bits"`, `"checkpoint_format": "marlin", "bits"`), "", []synth.Tensor{{Name: upProj + ".B", DType: "I32", Shape: []int64{4, 64}}, {Name: upProj + ".s", DType: "F16", Shape: []int64{2, 32}}}, []string{`checkpoint_format "marlin" is not decoded`}},
		"gptq_p":                  {changed(t, gptqConfig, `"bits"`, `"checkpoint_format": "gptq_p", "bits"`), "", four.gptq(upProj, nil), []string{`checkpoint_format "gptq_p" is not decoded`}},
		"two orders":              {changed(t, gptqConfig, `"bits"`, `"checkpoint_format": "gptq", "bits"`), `{"checkpoint_format": "gptq_v2"}`, four.gptq(upProj, nil), []string{`config.json: checkpoint_format "gptq"`, `quantize_config.json: checkpoint_format "gptq_v2"`}},
		"GPTQ, 5 bits":            {"", "", wordShape{5, 64, 32, 2}.gptq(upProj, nil), []string{upProj + ".qweight", "GPTQ in 5 bits", "is not decoded"}},
		"GPTQ, 6 bits":            {"", "", wordShape{6, 64, 32, 2}.gptq(upProj, nil), []string{"GPTQ in 6 bits", "is not decoded"}},
		"GPTQ, 7 bits":            {"", "", wordShape{7, 64, 32, 2}.gptq(upProj, nil), []string{"GPTQ in 7 bits", "is not decoded"}},
		"GPTQ, odd zero points":   {gptqConfig, "", []synth.Tensor{{Name: upProj + ".qweight", DType: "I32", Shape: []int64{8, 36}}, {Name: upProj + ".qzeros", DType: "I32", Shape: []int64{2, 5}}, {Name: upProj + ".scales", DType: "F16", Shape: []int64{2, 36}}}, []string{upProj + ".qzeros", "36 columns do not fit"}},
		"GPTQ, odd words":         {changed(t, gptqConfig, `"bits": 4`, `"bits": 3`), "", []synth.Tensor{{Name: upProj + ".qweight", DType: "I32", Shape: []int64{5, 32}}, {Name: upProj + ".qzeros", DType: "I32", Shape: []int64{2, 3}}, {Name: upProj + ".scales", DType: "F16", Shape: []int64{2, 32}}}, []string{upProj + ".qweight", "5 words in a column"}},
		"GPTQ, other bits":        {changed(t, gptqConfig, `"bits": 4`, `"bits": 8`), "", four.gptq(upProj, nil), []string{"4 bits", "config.json: bits 8"}},
		"GPTQ, other groups":      {changed(t, gptqConfig, "32", "128"), "", four.gptq(upProj, nil), []string{"2 scales for 64 rows", "config.json: group_size 128"}},
		"GPTQ, groups unknown":    {changed(t, gptqConfig, `"group_size": 32, `, ""), "", wordShape{4, 72, 32, 5}.gptq(upProj, nil), []string{upProj + ".scales", "no group_size"}},
		"GPTQ, no sym":            {changed(t, gptqConfig, `"sym": true, `, ""), "", four.gptq(upProj, nil), []string{upProj + ".qzeros", `"sym": true or false`}},
		"GPTQ, no description":    {"", "", four.gptq(upProj, nil), []string{upProj + ".qzeros", `"sym": true or false`}},
		"GPTQ, sym twice":         {gptqConfig, `{"sym": false}`, four.gptq(upProj, nil), []string{"config.json: sym true", "quantize_config.json: sym false"}},
		"GPTQ, bits twice":        {gptqConfig, `{"bits": 8}`, four.gptq(upProj, nil), []string{"config.json: bits 4", "quantize_config.json: bits 8"}},
		"GPTQ, sym as text":       {changed(t, gptqConfig, "true", `"yes"`), "", four.gptq(upProj, nil), []string{`config.json: sym is "yes": expected true or false`}},
		"GPTQ, bits as text":      {changed(t, gptqConfig, `"bits": 4`, `"bits": "4"`), "", four.gptq(upProj, nil), []string{`config.json: bits is "4": expected a whole number`}},
		"GPTQ, group_size 0":      {changed(t, gptqConfig, "32", "0"), "", four.gptq(upProj, nil), []string{"config.json: group_size is 0: expected"}},
		"GPTQ, sym by chance": {changed(t, gptqConfig, `"bits"`, `"dynamic": {".*up": {"sym": false}, ".*proj": {"sym": true}}, "bits"`), "", four.gptq(upProj, nil),
			[]string{upProj + ".qweight", "several descriptions", "sym false", "sym true"}},
		"GPTQ, a pattern of other bits": {changed(t, gptqConfig, `"bits": 4`, `"dynamic": {"+:.*up": {"bits": 8, "sym": false}}, "bits": 4`), "", four.gptq(upProj, nil),
			[]string{upProj + ".qweight", "4 bits", "bits 8", "one of them is wrong"}},
		"auto-round, a module of other groups": {changed(t, roundGPTQ, `"bits"`,
			`"extra_config": {"`+upProj+`": {"group_size": 16}}, "bits"`), "",
			four.gptq(upProj, nil),
			[]string{upProj + ".qweight", "2 scales for 64 rows", "group_size 16", "one of them is wrong"}},
		"GPTQ, many patterns": {changed(t, gptqConfig, `"bits"`, many), "", four.gptq(upProj, nil),
			[]string{"config.json: dynamic of", "more than 4096 patterns: too many"}},
		"GPTQ, no g_idx":            {changed(t, gptqConfig, "false", "true"), "", four.gptq(upProj, nil), []string{"no " + upProj + ".g_idx", "desc_act true"}},
		"GPTQ, an order in vain":    {gptqConfig, "", four.gptq(upProj, order), []string{upProj + ".g_idx", "another order", "desc_act false"}},
		"GPTQ, group 0 of desc_act": {changed(t, gptqConfig, "false", "true"), "", four.gptq(upProj, make([]int32, 64)), []string{upProj + ".g_idx", "into group 0", "desc_act true"}},
		"GPTQ, group 0, unsaid":     {changed(t, gptqConfig, `, "desc_act": false`, ""), "", four.gptq(upProj, make([]int32, 64)), []string{upProj + ".g_idx", "into group 0", "no desc_act"}},
		"GPTQ, group beyond":        {gptqConfig, "", four.gptq(upProj, beyond), []string{upProj + ".g_idx", "group 3", "0 to 1"}},
		"GPTQ, group below":         {gptqConfig, "", four.gptq(upProj, groupsBy(64, func(i int) int { return -(i % 2) })), []string{upProj + ".g_idx", "group -1", "0 to 1"}},
		"GPTQ, a short g_idx":       {gptqConfig, "", four.gptq(upProj, order[:60]), []string{upProj + ".g_idx", "[60]", "I32 [64]"}},
		"GPTQ, a huge g_idx":        {changed(t, gptqConfig, `"bits": 4`, `"bits": 2`), "", wordShape{2, maxList/4 + 32, 32, maxList/4/32 + 1}.gptq(upProj, make([]int32, maxList/4+32)), []string{upProj + ".g_idx", "at most 1048576 bytes"}},
		"GPTQ, g_idx of I64":        {gptqConfig, "", append(four.gptq(upProj, nil), synth.Tensor{Name: upProj + ".g_idx", DType: "I64", Shape: []int64{64}}), []string{upProj + ".g_idx", "I64", "I32 [64]"}},
		"AWQ with g_idx":            {awqConfig, "", append(four.awq(upProj), synth.Tensor{Name: upProj + ".g_idx", DType: "I32", Shape: []int64{64}}), []string{upProj + ".qweight", "is not decoded"}},
		"GPTQ without scales":       {gptqConfig, "", without(four.gptq(upProj, nil), "scales"), []string{upProj + ".qweight", "without " + upProj + ".scales"}},
		"GPTQ without zero points":  {gptqConfig, "", without(four.gptq(upProj, nil), "qzeros"), []string{upProj + ".qweight", "without " + upProj + ".qzeros"}},
		"GPTQ without words":        {gptqConfig, "", without(four.gptq(upProj, nil), "qweight"), []string{upProj + ".qzeros", "without " + upProj + ".qweight"}},
		"auto-round, unknown":       {changed(t, roundGPTQ, "auto_gptq", "tritonv3"), "", four.gptq(upProj, nil), []string{`packing_format "auto_round:tritonv3" is not decoded`}},
		"auto-round, unsaid":        {changed(t, roundGPTQ, `, "packing_format": "auto_round:auto_gptq"`, ""), "", four.gptq(upProj, nil), []string{upProj + ".qzeros", `quant_method "auto-round" without packing_format`}},
		"auto-round, awq as gptq":   {roundGPTQ, "", four.awq(upProj), []string{upProj + ".qweight", "shapes of AWQ", `packing_format "auto_round:auto_gptq"`}},
	} {
		_, err := plannedWords(t, x.config, x.side, x.tensors)
		if err == nil {
			t.Errorf("%s: a plan, want an error", name)
			continue
		}
		for _, want := range x.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q, want %q", name, err, want)
			}
		}
	}
}

// AutoAWQ wrote a file of its own, in which the fields have other names.
func TestTheDescriptionByAutoAWQIsRead(t *testing.T) {
	for text, want := range map[string]string{
		`{"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}`: "",
		`{"zero_point": true, "q_group_size": 64, "w_bit": 4, "version": "GEMM"}`: "quant_config.json: q_group_size 64",
		`{"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMV"}`: `quant_config.json: version "GEMV"`,
	} {
		c := &synth.Checkpoint{Config: map[string]any{},
			Tensors: wordShape{4, 64, 32, 2}.awq(upProj),
			Side:    map[string][]byte{"quant_config.json": []byte(text)}}
		_, err := NewPlan(opened(t, c), Options{Layout: "hf"})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

// The native layout shows experts transposed, as AWQ and GPTQ store them.
func TestExpertsInWordsAreMerged(t *testing.T) {
	for _, golden := range []string{"awq_moe", "gptq_moe", "bnb_moe"} {
		c := openedAt(t, "../testdata/golden/formats/"+golden)
		hf := dict(t, c, Options{Layout: "hf", DType: safetensors.F16})
		native := dict(t, c, Options{Layout: "native", DType: safetensors.F16})
		const experts = "model.layers.0.mlp.experts."
		for name, parts := range map[string][]string{
			experts + "gate_and_up_projs": {"gate_proj", "up_proj"},
			experts + "down_projs":        {"down_proj"},
		} {
			merged := mustTensor(t, native, name)
			shape, got := merged.Shape(), content(t, merged)
			var want []byte
			for e := range shape[0] {
				matrices := make([][]byte, len(parts))
				for i, p := range parts {
					matrices[i] = content(t, mustTensor(t, hf,
						fmt.Sprintf("%s%d.%s.weight", experts, e, p)))
				}
				for in := range shape[1] {
					for _, m := range matrices {
						rows := int64(len(m)) / 2 / shape[1]
						want = append(want, cut(m, 2, []int64{rows, shape[1]}, 1, in, in+1)...)
					}
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %s %v: other bytes than those of the experts", golden, name, shape)
			}
		}
	}
}
