package expr

import "github.com/dequantfs/dequantfs/adapter/source"

// DirectAlign is source.DirectAlign.
const DirectAlign = source.DirectAlign

// DirectFile is a source.Direct.
type DirectFile = source.Direct

// AheadFile is a source.Ahead.
type AheadFile = source.Ahead
