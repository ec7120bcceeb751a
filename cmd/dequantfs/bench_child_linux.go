package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fp8"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
)

// newBenchMemory serves files of memory in a separate process: one of so many bytes, or as many as
// a folder has, with their names, sizes and headers.
func newBenchMemory() *cobra.Command {
	return &cobra.Command{
		Use:    "memory MOUNTPOINT BYTES|DIRECTORY",
		Hidden: true,
		Args:   arity(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			files, err := memoryFiles(args[1])
			if err != nil {
				return err
			}
			server, err := mountMemory(args[0], files)
			if err != nil {
				return err
			}
			defer context.AfterFunc(c.Context(), func() { _ = server.Unmount() })()
			server.Wait()
			return nil
		},
	}
}

// decoded is the speed of one set of kernels on one core. All bytes are of output.
type decoded struct {
	Implementation string
	Bytes          int64
	Decode, Copy   time.Duration
	Transpose      time.Duration // Bytes/2 of codes
}

// newBenchDecode measures the kernels that this process uses.
func newBenchDecode() *cobra.Command {
	return &cobra.Command{
		Use:    "decode",
		Hidden: true,
		Args:   arity(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return json.NewEncoder(c.OutOrStdout()).Encode(measureDecode())
		},
	}
}

// A tile is as large as the output of a read of 1 MiB. The tiles together do not fit into a
// processor's caches.
const (
	tileRows, tileCols = 128, 4096
	tileCodes          = tileRows * tileCols
	tiles              = 256
)

// measureDecode decodes tiles from memory into one buffer. For comparison it copies as many bytes
// in the same way.
func measureDecode() decoded {
	codes := make([]byte, tiles*tileCodes)
	for i := range codes {
		codes[i] = byte(i*7 + i>>11)
	}
	scales := make([]float32, tileCols/fp8.BlockSize)
	for i := range scales {
		scales[i] = 1 / float32(i+3)
	}
	plain := make([]byte, 2*len(codes))
	copy(plain, codes) // touched once, so that its pages are there
	copy(plain[len(codes):], codes)
	buf := make([]byte, 2*tileCodes)
	d := decoded{Implementation: fp8.Implementation(), Bytes: int64(len(plain))}
	d.Decode = fastest(codes, tileCodes, func(tile []byte) {
		fp8.Dequantize(buf, 2*tileCols, fp8.BF16, &fp8.Matrix{
			Format: fp8.E4M3FN, Codes: tile, Stride: tileCols, Rows: tileRows, Cols: tileCols,
			Block: [2]int{fp8.BlockSize, fp8.BlockSize}, Scales: scales, ScaleStride: len(scales),
		})
	})
	d.Copy = fastest(plain, 2*tileCodes, func(tile []byte) { copy(buf, tile) })
	d.Transpose = fastest(codes, tileCodes, func(tile []byte) {
		fp8.Transpose(buf, tileRows, tile, tileCols, tileRows, tileCols, 1)
	})
	return d
}

// fastest goes over data in tiles a few times and returns the shortest time.
func fastest(data []byte, tile int, do func([]byte)) time.Duration {
	best := time.Duration(1<<63 - 1)
	for range 3 {
		begin := time.Now()
		for at := 0; at < len(data); at += tile {
			do(data[at : at+tile])
		}
		best = min(best, time.Since(begin))
	}
	return best
}

// kernelSwitches make a process choose the best kernels, then simpler and simpler ones.
var kernelSwitches = []string{"", "cpu.avx512f=off", "cpu.avx512f=off,cpu.avx2=off"}

// decode measures each set of kernels that this machine has, on one core.
func (b *bench) decode(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, off := range kernelSwitches {
		child := exec.CommandContext(ctx, self, "bench", "decode")
		child.Env = append(os.Environ(), "GODEBUG="+off)
		out, err := child.Output()
		if err != nil {
			return err
		}
		var d decoded
		if err := json.Unmarshal(out, &d); err != nil {
			return err
		}
		if seen[d.Implementation] {
			continue
		}
		if len(seen) == 0 {
			b.record("memcpy", "copying memory, one core", d.Bytes, d.Copy)
		}
		seen[d.Implementation] = true
		name := d.Implementation
		b.record("decode-"+name, "decoding FP8 to BF16 in memory, "+name+", one core", d.Bytes,
			d.Decode)
		b.record("transpose-"+name, "transposing codes in memory, "+name+", one core", d.Bytes/2,
			d.Transpose)
	}
	return nil
}

// export writes the sample's view to disk. For comparison, dd writes as many bytes there.
func (b *bench) export(ctx context.Context) error {
	total := sampleBytes(b.sample)
	from := b.path("dd-source")
	if _, err := os.Stat(from); err != nil {
		if err := writeRandom(from, total); err != nil {
			return err
		}
	}
	if err := readFile(from, 0, total, 0); err != nil {
		return err
	}
	err := b.time("dd", "dd conv=fsync of as many bytes from memory", total, func() error {
		dd := exec.CommandContext(ctx, "dd", "if="+from, "of="+b.path("dd"), "bs=8M", "conv=fsync")
		if out, err := dd.CombinedOutput(); err != nil {
			return fmt.Errorf("dd: %w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.Remove(b.path("dd")); err != nil {
		return err
	}
	return b.exportSample(ctx)
}

// exportSample exports about as many bytes of tensors as the sample has.
func (b *bench) exportSample(ctx context.Context) error {
	view, err := b.source.reduced(sampleBytes(b.sample))
	if err != nil {
		return err
	}
	var ranges []benchRange
	for _, t := range view.Plan.Tensors {
		ranges = append(ranges, b.source.rangesOfNode(t.Node, t.Node.Size())...)
	}
	if err := b.warm(joinRanges(ranges)); err != nil {
		return err
	}
	f, err := fs.New(b.source.checkpoint, []fs.View{view},
		fs.Options{CacheSize: b.cacheSize.option()})
	if err != nil {
		return err
	}
	defer f.Close()
	var total int64
	dir := b.path("export")
	begin := time.Now()
	m, err := export.Write(ctx, f, dir, export.Options{})
	if err != nil {
		return err
	}
	took := time.Since(begin)
	for _, file := range m.Files {
		total += file.Size
	}
	b.record("export", "export with checksums, source warm", total, took)
	return os.RemoveAll(dir)
}

// reduced is the first view with only as many tensors as make n bytes. A tensor that is larger
// alone is cut.
func (s *opened) reduced(n int64) (fs.View, error) {
	view := s.views[0]
	plan := *view.Plan
	plan.Tensors = nil
	for _, t := range view.Plan.Tensors {
		if rows := t.Node.Shape(); t.Node.Size() > n && len(rows) > 1 && rows[0] > 1 {
			cut, err := expr.Slice(t.Node, 0, 0, max(rows[0]*n/t.Node.Size(), 1))
			if err != nil {
				return fs.View{}, err
			}
			t.Node = cut
		}
		if t.Node.Size() <= n {
			plan.Tensors = append(plan.Tensors, t)
			n -= t.Node.Size()
		}
	}
	view.Plan = &plan
	return view, nil
}

// writeRandom writes a file of n bytes that a disk cannot compress.
func writeRandom(path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	r := rand.NewChaCha8([32]byte{1})
	_, err = io.CopyN(f, r, n)
	return errors.Join(err, f.Close())
}
