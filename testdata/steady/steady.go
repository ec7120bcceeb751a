// Package steady completes files that tests make up.
package steady

import (
	"io/fs"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// File is what a made-up file of a test embeds. It never changes, and grants access to no other
// user. The test adds Name, Size and ReadAt.
type File struct{}

// Mode permits everybody to read.
func (File) Mode() fs.FileMode { return 0o444 }

// ModTime is long ago.
func (File) ModTime() time.Time { return time.Unix(0, 0) }

// Check finds no change.
func (File) Check() error { return nil }

// Unseen is empty: there are no changes.
func (File) Unseen() string { return "" }

// Access admits no other user.
func (File) Access(*source.Lookup) *source.Access {
	return source.Nobody("a file of a test", "is made up")
}

// Close does nothing.
func (File) Close() error { return nil }
