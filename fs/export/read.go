package export

import (
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/readback"
)

// Bounds of a manifest. The manifest of DeepSeek-V3 has 92,000 tensors in 20 MB.
const (
	manifestBytes = 64 << 20 // read whatever files there are
	manifestMost  = 1 << 30  // read if the files are large enough
)

// ReadManifest reads the manifest of a complete export. It returns an error if no export writes
// such a manifest. It does not read the files: Manifest.Verify does.
func ReadManifest(dir string) (*Manifest, error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s is %s: give the directory of an export, or a mountpoint",
			dir, readback.Kind(info.Mode()))
	}
	f, err := readback.Open(filepath.Join(dir, stateDir, manifestName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	limit, err := manifestLimit(f, dir)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(f, limit, true)
	if err != nil {
		return nil, fmt.Errorf("%w: export again, or compare with the source: "+
			"dequantfs verify --source SOURCE --layout LAYOUT", err)
	}
	return m, nil
}

// decodeManifest reads a manifest from an open file.
func decodeManifest(f *os.File, limit int64, finished bool) (*Manifest, error) {
	m := new(Manifest)
	err := readback.DecodeFile(f, m, readback.Limits{Bytes: limit})
	if err != nil {
		if v := versionOf(f, limit); v != 0 && v != manifestVersion {
			return nil, fmt.Errorf("%s: %w", f.Name(), errVersion(v))
		}
		return nil, err
	}
	if err := m.check(finished); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return m, nil
}

func errVersion(v int) error {
	return fmt.Errorf("a manifest of version %d, which another version of dequantfs wrote: "+
		"this one reads version %d", v, manifestVersion)
}

// versionOf returns the version in a manifest that cannot be decoded, or 0.
func versionOf(f *os.File, limit int64) int {
	var v struct {
		Version int `json:"version"`
	}
	if _, err := f.Seek(0, 0); err != nil {
		return 0
	}
	if readback.DecodeFile(f, &v, readback.Limits{Bytes: limit, Loose: true}) != nil {
		return 0
	}
	return v.Version
}

// manifestLimit returns the largest size that a manifest of the files in its directory can have. A
// tensor takes at most eight times as many bytes in a manifest as in the header of its file.
func manifestLimit(manifest *os.File, dir string) (int64, error) {
	info, err := manifest.Stat()
	if err != nil || info.Size() <= manifestBytes {
		return manifestBytes, err
	}
	need := int64(manifestBytes)
	err = filepath.WalkDir(dir, func(path string, d iofs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != dir:
			return filepath.SkipDir
		case d.Type().IsRegular():
			need = min(need+entryLimit(path), manifestMost)
		}
		return nil
	})
	return need, err
}

// entryLimit returns the largest size of a file's entry in a manifest.
func entryLimit(path string) int64 {
	n := int64(4096)
	if isShard(path) {
		n += 8 * min(headerLength(path), manifestMost)
	}
	return n
}

// headerLength returns the length of a shard's header, or 0 if that is not known.
func headerLength(path string) int64 {
	f, err := readback.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return min(dataOffset(f), info.Size())
}
