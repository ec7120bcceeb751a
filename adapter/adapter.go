// Package adapter knows the meaning of checkpoints: keys, shards, families, layouts and plans.
//
// Start with [Open]. It takes a folder, a single file or the id of a model in the local Hugging
// Face cache. The returned [Checkpoint] holds every shard open and has checked every header.
//
// [NewPlan] plans a view of a checkpoint: an ordered list of virtual tensors and an account of
// every source key. Each virtual tensor has a recipe (package expr) that computes its bytes.
// [FromHF] and [ToHF] return the same tensors lazily, under the reference's names, for programs
// that need no files.
//
// Neither opening nor planning reads tensor data, except small tensors that say how others are
// decoded (small.go). A fault that can be found so is an error here, and the error names file and
// key.
//
// # Sources
//
// A folder has a config.json and .safetensors shards. The index lists the shards, or else their
// names decide (shards.go). Mistral's own layout has params.json and other names (mistral.go). A
// file that contains something else than its name says is reported as such (content.go).
//
// Package source opens and reads the files. A source may change while it is open. Each read returns
// the bytes as they were when the file was opened, or fails with [ErrChanged]. A failed read may be
// repeated, because failures are not remembered. [Checkpoint.Unseen] lists the changes that would
// go unnoticed. They depend on the file system.
//
// Sizes and times show that a file was touched, but not how. Two kernel features show more. A read
// lease shows that no process has the file open for writing. A watch shows that no process has
// truncated it. With both, removing the file, linking to it or changing its mode is harmless, and
// opening it for writing ends reads. Without them, every change of the file's times ends reads.
//
// The kernel reports conflicts with a read lease by SIGIO, so a program that uses this package must
// not use that signal.
//
// [Checkpoint.Readers] returns which other users may read the source. Programs that pass its bytes
// on need it. It considers owners, groups, modes and ACLs of each file and of the folders above it,
// as they are at the time of the call.
//
// Checkpoints are not trusted. Numbers in headers, in config.json and in keys are limited by the
// bytes behind them, or by constants far above the published checkpoints.
//
// # Plans
//
// A table of formats says which stored tensors make one weight. Tensors of all shards are matched
// (pair.go). The place of scales is decided once, from shapes and configuration together
// (partition.go, quantization.go). They must fit exactly one known partition, or several that give
// the same bytes. Tensors that belong to a quantization but not to a weight are dropped
// (leftovers.go).
//
// The family's table finds the experts (family.go, families.go), and the layout's table arranges
// them (layout.go, merge.go). All other keys get the family's names in that layout (names.go).
//
// A new layout is a new row of its table. A new family is a new row, and a file of its own if a
// rule of it is unique (family_ernie.go). Rows are matched by the outermost model_type. So a model
// around a known language model has no layout but "hf". Its weights are read as that language model
// is stored. testdata/plans shows the plan of each family.
//
// The rules of layouts are those of NeMo AutoModel's adapters. Some of those adapters were written
// for BF16 checkpoints and pass quantized weights on; here every weight is dequantized first. The
// view's dtype applies to dequantized and merged tensors. All other tensors keep their own, unless
// [CastAll] asks for the same dtype for every floating one. Weights that a view quantizes are
// decoded to F32 for it, so the view's dtype does not change their bytes.
//
// # Formats
//
// A dequantized value is (number - zero point) × scale in float32, rounded to the view's dtype.
// Each step rounds to nearest even. The rule of a format is that of the library that writes it:
//
//	format_fp8.go           FP8 and MXFP8: scales of tensors, rows, blocks or groups
//	format_mxfp4.go         MXFP4: gpt-oss, compressed-tensors, Quark
//	format_nvfp4.go         NVFP4: ModelOpt
//	format_compressed.go    compressed-tensors: packed integers, INT8, NVFP4
//	format_qweight.go       AWQ, GPTQ and AutoRound
//	format_bitsandbytes.go  bitsandbytes: NF4, FP4, INT8
//	format_deepseek4.go     DeepSeek-V4 and V4.1: FP4 of experts, FP8 of Engram's table
//	format_undecoded.go     formats that are recognised and refused by name
//
// A format that cannot be decoded is never shown undecoded. A new format is a file with its rows,
// and a line in formats.go.
//
// # Names from the reference
//
// For readers of NeMo AutoModel's deepseek_v3.state_dict_adapter:
//
//	DeepSeekV3StateDictAdapter    DeepSeekV3
//	from_hf                       DeepSeekV3.FromHF; FromHF for any family
//	to_hf                         DeepSeekV3.ToHF; ToHF for any family
//	convert_single_tensor_to_hf   DeepSeekV3.ConvertSingleTensorToHF
//	_dequantize                   the pairing of weights and scales (pair.go, partition.go)
//	dequantize_from_fp8           fp8.Dequantize
//	_slice_scale_for_dtensor      expr.Slice
//	calculate_scale_shape         fp8.CalculateScaleShape
//	create_scale_inv_for_weight   fp8.CreateScaleInvForWeight
//	should_quantize_key           ShouldQuantizeKey
//	BLOCK_SIZE                    fp8.BlockSize
//	NON_QUANTIZED_KEY_PATTERNS    NonQuantizedKeyPatterns
//
// # Concurrency
//
// A Checkpoint and a Plan do not change, and any number of goroutines may use them.
// [Checkpoint.Close] waits for running reads; later reads fail.
package adapter

import (
	"regexp"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Options select a view. The zero value is the family's first layout in the dtype of config.json.
type Options struct {
	// Layout is the name of one of [KnownLayouts]. Empty means the first of [Layouts].
	Layout string
	// DType is that of dequantized and merged tensors: BF16, F16 or F32. Invalid means the dtype
	// that the source's configuration gives, and BF16 if it gives none of these.
	DType safetensors.DType
	Cast  string // the tensors with that dtype: [CastComputed] or empty, or [CastAll]
	EP    EP     // selects experts
	MTP   string // prediction layers: [MTPAuto] or empty, [MTPKeep] or [MTPDrop]
	// Include keeps only the tensors whose name in the view begins with a match; nil keeps all.
	// Exclude leaves out each tensor whose name begins with a match, also if Include matches.
	Include, Exclude *regexp.Regexp

	Scales string // of hf-fp8: [ScalesAmax] or empty, or [ScalesOnes]
	// Unscaled reads FP8 weights without a scale as plain numbers. Otherwise they are refused.
	Unscaled bool
}

// Tensor is one virtual tensor.
type Tensor struct {
	Name string
	Node expr.Node
	// Group decides which tensors share a file. Layouts that keep the source's files use the name
	// of the shard. Other layouts use "layer-00003" for a layer and "rest-…" for the rest. Files
	// are numbered in the order of the groups.
	Group string

	// OfRank reports that the tensor has the experts of the view's expert-parallel rank. Other
	// ranks have other ones in its place, or none. All other tensors are the same in every rank.
	OfRank bool
}

// Plan is an ordered list of virtual tensors and an account of every source key.
type Plan struct {
	Options Options // with layout and dtype, if they were left open
	Tensors []Tensor
	Account []Account
	Config  []byte   // the view's config.json; nil if the source has none
	Params  []byte   // the view's params.json; nil if it is a side file or there is none
	Notes   []string // remarks for the user, one line each

	// TensorParallel is tp_size for the view's index: the number of shards of fused matrices whose
	// rows are in the order of the source. It is 0 if there is none.
	TensorParallel int
}
