package synth

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
)

// NoPrefix as Options.Prefix makes keys begin with "layers.".
const NoPrefix = "none"

// Options shape a small DeepSeek-V3-like checkpoint. The zero value gives three
// layers (the first one dense), four experts, hidden size 256, one shard.
type Options struct {
	Seed uint64

	Layers  int   // default 3
	Dense   int   // layers before the first with experts: default 1, negative: none
	MTP     int   // multi-token-prediction layers behind the others
	Experts int   // default 4
	Hidden  int64 // default 256
	// Intermediate sizes of one expert (default 128), of a dense layer (default 512).
	ExpertIntermediate, DenseIntermediate int64
	Heads, QRank, KVRank                  int64 // default 4, 128, 64
	Nope, Rope, VHead                     int64 // default 64 each
	Vocab                                 int64 // default 512
	Block                                 [2]int64
	// Prefix of the keys: default "model.", or NoPrefix, "language_model.",
	// "model.language_model.", …
	Prefix string

	Scale        string // dtype of the scales: "F32" (default), "BF16", "F8_E8M0"
	ScaleSuffix  string // default "_scale_inv", put behind ".weight"
	PaddedGrid   int64  // rows and columns of blocks more than needed
	PlainExperts bool   // experts stored in BF16, without scales
	Plain        bool   // nothing quantized
	NaN          bool   // let codes be NaN too

	Shards      int  // default 1, as one shard with an index
	Single      bool // model.safetensors and no index
	NoIndex     bool
	ScalesApart bool // every scale in another shard than its weight (needs two shards)
	Side        map[string][]byte
}

// withDefaults fills the zero fields.
func (o Options) withDefaults() Options {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	num := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	str := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	num(&o.Layers, 3)
	num(&o.Dense, 1)
	num(&o.Experts, 4)
	num(&o.Shards, 1)
	o.Dense = max(o.Dense, 0)
	def(&o.Hidden, 256)
	def(&o.ExpertIntermediate, 128)
	def(&o.DenseIntermediate, 512)
	def(&o.Heads, 4)
	def(&o.QRank, 128)
	def(&o.KVRank, 64)
	def(&o.Nope, 64)
	def(&o.Rope, 64)
	def(&o.VHead, 64)
	def(&o.Vocab, 512)
	def(&o.Block[0], 128)
	def(&o.Block[1], 128)
	str(&o.Prefix, "model.")
	str(&o.Scale, "F32")
	str(&o.ScaleSuffix, "_scale_inv")
	if o.Prefix == NoPrefix {
		o.Prefix = ""
	}
	return o
}

// spec is a tensor before it has data.
type spec struct {
	name      string
	dtype     string // of the tensor if it is not quantized
	shape     []int64
	quantized bool
}

// DeepSeek makes a checkpoint from its seed: the same options, the same bytes.
func DeepSeek(o Options) *Checkpoint {
	o = o.withDefaults()
	c := &Checkpoint{Config: o.config(), Single: o.Single, NoIndex: o.NoIndex, Side: o.Side,
		block: o.Block}
	if c.Side == nil {
		c.Side = map[string][]byte{
			"tokenizer_config.json":  []byte("{\"model_max_length\": 512}\n"),
			"generation_config.json": []byte("{\"do_sample\": false}\n"),
		}
	}
	rng := rand.New(rand.NewPCG(o.Seed, 0x5eed))
	specs := o.specs()
	for i, s := range specs {
		shard := i * o.Shards / len(specs)
		if !s.quantized {
			c.Tensors = append(c.Tensors,
				Tensor{s.name, s.dtype, s.shape, Random(rng, s.dtype, s.shape), shard})
			continue
		}
		w, scale := FP8(rng, s.name, s.shape, o)
		w.Shard, scale.Shard = shard, shard
		if o.ScalesApart {
			scale.Shard = (shard + 1) % o.Shards
		}
		c.Tensors = append(c.Tensors, w, scale)
	}
	return c
}

// specs lists the model's tensors in the order of the layers.
func (o Options) specs() []spec {
	var out []spec
	add := func(quantized bool, dtype, name string, shape ...int64) {
		out = append(out, spec{name, dtype, shape, quantized && !o.Plain})
	}
	add(false, "BF16", o.Prefix+"embed_tokens.weight", o.Vocab, o.Hidden)
	for l := range o.Layers + o.MTP {
		p := fmt.Sprintf("%slayers.%d.", o.Prefix, l)
		if l >= o.Layers {
			add(false, "BF16", p+"embed_tokens.weight", o.Vocab, o.Hidden)
			add(false, "BF16", p+"enorm.weight", o.Hidden)
			add(false, "BF16", p+"hnorm.weight", o.Hidden)
			add(false, "BF16", p+"eh_proj.weight", o.Hidden, 2*o.Hidden)
			add(false, "BF16", p+"shared_head.norm.weight", o.Hidden)
			add(false, "BF16", p+"shared_head.head.weight", o.Vocab, o.Hidden)
		}
		o.attention(p, add)
		o.mlp(p, l, add)
	}
	add(false, "BF16", o.Prefix+"norm.weight", o.Hidden)
	head := "lm_head.weight"
	if o.Prefix == "language_model.model." {
		head = "language_model.lm_head.weight"
	}
	add(false, "BF16", head, o.Vocab, o.Hidden)
	return out
}

type adder func(quantized bool, dtype, name string, shape ...int64)

func (o Options) attention(p string, add adder) {
	add(false, "BF16", p+"input_layernorm.weight", o.Hidden)
	add(true, "BF16", p+"self_attn.q_a_proj.weight", o.QRank, o.Hidden)
	add(false, "BF16", p+"self_attn.q_a_layernorm.weight", o.QRank)
	add(true, "BF16", p+"self_attn.q_b_proj.weight", o.Heads*(o.Nope+o.Rope), o.QRank)
	add(true, "BF16", p+"self_attn.kv_a_proj_with_mqa.weight", o.KVRank+o.Rope, o.Hidden)
	add(false, "BF16", p+"self_attn.kv_a_layernorm.weight", o.KVRank)
	add(true, "BF16", p+"self_attn.kv_b_proj.weight", o.Heads*(o.Nope+o.VHead), o.KVRank)
	add(true, "BF16", p+"self_attn.o_proj.weight", o.Hidden, o.Heads*o.VHead)
	add(false, "BF16", p+"post_attention_layernorm.weight", o.Hidden)
}

func (o Options) mlp(p string, layer int, add adder) {
	gated := func(quantized bool, p string, inner int64) {
		add(quantized, "BF16", p+"gate_proj.weight", inner, o.Hidden)
		add(quantized, "BF16", p+"up_proj.weight", inner, o.Hidden)
		add(quantized, "BF16", p+"down_proj.weight", o.Hidden, inner)
	}
	if layer < o.Dense {
		gated(true, p+"mlp.", o.DenseIntermediate)
		return
	}
	add(false, "BF16", p+"mlp.gate.weight", int64(o.Experts), o.Hidden)
	add(false, "F32", p+"mlp.gate.e_score_correction_bias", int64(o.Experts))
	gated(true, p+"mlp.shared_experts.", o.ExpertIntermediate)
	for e := range o.Experts {
		gated(!o.PlainExperts, fmt.Sprintf("%smlp.experts.%d.", p, e), o.ExpertIntermediate)
	}
}

// config is what config.json says.
func (o Options) config() map[string]any {
	c := map[string]any{
		"architectures": []string{"DeepseekV3ForCausalLM"}, "model_type": "deepseek_v3",
		"hidden_size": o.Hidden, "intermediate_size": o.DenseIntermediate,
		"moe_intermediate_size": o.ExpertIntermediate,
		"num_hidden_layers":     o.Layers, "num_nextn_predict_layers": o.MTP,
		"first_k_dense_replace": o.Dense,
		"n_routed_experts":      o.Experts, "n_shared_experts": 1, "num_experts_per_tok": min(2,
			o.Experts),
		"n_group": 1, "topk_group": 1, "q_lora_rank": o.QRank, "kv_lora_rank": o.KVRank,
		"qk_rope_head_dim": o.Rope, "qk_nope_head_dim": o.Nope, "v_head_dim": o.VHead,
		"num_attention_heads": o.Heads, "num_key_value_heads": o.Heads, "vocab_size": o.Vocab,
		"torch_dtype": "bfloat16", "hidden_act": "silu", "rms_norm_eps": 1e-06,
		"max_position_embeddings": 512, "rope_theta": 10000.0, "tie_word_embeddings": false,
		"moe_layer_freq": 1, "norm_topk_prob": true, "routed_scaling_factor": 2.5,
		"scoring_func": "sigmoid", "topk_method": "noaux_tc",
	}
	if !o.Plain {
		quant := map[string]any{
			"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
			"weight_block_size": o.Block,
		}
		if o.Scale == "F8_E8M0" {
			quant["scale_fmt"] = "ue8m0"
		}
		c["quantization_config"] = quant
	}
	return c
}

// FP8 makes a weight with random codes and its scale grid. Of the options it uses
// Block, Scale, ScaleSuffix, PaddedGrid and NaN, whose zero values mean what they
// mean for DeepSeek.
func FP8(rng *rand.Rand, name string, shape []int64, o Options) (weight, scale Tensor) {
	o = o.withDefaults()
	weight = Tensor{Name: name, DType: "F8_E4M3", Shape: shape, Data: Random(rng, "F8_E4M3", shape)}
	if o.NaN {
		for range 1 + len(weight.Data)/64 {
			weight.Data[rng.IntN(len(weight.Data))] = []byte{0x7f, 0xff}[rng.IntN(2)]
		}
	}
	grid := []int64{
		(shape[0]+o.Block[0]-1)/o.Block[0] + o.PaddedGrid,
		(shape[1]+o.Block[1]-1)/o.Block[1] + o.PaddedGrid,
	}
	scale = Tensor{Name: name + o.ScaleSuffix, DType: o.Scale, Shape: grid}
	for range grid[0] * grid[1] {
		// 2^-9 … 2^-1, as the scales of published checkpoints are: small, positive.
		f := math.Float32frombits(uint32(118+rng.IntN(8))<<23 | rng.Uint32()>>9)
		scale.Data = appendFloat(scale.Data, o.Scale, f)
	}
	return weight, scale
}

// Random gives finite values of a dtype, spread around zero.
func Random(rng *rand.Rand, dtype string, shape []int64) []byte {
	t := Tensor{DType: dtype, Shape: shape}
	out := make([]byte, 0, t.Size())
	for range t.Size() / int64(Width(dtype)) {
		out = appendRandom(out, rng, dtype)
	}
	return out
}

func appendRandom(out []byte, rng *rand.Rand, dtype string) []byte {
	switch dtype {
	case "F8_E4M3": // all but the two NaN
		return append(out, byte(rng.IntN(127))|byte(rng.IntN(2))<<7)
	case "F32", "BF16", "F16":
		return appendFloat(out, dtype, float32(rng.NormFloat64()*0.05))
	}
	for range Width(dtype) {
		out = append(out, byte(rng.Uint32()))
	}
	return out
}

// appendFloat rounds f to a dtype; for F8_E8M0 to the power of two below it.
func appendFloat(out []byte, dtype string, f float32) []byte {
	switch dtype {
	case "F32":
		return binary.LittleEndian.AppendUint32(out, math.Float32bits(f))
	case "F8_E8M0":
		return append(out, byte(math.Float32bits(f)>>23))
	}
	return binary.LittleEndian.AppendUint16(out, round16(dtype, f))
}
