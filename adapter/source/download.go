package source

import "fmt"

// Download describes how the files of a store were downloaded.
type Download struct {
	Command    string // that downloads all of it; empty if it is not known
	Unfinished bool   // a file that is missing was probably not downloaded yet
}

// Explain adds to an error about a missing file that the download is not finished.
func (d Download) Explain(err error) error {
	if !d.Unfinished {
		return err
	}
	return &IncompleteError{Err: err, Command: d.Command}
}

// IncompleteError is an ErrIncomplete that names the missing file.
type IncompleteError struct {
	Err     error
	Command string // that downloads the rest; empty if it is not known
}

// Error names the missing file and the way to get it.
func (e *IncompleteError) Error() string {
	if e.Command == "" {
		const again = "a download into this folder is not finished: run its hf download again"
		return fmt.Sprintf("%v: %s", e.Err, again)
	}
	return fmt.Sprintf("%v: %v: run %s", e.Err, ErrIncomplete, e.Command)
}

// Unwrap returns ErrIncomplete and the error about the missing file.
func (e *IncompleteError) Unwrap() []error { return []error{ErrIncomplete, e.Err} }
