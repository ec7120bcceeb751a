package adapter

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// inkling is Inkling with its audio and vision towers. The rows of gate and up alternate in its
// matrices, and stay so in the native layout. So gate and up are never taken apart.
var inkling = family{
	name:  "inkling",
	types: []string{"inkling_mm_model"},
	inner: []string{"inkling_text"},
	plain: []string{"embed.", "model.audio.", ".rel_logits_proj.", ".mlp.gate."},
	experts: &expertKeys{
		path: "mlp.experts.", count: []string{"n_routed_experts"}, grouped: LayoutHF,
		groups: []group{
			{name: "w13_weight", parts: []role{gate, up}},
			{name: "w2_weight", parts: []role{down}},
		},
		prefixes: []string{"model.llm."},
		whole:    "the rows of gate and up alternate in it",
	},
	unclear: []string{".mlp.shared_experts.down_proj"},
	views:   []view{inklingNative, inklingTransformers},
}

// inklingNative has the matrices of MLPs turned.
var inklingNative = view{
	layout: LayoutNative, empty: true, mtp: dropMTP,
	marks: []string{"._fp32_params.", ".mlp.gate_up_proj$", ".mlp.shared_experts.gate_up_proj$"},
	steps: []step{turned{cast: true, ends: []string{
		".mlp.shared_experts.shared_w13_weight", ".mlp.shared_experts.shared_w2_weight",
		".mlp.w13_dn.weight", ".mlp.w2_md.weight",
	}}},
	prefixes: append([]rename{
		{"^model.llm.embed_norm.weight$", "model.language_model.embed_norm.weight"},
	}, inklingPrefixes...),
	renames: append([]rename{
		{".attn.k_sconv.weight$", ".self_attn.k_sconv._fp32_params.weight"},
		{".attn.v_sconv.weight$", ".self_attn.v_sconv._fp32_params.weight"},
		{".attn_sconv.weight$", ".attn_sconv._fp32_params.weight"},
		{".mlp_sconv.weight$", ".mlp_sconv._fp32_params.weight"},
		{".mlp.shared_experts.shared_w13_weight$", ".mlp.shared_experts.gate_up_proj"},
		{".mlp.shared_experts.shared_w2_weight$", ".mlp.shared_experts.down_proj"},
		{".mlp.w13_dn.weight$", ".mlp.gate_up_proj"},
		{".mlp.w2_md.weight$", ".mlp.down_proj"},
		{".mlp.gate.bias$", ".mlp.gate._fp32_params.e_score_correction_bias"},
	}, inklingLayers...),
}

// inklingTransformers has the rows of gate apart from those of up.
var inklingTransformers = view{
	layout: LayoutTransformers, mtp: dropMTP,
	marks: []string{"_sconv.conv1d.weight$"},
	steps: []step{
		alternating{ends: []string{
			".mlp.experts.w13_weight", ".mlp.experts.gate_up_proj", inklingTurned,
			".mlp.shared_experts.shared_w13_weight", ".mlp.w13_dn.weight",
		}},
		fused{
			from: ".mlp.w13_dn.weight", rows: equalParts(2),
			to: []string{".mlp.gate_proj.weight", ".mlp.up_proj.weight"},
		},
		fused{
			from: ".mlp.shared_experts.shared_w13_weight", rows: equalParts(2), axis: 1,
			to: []string{".mlp.shared_experts.gate_proj", ".mlp.shared_experts.up_proj"},
		},
	},
	prefixes: append([]rename{
		{"^model.llm.embed_norm.weight$", "model.language_model.embed_tokens.embed_norm.weight"},
	}, inklingPrefixes...),
	renames: append([]rename{
		{".attn.k_sconv.weight$", ".self_attn.k_sconv.conv1d.weight"},
		{".attn.v_sconv.weight$", ".self_attn.v_sconv.conv1d.weight"},
		{".attn_sconv.weight$", ".attn_sconv.conv1d.weight"},
		{".mlp_sconv.weight$", ".mlp_sconv.conv1d.weight"},
		{".mlp.shared_experts.shared_w2_weight$", ".mlp.shared_experts.down_proj"},
		{".mlp.w2_md.weight$", ".mlp.down_proj.weight"},
		{".mlp.gate.bias$", ".mlp.gate.e_score_correction_bias"},
	}, inklingLayers...),
}

// inklingPrefixes are the beginnings of keys.
var inklingPrefixes = []rename{
	{"^model.llm.embed.weight$", "model.language_model.embed_tokens.weight"},
	{"^model.llm.norm.weight$", "model.language_model.norm.weight"},
	{"^model.llm.unembed.weight$", "lm_head.weight"},
	{"^model.llm.layers.", "model.language_model.layers."},
	{
		"^model.audio.encoder.weight$",
		"model.audio_tower.embed_audio_tokens.embed_audio_tokens.weight",
	},
	{"^model.audio.final_norm.weight$", "model.audio_tower.norm.weight"},
	{
		"^model.visual.layers.linear_*.weight$",
		"model.vision_tower.encoder_layers.*.projection.weight",
	},
	{
		"^model.visual.layers.norm_*.weight$",
		"model.vision_tower.encoder_layers.*.layer_norm.weight",
	},
	{"^model.visual.final_norm.weight$", "model.vision_tower.final_norm.weight"},
}

// inklingLayers are the renames in layers that both layouts share.
var inklingLayers = []rename{
	{".attn.wq_du.weight$", ".self_attn.q_proj.weight"},
	{".attn.wk_dv.weight$", ".self_attn.k_proj.weight"},
	{".attn.wv_dv.weight$", ".self_attn.v_proj.weight"},
	{".attn.wr_du.weight$", ".self_attn.r_proj.weight"},
	{".attn.wo_ud.weight$", ".self_attn.o_proj.weight"},
	{".attn.q_norm.weight$", ".self_attn.q_norm.weight"},
	{".attn.k_norm.weight$", ".self_attn.k_norm.weight"},
	{".attn.rel_logits_proj.proj$", ".self_attn.rel_logits_proj.proj"},
	{".attn_norm.weight$", ".input_layernorm.weight"},
	{".mlp_norm.weight$", ".post_attention_layernorm.weight"},
}

// alternating puts the rows of gate, which alternate with those of up, above those of up.
type alternating struct{ ends []string } // of the keys

// inklingTurned ends the key of a group whose rows and columns are swapped.
const inklingTurned = ".mlp.experts.gate_and_up_projs"

func (a alternating) do(p *planner) error   { return a.change(p, false) }
func (a alternating) undo(p *planner) error { return a.change(p, true) }

// change takes the rows of gate and up apart, or puts them in pairs.
func (a alternating) change(p *planner, pairs bool) error {
	return p.change(a.ends, func(w *weight) (expr.Node, error) {
		turned := strings.HasSuffix(w.hf, inklingTurned)
		n, err := orient(p.node(w), turned)
		if err != nil {
			return nil, err
		}
		s := n.Shape()
		if len(s) < 2 || s[len(s)-2]%2 != 0 {
			return nil, fmt.Errorf("shape %v: expected as many rows of gate as of up", w.shape())
		}
		if n.Size() == 0 {
			return nil, nil
		}
		rows, cols := s[len(s)-2], s[len(s)-1]
		matrices, inner := product(s[:len(s)-2]), rows/2
		if pairs {
			inner = 2
		}
		if n, err = expr.Reshape(n, matrices*rows, cols); err != nil {
			return nil, err
		}
		if n, err = expr.SwapRows(n, matrices, inner); err != nil {
			return nil, err
		}
		if n, err = expr.Reshape(n, s...); err != nil {
			return nil, err
		}
		return orient(n, turned)
	})
}
