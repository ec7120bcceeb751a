package safetensors

import "errors"

// The kinds of errors of a header. Test for them with [errors.Is].
var (
	// ErrDamaged says that a header contradicts the format, itself or the size of its file.
	ErrDamaged = errors.New("damaged safetensors file")

	// ErrTruncated says that a file ends before the data that its header describes.
	ErrTruncated = errors.New("truncated safetensors file")
)

// kindError is an error of one of these kinds. The kind is not part of its text.
type kindError struct {
	error
	kind error
}

func (e kindError) Unwrap() error { return e.error }

func (e kindError) Is(target error) bool { return target == e.kind }
