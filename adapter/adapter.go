// Package adapter knows what checkpoints mean: keys, shards, families, layouts, plans.
package adapter

import (
	"regexp"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Options of a view.
type Options struct {
	Layout  string            // "native", "hf", …
	DType   safetensors.DType // of dequantized and merged tensors; Invalid means BF16
	EP      EP
	MTP     string // "auto" (or empty), "keep", "drop"
	Exclude *regexp.Regexp
	Scales  string // hf-fp8: "amax" (or empty), "ones"
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
