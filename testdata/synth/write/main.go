// Command write writes a synthetic checkpoint into a directory:
//
//	go run ./testdata/synth/write [-full] [-seed N] [-experts N] … DIR
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

func main() {
	var o synth.Options
	full := flag.Bool("full", false,
		"DeepSeek-V3's full size, 689 GB of holes; no other flag is used")
	flag.Uint64Var(&o.Seed, "seed", 0, "seed")
	flag.IntVar(&o.Layers, "layers", 3, "layers")
	flag.IntVar(&o.Dense, "dense", 1, "dense layers before the first with experts; -1: none")
	flag.IntVar(&o.MTP, "mtp", 0, "multi-token-prediction layers")
	flag.IntVar(&o.Experts, "experts", 4, "experts")
	flag.Int64Var(&o.Hidden, "hidden", 256, "hidden size")
	flag.Int64Var(&o.ExpertIntermediate, "intermediate", 128, "intermediate size of an expert")
	flag.Int64Var(&o.DenseIntermediate, "dense-intermediate", 512,
		"intermediate size of a dense layer")
	flag.Int64Var(&o.Vocab, "vocab", 512, "vocabulary")
	flag.StringVar(&o.Prefix, "prefix", "model.", `prefix of the keys, or "none"`)
	flag.StringVar(&o.Scale, "scale", "F32", "dtype of the scales: F32, BF16, F8_E8M0")
	flag.IntVar(&o.Shards, "shards", 1, "shards")
	flag.BoolVar(&o.Single, "single", false, "one model.safetensors without an index")
	flag.BoolVar(&o.ScalesApart, "scales-apart", false,
		"scales in another shard than their weights")
	flag.BoolVar(&o.PlainExperts, "plain-experts", false, "experts in BF16")
	flag.BoolVar(&o.Plain, "plain", false, "everything in BF16")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: write [flags] DIR")
		os.Exit(2)
	}
	if err := write(*full, o, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "write:", err)
		os.Exit(1)
	}
}

func write(full bool, o synth.Options, dir string) error {
	if full {
		_, err := synth.WriteFull(dir)
		return err
	}
	return synth.DeepSeek(o).Write(dir)
}
