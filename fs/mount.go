package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// MountOptions are how a filesystem is mounted. Useful zero values.
type MountOptions struct {
	ReadAhead  int64 // bytes; 0: 16 MiB
	AllowOther bool  // other users may read what the source lets them read
	// UID and GID are the owner and the group that the files show, Mode is their mode, of the bits
	// of 0444. Each is a grant, whatever the source says: to that user, to that group, to those
	// whom the
	// mode lets read. nil: the user who mounts, the group that the source lets read, what the
	// source grants.
	UID, GID, Mode *uint32
	FsName         string
	Debug          bool
	Memory         int64 // bytes that the process may use; 0: what machine, cgroup and ulimit allow
}

// allowance is how much memory the process may use.
func (o *MountOptions) allowance() allowance {
	if o.Memory > 0 {
		return allowance{o.Memory, "MountOptions", o.Memory}
	}
	return least(allowed(os.ReadFile), addressSpace())
}

const (
	defaultReadAhead = 16 << 20
	requestSize      = 1 << 20 // the most that the kernel asks for at once
)

// background is how many requests of read-ahead and O_DIRECT the kernel may have under way. Its
// default of 12 leaves slow sources idle.
func background() int { return max(64, min(12*runtime.NumCPU(), 192)) }

// RequestMemory is the most, in bytes, that replies to such requests take beside the cache.
func RequestMemory() int64 { return int64(background()) * requestSize }

// Errors of Mount.
var (
	ErrMounted  = errors.New("is a mountpoint already")
	ErrOverlaps = errors.New("overlaps the source")
)

// checkPlace refuses a mountpoint that would hide the source, or stand in it: reading the source
// would then ask the mount, which waits for the source.
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

// inside says whether path is dir or lies below it.
func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
