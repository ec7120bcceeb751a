package main

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// overNetwork reports whether the source comes over a network.
func (b *bench) overNetwork() bool {
	_, remote := b.source.checkpoint.Traffic()
	return remote
}

// states are the states of the source in which virtual files are read. Memory for a source over a
// network is that of one process, so it is cold whenever it is opened.
func (b *bench) states() []string {
	if b.overNetwork() {
		return []string{"cold"}
	}
	return []string{"cold", "warm"}
}

// remoteReaders is how many readers read a source over a network as fast as it comes.
const remoteReaders = 16

// readRemote reads the bytes over a network from which the sample is computed, by many readers.
func (b *bench) readRemote(ctx context.Context) error {
	c, err := openCheckpoint(ctx, b.name, logger(b.command), b.request.opening)
	if err != nil {
		return err
	}
	defer c.Close()
	files := map[string]expr.File{}
	for _, t := range c.Tensors() {
		files[t.Shard] = t.File
	}
	const what = "source bytes over the network, 16 readers"
	return b.time("source-cold", what, sumRanges(b.ranges), func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(remoteReaders)
		for _, r := range b.ranges {
			for at := int64(0); at < r.n; at += benchPiece {
				g.Go(func() error {
					return readPiece(ctx, files[r.path], r.off+at, min(benchPiece, r.n-at))
				})
			}
		}
		return g.Wait()
	})
}

func readPiece(ctx context.Context, f expr.File, off, n int64) error {
	if got, err := f.ReadAt(ctx, make([]byte, n), off); int64(got) < n {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	return nil
}
