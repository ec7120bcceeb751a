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
	{says("scale without its weight"),
		"if SOURCE is one of several shards, give their folder; else fetch what is missing: hf download ORG/NAME --local-dir DIRECTORY"},
	{incomplete, "fetch what is missing: hf download ORG/NAME --local-dir DIRECTORY"},
	{says("index and shards disagree"),
		"if the model can do without what no shard holds, leave it out: --exclude 'NAME'"},
	{says("has no layout transformers"), "the library transformers reads layout hf"},
	{says("config.json: missing beside"),
		"fetch config.json too; a model in one file can be SOURCE itself: layout hf needs no config.json"},
	{says("config.json: missing"),
		"SOURCE is the folder with config.json and *.safetensors, one .safetensors file, or ORG/NAME in the local cache"},
	{says("its link leads to", "outside of"), "if you know where its links lead: --follow-links"},
	{says("not a JSON object"), "correct the file, or remove it and download it again"},
	{says("bad header"), damaged},
	{says("bytes more in the file"), damaged},
	{says("data_offsets"), damaged},
	{says("://", "no such file"),
		"nothing is downloaded: hf download ORG/NAME fetches a repository, and then SOURCE is ORG/NAME"},
	{says("address already in use"), "give --metrics another port, or :0 for any that is free"},
	{says("fusermount", "executable file not found"),
		"install fuse3 (apt install fuse3, dnf install fuse3), or mount as root"},
	{says("user_allow_other"),
		"put a line user_allow_other into /etc/fuse.conf, or leave --allow-other out"},
	{tooLittleMemory,
		"raise the limit (--memory of a container, MemoryMax= of a service, resources.limits.memory of a pod), show fewer layouts with --layout, or set a smaller --cache-size"},
	{errno(syscall.EMFILE), "raise the limit of open files: ulimit -n 65536"},
	{errno(syscall.EBUSY),
		"find who uses it with fuser -vm MOUNTPOINT, or detach it with umount --lazy"},
	{errno(syscall.EACCES), "check who may read the file and every folder above it"},
	{errno(syscall.ESTALE), "the source changed since it was opened; mount it again"},
}

// damaged is what to do about a file whose bytes were changed on their way.
const damaged = "the file is damaged: remove it and download it again"

// incomplete fits the errors of a source that was not downloaded in full, but for those
// that say themselves how to go on.
func incomplete(err error) bool {
	text := err.Error()
	if strings.Contains(text, "hf download") {
		return false
	}
	for _, part := range []string{".safetensors: missing", "shards is missing",
		"shards are missing", "is truncated", "may be incomplete", "index.json and no *.safetensors"} {
		if strings.Contains(text, part) {
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
