package export

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"syscall"

	"github.com/dequantfs/dequantfs/adapter/readback"
)

// Errors of Verify.
var (
	ErrNotExport  = errors.New("not an export")
	ErrUnfinished = errors.New("unfinished export")
)

// ForeignError reports something in the directory that this export did not make. Write neither
// changes nor follows it.
type ForeignError struct {
	Name    string // the file or directory
	problem string
}

// Error names the file, what is wrong, and the way out.
func (e *ForeignError) Error() string { return e.Name + " " + e.problem }

// wrongKind reports a file of a kind that no export makes under this name.
func wrongKind(name string, mode iofs.FileMode) error {
	return &ForeignError{name, "is " + readback.Kind(mode) +
		" that no export has made: remove it, or give another directory"}
}

// errTaken reports that another process writes the same file.
func errTaken(name string) error {
	return fmt.Errorf("%s was begun or finished by another export just now: run this one again",
		name)
}

// explainFull adds to the error of a full disk how to continue.
func explainFull(dir string, f FileRecord, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%s: no room for %s (%d bytes); finished files are kept: "+
			"make room and run the same command again: %w", dir, f.Name, f.Size, err)
	}
	return err
}
