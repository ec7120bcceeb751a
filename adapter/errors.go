package adapter

import "errors"

// The kinds of errors of a checkpoint and its views. Test for them with [errors.Is].
var (
	// ErrUnknownLayout says that no layout has this name.
	ErrUnknownLayout = errors.New("unknown layout")

	// ErrNotObject says that a file of JSON does not hold an object.
	ErrNotObject = errors.New("not a JSON object")

	// ErrNoConfig says that a folder has weights, but not config.json.
	ErrNoConfig = errors.New("config.json is missing")

	// ErrNoCheckpoint says that a folder has neither config.json nor weights.
	ErrNoCheckpoint = errors.New("not the folder of a checkpoint")

	// ErrAbsentTensor says that an index names a tensor that is not in a shard.
	ErrAbsentTensor = errors.New("index and shards disagree")

	// ErrNoWeight says that a scale has no weight.
	ErrNoWeight = errors.New("scale without its weight")

	// ErrNoPart says that a quantized weight lacks one of its tensors.
	ErrNoPart = errors.New("weight without one of its tensors")
)

// LayoutError says that a model has no such layout.
type LayoutError struct {
	Layout string
	text   string
}

// Error names the model, the reason, and the layouts that it has.
func (e *LayoutError) Error() string { return e.text }

// kindError is an error of one of the kinds above. The kind is not part of its text.
type kindError struct {
	error
	kind error
}

func (e kindError) Unwrap() error { return e.error }

func (e kindError) Is(target error) bool { return target == e.kind }
