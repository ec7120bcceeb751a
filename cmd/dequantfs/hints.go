package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// hints are the next steps after errors of the libraries. The first row that fits is shown. Errors
// with their own hint do not use this table.
var hints = []struct {
	is   func(error) bool
	hint string
}{
	{saysHow, ""},
	{kind(adapter.ErrNoWeight), oneOfSeveral},
	{kind(adapter.ErrNoPart), oneOfSeveral},
	{kind(adapter.ErrNoConfig), "fetch config.json too; a model in one file can be SOURCE " +
		"itself: layout hf needs no config.json"},
	{kind(adapter.ErrNoCheckpoint), "SOURCE is the folder with config.json and *.safetensors, " +
		"one .safetensors file, or ORG/NAME in the local cache"},
	{kind(adapter.ErrAbsentTensor), "if the model can do without a tensor that no shard " +
		"holds, leave it out: --exclude 'NAME'"},
	{kind(adapter.ErrNotObject), "correct the file, or remove it and download it again"},
	{kind(source.ErrMissing), fetch},
	{kind(source.ErrOutsideLink), "if you know where its links lead: --follow-links"},
	{kind(safetensors.ErrTruncated), fetch},
	{kind(safetensors.ErrDamaged), "the file is damaged: remove it and download it again"},
	{lacksTransformers, "the library transformers reads layout hf"},
	{lacksHelper, "install fuse3 (apt install fuse3, dnf install fuse3), or mount as root"},
	{kind(mounts.ErrNoTable), showMounts},
	{kind(mounts.ErrNoName), nameUser},
	{kind(mounts.ErrForeign), "ask that user to unmount it, or unmount it as root"},
	{tooLittleMemory, "raise the limit (--memory of a container, MemoryMax= of a service, " +
		"resources.limits.memory of a pod), show fewer layouts with --layout, " +
		"or set a smaller --cache-size"},
	{kind(syscall.EMFILE), "raise the limit of open files: ulimit -n 65536"},
	{kind(syscall.EBUSY), "find the processes that use it with fuser -vm MOUNTPOINT, " +
		"or detach it with umount --lazy"},
	{kind(syscall.EACCES), "check the permissions of the file and of every folder above it"},
	{kind(syscall.EROFS), "choose a folder that exists, such as /mnt, or one below /dev/shm"},
	{kind(syscall.ESTALE), "the source changed since it was opened; mount it again"},
}

const (
	fetch        = "fetch what is missing: hf download ORG/NAME --local-dir DIRECTORY"
	oneOfSeveral = "if SOURCE is one of several shards, give their folder; else " + fetch
)

// What fusermount3 needs to unmount for a user.
var (
	showMounts = "sudo ln -sf /proc/self/mounts /etc/mtab"
	nameUser   = fmt.Sprintf("give this user a name: echo user%[1]d:x:%[1]d:%[2]d::/:/bin/sh | "+
		"sudo tee -a /etc/passwd", os.Getuid(), os.Getgid())
)

// kind matches errors of a kind.
func kind(k error) func(error) bool { return func(err error) bool { return errors.Is(err, k) } }

// saysHow matches errors whose text has the command that downloads the rest.
func saysHow(err error) bool {
	return errors.Is(err, source.ErrIncomplete) || errors.Is(err, source.ErrNotDownloaded)
}

func lacksTransformers(err error) bool {
	var l *adapter.LayoutError
	return errors.As(err, &l) && l.Layout == adapter.LayoutTransformers
}

// lacksHelper matches the error of a mount without fusermount.
func lacksHelper(err error) bool {
	var e *exec.Error
	return errors.As(err, &e) && strings.HasPrefix(filepath.Base(e.Name), "fusermount")
}

func tooLittleMemory(err error) bool {
	var m *fs.MemoryError
	return errors.As(err, &m)
}
