// Package adapter knows what checkpoints mean: keys, shards, families, layouts, plans.
//
// Start with [Open], which takes a folder, a single file or the id of a model in the
// local Hugging Face cache and gives a [Checkpoint]: every shard held open, every header
// checked. [NewPlan] works out what a view of it shows: an ordered list of virtual tensors,
// each with the recipe (package expr) that computes its bytes, and an account of every key
// of the source. [FromHF] and [ToHF] give the same as lazy tensors, under the names of the
// reference, for programs that want no files.
//
// Neither opening nor planning reads tensor data. Whatever is wrong with a source and can
// be known without doing so is an error here, which names file and key.
//
// # Sources
//
// A folder has a config.json and .safetensors shards, listed by
// model.safetensors.index.json or found by their names; shards.go has the rules. A file that
// is not what its name says is reported as what it is (content.go). Names are resolved once, when the
// source is opened, inside its folder; a snapshot of the Hugging Face cache may link to the
// blobs of its own model. Only regular files are opened. Nothing is downloaded and nothing
// is written.
//
// A source may change while it is open. Each read looks at its file after the bytes were
// read and gives the bytes of the file as it was when it was opened, or fails with
// [ErrChanged]. A read that failed may be tried again; failures are not remembered.
//
// Sizes and times say that something has happened to a file, not what (identity_linux.go).
// A read lease shows that nobody has it open for writing, and a watch that nobody has cut it
// to another size (lease_linux.go, watch_linux.go). With both, removing the file, linking to
// it or changing its mode does no harm, and opening it for writing ends reads. Without them
// every change of its times does. [Checkpoint.Unseen] says which changes go unnoticed, which
// depends on the file system (filesystem_linux.go). The kernel asks for leases by SIGIO,
// which a program that uses this package leaves to it.
//
// [Checkpoint.Readers] says which other users may read the source, for programs that pass its bytes
// on. It counts owners, groups, modes and ACLs of each file and of the folders on the way to it, as they
// are at that moment.
//
// Checkpoints come from strangers. Numbers in headers, in config.json and in keys are
// believed only as far as there are bytes behind them, or up to a limit that published
// checkpoints do not come near.
//
// # Plans
//
// Which stored tensors make one weight is a table of formats (formats.go); a new format is a file
// with its rows and a line in the table. Tensors are put together over all shards (pair.go). Where
// scales lie is decided once, from the shapes and the configuration together (partition.go,
// quantization.go): they must fit exactly one known partition, or several that give the same bytes.
// Tensors that belong to a quantization and to no weight are dropped (leftovers.go).
//
// Experts are found by the family's table (family.go, families.go) and arranged by the layout's
// (layout.go, merge.go). All other keys get the names that the family has in that layout
// (names.go). What cannot be decoded is refused by name, never shown undecoded. Adding a family is
// adding a row; testdata/plans shows what becomes of each.
//
// A dequantized value is float32(code) × scale, rounded to the view's dtype: two roundings, to
// nearest even. The rules are those of NeMo AutoModel's adapters. Where these hand
// quantized weights on undecoded (the ones written for BF16 checkpoints), every weight is
// dequantized first. The view's dtype is that of dequantized and merged tensors; the others
// keep theirs.
//
// # Concurrency
//
// A Checkpoint and a Plan do not change and may be used from any number of goroutines.
// [Checkpoint.Close] waits for reads that run; later ones fail.
package adapter

import (
	"regexp"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Options of a view. The zero value is the family's first layout in BF16.
type Options struct {
	// Layout is "native" (the reference's grouped experts), "hf" (published keys),
	// "transformers", "torchtitan" (theirs), or "hf-fp8" (published keys, quantized).
	// Empty is the first of Layouts.
	Layout string
	DType  safetensors.DType // of dequantized and merged tensors; Invalid means BF16
	EP     EP                // which experts
	MTP    string            // prediction layers: "auto" (as the family's adapter; or empty), "keep", "drop"
	// Include keeps only the tensors whose name in the view matches at its start, nil all. Exclude leaves
	// out those whose name matches, also where Include matches.
	Include, Exclude *regexp.Regexp

	Scales string // hf-fp8: "amax" (computed; or empty), "ones" (as the reference)
	// Unscaled reads FP8 weights that have no scale as plain numbers. Without it they are refused.
	Unscaled bool
}

// Tensor is one virtual tensor.
type Tensor struct {
	Name string
	Node expr.Node
	// Group says which tensors belong in one file: the source's shard name for the
	// layouts that keep the source's grouping, a layer's number ("layer-00003") or
	// "rest-…" for grouped layouts. Groups are ordered as they are to be numbered.
	Group string
}

// Plan is an ordered list of virtual tensors and an account of every source key.
type Plan struct {
	Options Options
	Tensors []Tensor
	Account []Account
	Config  []byte   // the view's config.json; nil if the source has none
	Notes   []string // what a person should know, one line each
}
