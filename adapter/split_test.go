package adapter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// publishedGroup says how checkpoints of a family publish a tensor with all experts of a layer. Its
// axes are the experts, the rows of one or more projections one behind the other, and the columns.
type publishedGroup struct {
	key    string   // behind the number of the layer
	to     []string // what follows the number of an expert in the key of each projection
	path   string   // what precedes that number
	turned bool     // rows and columns are swapped
}

// gateUpThenDown are the groups of most families, below a path.
func gateUpThenDown(path string, turned bool) []publishedGroup {
	return []publishedGroup{
		{path + "gate_up_proj", []string{"gate_proj.weight", "up_proj.weight"}, path, turned},
		{path + "down_proj", []string{"down_proj.weight"}, path, turned},
	}
}

// eachApart are the groups of Step 3.5: one for each projection.
var eachApart = []publishedGroup{
	{"moe.gate_proj.weight", []string{"gate_proj.weight"}, "moe.experts.", false},
	{"moe.up_proj.weight", []string{"up_proj.weight"}, "moe.experts.", false},
	{"moe.down_proj.weight", []string{"down_proj.weight"}, "moe.experts.", false},
}

// publishedGroups are the families that are published grouped and can be split.
var publishedGroups = map[string][]publishedGroup{
	"qwen3_5_moe":        gateUpThenDown("mlp.experts.", false),
	"qwen3_8_flash_next": gateUpThenDown("mlp.experts.", false),
	"mistral4":           gateUpThenDown("mlp.experts.", false),
	"mistral4_vl":        gateUpThenDown("mlp.experts.", false),
	"gemma4":             gateUpThenDown("experts.", false),
	"diffusion_gemma":    gateUpThenDown("experts.", false),
	"qwen3_vl_moe":       gateUpThenDown("mlp.experts.", true),
	"step3p5":            eachApart,
	"step3p7":            eachApart,
	"aria": {
		{
			"mlp.experts.fc1.weight", []string{"gate_proj.weight", "up_proj.weight"},
			"mlp.experts.", true,
		},
		{"mlp.experts.fc2.weight", []string{"down_proj.weight"}, "mlp.experts.", true},
	},
	"granitemoe": {
		{
			"block_sparse_moe.input_linear.weight",
			[]string{"gate_proj.weight", "up_proj.weight"}, "block_sparse_moe.experts.", false,
		},
		{
			"block_sparse_moe.output_linear.weight", []string{"down_proj.weight"},
			"block_sparse_moe.experts.", false,
		},
	},
}

// inLayer takes the key of a tensor in a layer apart.
var inLayer = regexp.MustCompile(`^(.*layers\.\d+\.)(.+)$`)

// splitByHand splits the tensors of a view that are among the groups, number by number.
func splitByHand(ts []synth.Tensor, groups []publishedGroup) (all []synth.Tensor, split int) {
	for _, x := range ts {
		m := inLayer.FindStringSubmatch(x.Name)
		i := -1
		if m != nil {
			i = slices.IndexFunc(groups, func(g publishedGroup) bool { return g.key == m[2] })
		}
		if i < 0 {
			all = append(all, x)
			continue
		}
		split++
		all = append(all, groups[i].split(m[1], x)...)
	}
	return all, split
}

// split gives each projection of each expert of a tensor.
func (g publishedGroup) split(layer string, x synth.Tensor) (all []synth.Tensor) {
	experts, height, width := x.Shape[0], x.Shape[1], x.Shape[2]
	rows, columns := height, width
	if g.turned {
		rows, columns = width, height
	}
	rows /= int64(len(g.to))
	size := int64(synth.Width(x.DType))
	for e := range experts {
		for part, name := range g.to {
			one := synth.Tensor{Name: fmt.Sprintf("%s%s%d.%s", layer, g.path, e, name),
				DType: x.DType, Shape: []int64{rows, columns}}
			for row := range rows {
				for column := range columns {
					i, j := int64(part)*rows+row, column
					if g.turned {
						i, j = j, i
					}
					at := ((e*height+i)*width + j) * size
					one.Data = append(one.Data, x.Data[at:at+size]...)
				}
			}
			all = append(all, one)
		}
	}
	return all
}

// Layout split has what layout hf has, with every group taken apart.
func TestExpertsOfEveryFamilyAreSplitByTheirAxes(t *testing.T) {
	t.Parallel()
	split := map[string]int{}
	for name, sample := range publishedSamples(t) {
		t.Run(name, func(t *testing.T) {
			c := sample.open(t)
			f := familyOf(c.Config.fields())
			if f == nil || f.experts != nil && f.experts.whole != "" {
				return // see TestExpertsThatCannotBeSplitAreRefused
			}
			for dtype, d := range dtypes {
				hf := tensorsOf(t, dict(t, c, Options{Layout: LayoutHF, DType: d}))
				want, n := splitByHand(hf, publishedGroups[f.name])
				split[f.name] += n
				t.Run(dtype, func(t *testing.T) {
					equal(t, dict(t, c, Options{Layout: LayoutSplit, DType: d}), want)
				})
			}
		})
	}
	for _, f := range families {
		if f.experts.groupsAndSplits() != (publishedGroups[f.name] != nil) {
			t.Errorf("%s: listed here or in the table, but not in both", f.name)
		}
		if publishedGroups[f.name] != nil && split[f.name] < 6 {
			t.Errorf("%s: %d groups were split", f.name, split[f.name])
		}
	}
}

// Every family whose experts cannot be split is refused in layout split. The error names the
// tensor, why, and the layout that shows it.
func TestExpertsThatCannotBeSplitAreRefused(t *testing.T) {
	refused := map[string]bool{}
	for name, sample := range publishedSamples(t) {
		t.Run(name, func(t *testing.T) {
			c := sample.open(t)
			f := familyOf(c.Config.fields())
			if f == nil || f.experts == nil || f.experts.whole == "" {
				return
			}
			_, err := NewPlan(c, Options{Layout: LayoutSplit})
			refused[f.name] = err != nil
			for _, word := range []string{".safetensors: ", ".experts.", "layout split",
				"alternate", "--layout hf"} {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("error %v does not say %q", err, word)
				}
			}
		})
	}
	for _, f := range families {
		if f.experts != nil && f.experts.whole != "" && !refused[f.name] {
			t.Errorf("%s: not refused", f.name)
		}
	}
}

// Experts of a model without a row, or where no row expects them, are not split by guessing.
func TestExpertsThatNoRowKnowsAreNotSplit(t *testing.T) {
	for name, test := range map[string]struct{ config, key, shape string }{
		"a type without a row":  {`{"model_type": "novel"}`, "model.layers.0.mlp.experts.gate_up_proj", "2 8 6"},
		"no configuration":      {`{}`, "model.layers.0.mlp.experts.down_proj", "2 8 6"},
		"one behind the other":  {`{"model_type": "dbrx"}`, "transformer.blocks.0.ffn.experts.mlp.w1", "16 6"},
		"below another name":    {`{"model_type": "novel"}`, "model.layers.0.moe.up_proj.weight", "2 8 6"},
		"a family without them": {`{"model_type": "llama"}`, "model.layers.0.mlp.experts.gate_up_proj", "2 8 6"},
		"another place": {
			`{"model_type": "qwen3_moe"}`, "talker.layers.0.mlp.experts.gate_up_proj", "2 8 6",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := opened(t, synthetic(t, test.config, test.key+" BF16 "+test.shape))
			_, err := NewPlan(c, Options{Layout: LayoutSplit})
			for _, word := range []string{".safetensors: " + test.key, "layout split",
				"[" + test.shape + "]", "--layout hf"} {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("error %v does not say %q", err, word)
				}
			}
			equal(t, dict(t, c, Options{Layout: LayoutHF}), []synth.Tensor{{Name: test.key,
				DType: "BF16", Shape: c.Tensors()[0].Shape, Data: make([]byte, 2*product(c.Tensors()[0].Shape))}})
			o := Options{Layout: LayoutSplit, Exclude: regexp.MustCompile(".*experts|.*moe")}
			if d := dict(t, c, o); d.Len() != 0 {
				t.Errorf("%d tensors are shown, though they are excluded", d.Len())
			}
		})
	}
	for _, key := range []string{"model.layers.0.mlp.experts.0.up_proj.weight",
		"model.layers.0.mlp.shared_experts.up_proj.weight", "model.layers.0.moe.gate.weight"} {
		c := opened(t, synthetic(t, `{"model_type": "novel"}`, key+" BF16 4 6"))
		mustTensor(t, dict(t, c, Options{Layout: LayoutSplit}), key)
	}
}
