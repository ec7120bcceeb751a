// Package adapter knows what checkpoints mean: keys, shards, families, layouts, plans.
package adapter

import (
	"errors"
	"io"
	"log/slog"
	"regexp"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Checkpoint is an opened source: every shard held open, every header checked.
type Checkpoint struct {
	Path   string // what was opened, for messages
	Config *Config
}

// OpenOptions change how a source is opened. The zero value is right for most.
type OpenOptions struct {
	Logger      *slog.Logger
	FollowLinks bool // follow symlinks out of the source's root
}

// Open opens a directory, one .safetensors file, or a Hub id in the local cache.
func Open(source string, o OpenOptions) (*Checkpoint, error) { return nil, errors.ErrUnsupported }

// Close closes every file.
func (c *Checkpoint) Close() error { return nil }

// Tensor finds a stored tensor by key.
func (c *Checkpoint) Tensor(key string) (*Stored, bool) { return nil, false }

// Tensors gives all stored tensors, by shard and then in data order.
func (c *Checkpoint) Tensors() []*Stored { return nil }

// Shards names the shard files in natural order.
func (c *Checkpoint) Shards() []string { return nil }

// SideFiles are the files to pass through byte for byte.
func (c *Checkpoint) SideFiles() []SideFile { return nil }

// Stored is a tensor of the source with the shard that it lies in.
type Stored struct {
	expr.Source
	Shard string
}

// SideFile is a regular file of the source's top folder.
type SideFile struct {
	Name string
	Size int64
	Mode uint32 // permission bits of the source
	io.ReaderAt
}

// Config is config.json: its bytes, its order, and the few fields that plans need.
type Config struct {
	Raw       []byte
	ModelType string
}

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
