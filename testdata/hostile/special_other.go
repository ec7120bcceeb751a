//go:build !unix

package hostile

// special files are made on Unix only.
func special() []Source { return nil }
