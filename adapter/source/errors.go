package source

import (
	"errors"
	"fmt"
)

// The kinds of errors of a source. Errors of this package wrap one of them if it fits, and add
// details. Test for them with [errors.Is].
var (
	// ErrChanged says that a file may have changed since it was opened. Its size or its time of
	// modification differs. Or its time of change differs, without proof that only names, links or
	// permissions changed. Or a program opened it for writing.
	ErrChanged = errors.New("source has changed since it was opened")

	// ErrOutsideLink says that a link leads out of the store, which is not allowed.
	ErrOutsideLink = errors.New("link leads outside of the source")

	// ErrMissing says that a file does not exist, or that a link leads nowhere.
	ErrMissing = errors.New("missing")

	// ErrNotDownloaded says that the local cache does not have a repository, or not a revision of
	// it. It is an ErrMissing whose text has the command that downloads it.
	ErrNotDownloaded = fmt.Errorf("%w: not downloaded", ErrMissing)

	// ErrTooMany says that a folder has more than a checkpoint's may have.
	ErrTooMany = errors.New("too many files")

	// ErrIncomplete says that a download of the source was not finished.
	ErrIncomplete = errors.New("the download is not finished")
)

// said is an error of a kind with its own text.
type said struct {
	kind error
	text string
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.kind }

// sayf returns an error of a kind.
func sayf(kind error, format string, args ...any) error {
	return &said{kind, fmt.Sprintf(format, args...)}
}
