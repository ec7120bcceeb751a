package adapter

import "github.com/dequantfs/dequantfs/adapter/source"

// ErrChanged is source.ErrChanged.
var ErrChanged = source.ErrChanged

// Access is source.Access.
type Access = source.Access

// FolderReaders is source.FolderAccess.
type FolderReaders = source.FolderAccess
