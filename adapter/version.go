package adapter

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// Version identifies the files of a checkpoint: two checkpoints with the same version have the same
// content. Others with the same content may have another version, because a file is known by the
// hash or the version that its store tells. Without these it is known by size, time and a sample.
func (c *Checkpoint) Version() (string, error) {
	h, sampled := sha256.New(), false
	seen := map[source.File]bool{}
	add := func(f source.File) {
		if !seen[f] {
			seen[f] = true
			sampled = writeVersion(h, f) || sampled
		}
	}
	for _, t := range c.Tensors() {
		add(t.File)
	}
	for _, s := range c.SideFiles() {
		add(s.File)
	}
	if sampled {
		sample, err := c.Fingerprint()
		if err != nil {
			return "", err
		}
		io.WriteString(h, sample)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeVersion writes what is known about the content of a file. It reports whether that is only
// its size and time.
func writeVersion(w io.Writer, f source.File) (weak bool) {
	known := ""
	if p, ok := f.(source.Published); ok {
		known = p.SHA256()
	}
	if v, ok := f.(source.Versioned); ok && known == "" {
		known = v.Version()
	}
	if known == "" {
		known, weak = f.ModTime().UTC().String(), true
	}
	fmt.Fprintf(w, "%q %d %q\n", f.Name(), f.Size(), known)
	return weak
}
