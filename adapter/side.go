package adapter

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxSide is how many side files are held open.
const maxSide = 1000

// SideFile is a regular file of the source's top folder. Reading it keeps the same
// promise as reading a shard: its bytes as they were, or an error.
type SideFile struct {
	Name string
	Size int64
	Mode uint32 // permission bits of the source
	io.ReaderAt
}

// openSide opens the files beside the shards. One that cannot be opened is left out
// with a warning: no tokenizer is worth a mount.
func (c *Checkpoint) openSide(d *folder) error {
	shards := map[string]bool{}
	for _, name := range c.shards {
		shards[name] = true
	}
	for _, name := range d.entries {
		if shards[name] || isHidden(name) || d.isFolder(name) {
			continue
		}
		if len(c.side) == maxSide {
			d.logger.Warn("side files left out: there are too many", "most", maxSide)
			break
		}
		f, err := d.open(name)
		if err != nil {
			d.logger.Warn("side file left out", "file", fmt.Sprintf("%q", name), "error", err)
			continue
		}
		c.files = append(c.files, f)
		c.side = append(c.side, SideFile{Name: name, Size: f.Size(), Mode: f.Mode(), ReaderAt: f})
	}
	return nil
}

// hiddenEnds and hiddenStarts are how names of files begin and end that a loader might
// take for weights, or that say something of the source that is not true of a view.
var (
	hiddenEnds   = []string{shardEnd, ".bin", ".index.json", ".incomplete"}
	hiddenStarts = []string{".", "consolidated"}
)

// isHidden says whether an entry of the folder is not to be shown.
func isHidden(name string) bool {
	if name == configName || slices.Contains(quantizeNames, name) || !isFileName(name) {
		return true
	}
	for _, s := range hiddenStarts {
		if strings.HasPrefix(name, s) {
			return true
		}
	}
	for _, s := range hiddenEnds {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}

// isFolder says whether an entry is a subfolder, which views do not show.
func (d *folder) isFolder(name string) bool {
	info, err := d.root.Lstat(filepath.Join(d.inside, name))
	if err == nil && info.Mode()&os.ModeSymlink != 0 {
		info, err = d.root.Stat(filepath.Join(d.inside, name))
	}
	return err == nil && info.IsDir()
}
