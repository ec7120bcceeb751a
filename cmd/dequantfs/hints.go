package main

import (
	"errors"
	"strings"
	"syscall"

	"github.com/dequantfs/dequantfs/fs"
)

// hints say what to do about errors of the libraries. The first that fits is
// shown; an error that carries its own hint does not come here.
var hints = []struct {
	is   func(error) bool
	hint string
}{
	{incomplete, "fetch what is missing: hf download ORG/NAME --local-dir DIRECTORY"},
	{says("has no table for layout"), "--layout hf shows every model"},
	{says("config.json: missing"), "SOURCE is the folder with config.json and *.safetensors, one .safetensors file, or ORG/NAME in the local cache"},
	{says("its link leads to", "outside of"), "if you know where its links lead: --follow-links"},
	{says("unknown layout"), "the layouts are native, hf, transformers, torchtitan and hf-fp8"},
	{says("address already in use"), "give --metrics another port, or :0 for any that is free"},
	{says("fusermount", "executable file not found"), "install fuse3 (apt install fuse3, dnf install fuse3), or mount as root"},
	{says("user_allow_other"), "put a line user_allow_other into /etc/fuse.conf, or leave --allow-other out"},
	{tooLittleMemory, "raise the limit (--memory of a container, MemoryMax= of a service, resources.limits.memory of a pod), show fewer layouts with --layout, or set a smaller --cache-size"},
	{errno(syscall.EMFILE), "raise the limit of open files: ulimit -n 65536"},
	{errno(syscall.EBUSY), "find who uses it with fuser -vm MOUNTPOINT, or detach it with umount --lazy"},
	{errno(syscall.EACCES), "check who may read the file and every folder above it"},
	{errno(syscall.ESTALE), "the source changed since it was opened; mount it again"},
}

// incomplete fits the errors of a source that was not downloaded in full.
func incomplete(err error) bool {
	for _, part := range []string{".safetensors: missing", "is truncated", "may be incomplete", "which does not hold it"} {
		if strings.Contains(err.Error(), part) {
			return true
		}
	}
	return false
}

func tooLittleMemory(err error) bool {
	var m *fs.MemoryError
	return errors.As(err, &m)
}

// says fits an error whose text has all the parts.
func says(parts ...string) func(error) bool {
	return func(err error) bool {
		for _, p := range parts {
			if !strings.Contains(err.Error(), p) {
				return false
			}
		}
		return true
	}
}

func errno(e syscall.Errno) func(error) bool {
	return func(err error) bool { return errors.Is(err, e) }
}
