package adapter

import "errors"

// ErrChanged says that a source file is not what it was when it was opened: another size or
// another time of modification.
var ErrChanged = errors.New("source has changed since it was opened")
