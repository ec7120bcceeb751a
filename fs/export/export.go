// Package export writes the files of a tree to disk, and verifies them there.
//
// Start with [Write], which exports a tree, and [Verify], which checks an export against its
// manifest. [VerifyTree] checks an export or a mount against a tree, and computes all bytes again.
//
//	m, err := export.Write(ctx, tree, "/data/v3-bf16", export.Options{})
//	found, err := export.Verify(ctx, "/data/v3-bf16", export.VerifyOptions{})
//
// A [Tree] lists and opens files: an [fs.FS] is a Tree.
//
// # Contents
//
// An export has every file of the tree, with the bytes that a mount shows, and
// .dequantfs/manifest.json. The [Manifest] has the size and SHA-256 of each file and tensor. It
// depends only on the source and the views: two exports of the same view have equal manifests.
//
// # Crash safety
//
// Files are written in .dequantfs/partial. They are brought to disk before they are renamed, and
// config.json and the index are renamed last. So no loader takes an unfinished export for a
// checkpoint, and every file under its own name is whole.
//
// # Resumption
//
// Write continues an unfinished export of the same tree, whatever interrupted it. A finished file
// has a record in .dequantfs/records and is not written again. For a complete export, Write checks
// sizes and headers, and returns the manifest that is there.
//
// # Concurrency
//
// All functions are safe for concurrent use. Several processes may write the same export, also on
// several machines: [Options.Parts] divides the files between them. On Linux, a lock keeps two
// processes from writing the same file. The tree is read by several goroutines at once.
//
// # Errors
//
// Errors name the file, and say how to continue. Write replaces only regular files under the names
// of this export. If something else is in the directory, it returns a [*ForeignError]. A full disk
// is [syscall.ENOSPC].
//
// Verify returns [ErrNotExport] or [ErrUnfinished] if there is nothing to check. Wrong bytes are
// not an error: [Verification] lists them as [Difference].
package export

import (
	"cmp"
	"context"
	"fmt"
	iofs "io/fs"
	"runtime"

	"github.com/dequantfs/dequantfs/fs"
)

// Tree is a tree of files to export. An [fs.FS] is a Tree.
type Tree interface {
	iofs.FS // lists the files

	// ReaderAt opens a file for reads that can be cancelled.
	ReaderAt(name string) (fs.ReaderAtContext, error)
	// Views returns the views that the files belong to.
	Views() []fs.View
	// Fingerprint identifies the source of the files.
	Fingerprint() (string, error)
}

// Options are the options of Write. The zero value writes all files.
type Options struct {
	Part, Parts int // this process writes part Part, from 0, of Parts; Parts 0: all
	Jobs        int // files written at once; 0: one per processor, at least 2 and at most 8

	// Progress receives each event. It is not called twice at the same time.
	Progress func(Event)

	chunk int // bytes read and written at a time; 0: chunkSize
}

// Event is one step of an export.
type Event struct {
	Kind  EventKind
	File  string // Written, Finished, Skipped
	Bytes int64  // of the file (Finished, Skipped), of this piece (Written), to write (Started)
	Files int    // to write (Started)
}

// EventKind is the kind of an event.
type EventKind string

// The kinds of events.
const (
	Started  EventKind = "started"  // the files to write are known
	Written  EventKind = "written"  // a piece of a file was written
	Finished EventKind = "finished" // a file is whole, on disk, and under its name
	Skipped  EventKind = "skipped"  // an earlier run finished this file
	Complete EventKind = "complete" // all parts are done and the manifest is written
)

// Write writes every file of a tree into the directory dir. It creates dir if it is missing.
//
// If several processes share the work, the last one writes the manifest and returns it. For the
// others the manifest is nil. The package comment describes interruption and errors.
func Write(ctx context.Context, t Tree, dir string, o Options) (*Manifest, error) {
	w, err := newWriter(t, dir, o.withDefaults())
	if err != nil {
		return nil, err
	}
	return w.run(ctx)
}

// withDefaults replaces zero values.
func (o Options) withDefaults() Options {
	o.Parts = max(o.Parts, 1)
	o.Jobs = cmp.Or(max(o.Jobs, 0), min(max(runtime.GOMAXPROCS(0), 2), 8))
	o.chunk = cmp.Or(o.chunk, chunkSize)
	if o.Progress == nil {
		o.Progress = func(Event) {}
	}
	return o
}

// check returns an error if there cannot be such a part.
func (o Options) check() error {
	if o.Part < 0 || o.Part >= o.Parts {
		return fmt.Errorf("part %d of %d: parts are numbered from 0 to %d",
			o.Part, o.Parts, o.Parts-1)
	}
	return nil
}
