// Package source reads checkpoints where they are stored.
package source

import "errors"

// The kinds of errors of a source. Errors of this package wrap one of them where it fits, and say
// more: test for them with [errors.Is].
var (
	// ErrChanged says that a file may differ from what it was when it was opened. Either its size
	// or its time of modification is different. Or its time of change is different, and nothing
	// shows that only names, links or permissions changed. Or a program opened it for writing.
	ErrChanged = errors.New("source has changed since it was opened")

	// ErrOutsideLink says that a link leads out of the store, and that links may not do so.
	ErrOutsideLink = errors.New("link leads outside of the source")

	// ErrMissing says that a file does not exist, or that a link leads nowhere.
	ErrMissing = errors.New("missing")

	// ErrIncomplete says that a download of the source was not finished.
	ErrIncomplete = errors.New("the download is not finished")
)
