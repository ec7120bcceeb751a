package export

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"path"

	"golang.org/x/sync/errgroup"

	"github.com/dequantfs/dequantfs/fs"
)

const (
	chunkSize      = 8 << 20 // bytes read and written at a time
	buffersPerFile = 3       // one is filled, one is written, one waits
)

// files writes several files at a time.
func (w *writer) files(ctx context.Context, todo []FileRecord) error {
	jobs := min(w.options.Jobs, len(todo))
	w.buffers = make(chan []byte, jobs*buffersPerFile)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(jobs, 1))
	for _, f := range todo {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return w.file(ctx, f) })
	}
	return g.Wait()
}

// source is a file of a tree.
type source struct {
	FileRecord // with tensors, without checksums
	content    fs.ReaderAtContext
	sums       *checksums // while it is copied
}

// openSource opens a file of a tree and reads its header.
func openSource(t Tree, f FileRecord) (*source, error) {
	content, err := t.ReaderAt(f.Name)
	if err != nil {
		return nil, err
	}
	if f.Tensors, err = tensorsOf(f.Name, content, content.Size()); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	return &source{FileRecord: f, content: content}, nil
}

// read fills p.
func (s *source) read(ctx context.Context, p []byte, off int64) error {
	n, err := s.content.ReadAtContext(ctx, p, off)
	if n == len(p) {
		return nil
	}
	return fmt.Errorf("%s at byte %d: %w", s.Name, off+int64(n), cmp.Or(err, io.ErrUnexpectedEOF))
}

// file writes one file and its record.
func (w *writer) file(ctx context.Context, f FileRecord) error {
	s, err := openSource(w.tree, f)
	if err != nil {
		return err
	}
	s.sums = newChecksums(s.FileRecord)
	if err := w.content(ctx, s); err != nil {
		return err
	}
	if err := w.record(s); err != nil {
		return err
	}
	w.tell(Event{Kind: Finished, File: f.Name, Bytes: f.Size})
	return nil
}

// record writes the record of a finished file.
func (w *writer) record(s *source) error {
	record, err := s.sums.result()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := record.encode(&text); err != nil {
		return err
	}
	return w.dir.replace(recordOf(s.Name), text.Bytes())
}

// content brings the bytes of a file to disk, and then gives the file its name.
func (w *writer) content(ctx context.Context, s *source) error {
	partial := partialOf(s.Name)
	for _, dir := range []string{path.Dir(partial), path.Dir(s.Name)} {
		if err := w.dir.mkdir(dir); err != nil {
			return err
		}
	}
	if err := w.fill(ctx, s, partial); err != nil {
		return explainFull(w.path, s.FileRecord, err)
	}
	if err := w.dir.rename(partial, s.Name); err != nil {
		return err
	}
	return w.dir.sync(path.Dir(s.Name))
}

// fill writes the bytes of a file under its partial name.
func (w *writer) fill(ctx context.Context, s *source, partial string) error {
	t, err := createTarget(w.dir, partial, s.Size)
	if err != nil {
		return err
	}
	if err = w.copy(ctx, t, s); err == nil {
		err = t.finish()
	}
	if err != nil {
		t.abandon()
	}
	return err
}

// piece is a part of a file, in a buffer that may be larger.
type piece struct{ buf, data []byte }

// copy reads, sums and writes a file. It reads a piece while it writes the one before.
func (w *writer) copy(ctx context.Context, t *target, s *source) error {
	full := make(chan piece, buffersPerFile-2)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(full)
		return w.read(ctx, s, full)
	})
	g.Go(func() error {
		for p := range full {
			if err := t.write(p.data, s.sums.write); err != nil {
				return err
			}
			w.recycle(p.buf)
			w.tell(Event{Kind: Written, File: s.Name, Bytes: int64(len(p.data))})
		}
		return nil
	})
	return g.Wait()
}

// read reads a file piece by piece.
func (w *writer) read(ctx context.Context, s *source, full chan<- piece) error {
	for off := int64(0); off < s.Size; {
		p := piece{buf: w.buffer()}
		p.data = p.buf[:min(int64(len(p.buf)), s.Size-off)]
		if err := s.read(ctx, p.data, off); err != nil {
			return err
		}
		off += int64(len(p.data))
		select {
		case full <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// buffer returns a buffer of one chunk. Go allocates buffers of this size on whole pages, which
// direct writes need.
func (w *writer) buffer() []byte {
	select {
	case b := <-w.buffers:
		return b
	default:
		return make([]byte, w.options.chunk)
	}
}

// recycle keeps a buffer for the next piece.
func (w *writer) recycle(b []byte) {
	select {
	case w.buffers <- b:
	default:
	}
}
