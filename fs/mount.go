package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// MountOptions say how a filesystem is mounted. Zero values are useful.
type MountOptions struct {
	ReadAhead  int64 // bytes; 0: 16 MiB
	AllowOther bool  // other users may read what the source lets them read
	Direct     bool  // shards are read past the page cache, see Mount.Maps
	// The files show UID as owner, GID as group, and Mode as permissions (only bits of 0444). Each
	// grants access to those users, whatever the source says. If one is nil, the files show the
	// user who mounts, the group that the source admits, or the permissions of the source.
	UID, GID, Mode *uint32
	FsName         string
	Debug          bool
	Ahead          Ahead
	Memory         int64 // bytes that the process may use; 0: as machine, cgroup and ulimit allow

	unmapped bool // do not ask the kernel to map files that are read past the page cache (tests)
}

// Ahead says whether a mount decodes ahead of its loaders.
type Ahead int

// AheadAuto decodes ahead if there are three processors or more. With fewer, it would take them
// from the loader and from the kernel's own read-ahead.
const (
	AheadAuto Ahead = iota
	AheadOn
	AheadOff
)

// allowance returns how much memory the process may use.
func (o *MountOptions) allowance() allowance {
	if o.Memory > 0 {
		return allowance{o.Memory, "MountOptions", o.Memory}
	}
	return least(allowed(os.ReadFile), addressSpace())
}

const (
	defaultReadAhead = 16 << 20
	requestSize      = 1 << 20 // most bytes of one request of the kernel
)

// background returns how many requests for read-ahead and O_DIRECT the kernel may send at once. Its
// default of 12 leaves slow sources idle.
func background() int { return max(64, min(12*runtime.NumCPU(), 192)) }

// RequestMemory returns the most bytes that replies to such requests take beside the cache.
func RequestMemory() int64 { return int64(background()) * requestSize }

// Errors of Mount.
var (
	ErrMounted  = errors.New("is a mountpoint already")
	ErrOverlaps = errors.New("overlaps the source")
)

// checkPlace refuses a mountpoint that contains the source or is in it. A read of the source would
// then wait for the mount, and the mount for the source.
func (f *FS) checkPlace(mountpoint string) error {
	if f.checkpoint == nil {
		return nil
	}
	source, err := filepath.Abs(f.checkpoint.Path)
	if err != nil {
		return err
	}
	if source, err = filepath.EvalSymlinks(source); err != nil {
		return nil // a name, not a path
	}
	if st, err := os.Stat(source); err == nil && !st.IsDir() {
		source = filepath.Dir(source)
	}
	if inside(mountpoint, source) || inside(source, mountpoint) {
		return fmt.Errorf("%s: %w %s; choose a directory outside of it", mountpoint, ErrOverlaps,
			source)
	}
	return nil
}

// inside reports whether path is dir or below it.
func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
