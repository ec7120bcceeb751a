package source

import (
	"path/filepath"
	"slices"
)

// Unfinished returns the path of a file that a download into a local store has not finished, or "".
// A download that was interrupted leaves such files, too.
func Unfinished(name string) string {
	folder, _, err := find(name)
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		folder = real
	}
	downloads := filepath.Join(folder, ".cache", "huggingface", "download")
	patterns := []string{
		filepath.Join(downloads, partial),
		filepath.Join(downloads, "*", partial), // files of subfolders
	}
	if snapshotOf(folder) != nil {
		patterns = append(patterns, filepath.Join(folder, "..", "..", "blobs", partial))
	}
	var found []string
	for _, p := range patterns {
		files, _ := filepath.Glob(p) // it fails only for a wrong pattern
		found = append(found, files...)
	}
	if len(found) == 0 {
		return ""
	}
	return slices.Min(found)
}

// partial matches the files into which huggingface_hub downloads.
const partial = "*.incomplete"
