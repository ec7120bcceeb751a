package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/dequantfs/dequantfs/adapter/remote"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/fs"
)

// sourceFlags are the flags that say how SOURCE is read. They do not change what is shown.
type sourceFlags struct {
	follow    bool
	memory    size
	timeout   time.Duration
	cache     string
	cacheSize size

	set *pflag.FlagSet // that has the flags; nil in tests of check
}

// sourceFlagNames are the flags of sourceFlags.
var sourceFlagNames = []string{"follow-links", "remote-memory", "remote-timeout", "disk-cache",
	"disk-cache-size"}

// isSourceFlag reports whether a flag is about reading SOURCE.
func isSourceFlag(name string) bool { return slices.Contains(sourceFlagNames, name) }

// register adds the flags to a set.
func (s *sourceFlags) register(flags *pflag.FlagSet) {
	s.set = flags
	flags.BoolVar(&s.follow, "follow-links", false,
		"follow symlinks that lead out of the source")
	flags.Var(&s.memory, "remote-memory",
		"memory for a source over a network (default a tenth, at most 1GiB)")
	flags.DurationVar(&s.timeout, "remote-timeout", 0,
		"send a request again that brings no byte for so long (default 10s)")
	flags.StringVar(&s.cache, "disk-cache", "",
		"keep remote bytes in `DIR`: see help remote")
	flags.Var(&s.cacheSize, "disk-cache-size",
		"most bytes in it (default all but a tenth of the disk)")
	for _, rare := range []string{"remote-memory", "remote-timeout", "disk-cache-size"} {
		_ = flags.MarkHidden(rare) // the topic has them; it fails only for an unknown flag
	}
}

// opening says how SOURCE is opened.
type opening struct {
	follow bool
	remote remote.Options

	overNetwork []string // the given flags that are for sources over a network only
}

// sayUnused warns of flags that have no effect on a source of this machine.
func (o *opening) sayUnused(name string, log *slog.Logger) {
	if n := len(o.overNetwork); n > 0 {
		log.Warn(fmt.Sprintf("%s %s no effect: %s is not read over a network",
			strings.Join(o.overNetwork, " and "), plural(n, "has", "have"), name))
	}
}

// defaultRemoteMemory is the most memory that a source over a network gets without --remote-memory.
const defaultRemoteMemory = 1 << 30

// check finds mistakes in the flags, and returns how SOURCE is opened.
func (s *sourceFlags) check() (o opening, err error) {
	// of a variable that is not set
	if s.cache == "" && s.set != nil && s.set.Changed("disk-cache") {
		return o, usageError{errors.New("--disk-cache is empty: name a folder, or leave it out")}
	}
	if s.cache == "" && s.cacheSize > 0 {
		return o, usageError{errors.New("--disk-cache-size needs --disk-cache DIR")}
	}
	if err := notNegative("remote-timeout", s.timeout, "30s"); err != nil {
		return o, err
	}
	o.follow = s.follow
	for _, name := range sourceFlagNames {
		if name != "follow-links" && s.set != nil && s.set.Changed(name) {
			o.overNetwork = append(o.overNetwork, "--"+name)
		}
	}
	o.remote.Patience = s.timeout
	o.remote.Memory = int64(s.memory)
	if s.memory == 0 {
		allowed, _ := fs.AllowedMemory()
		o.remote.Memory = min(allowed/10, defaultRemoteMemory)
	}
	if s.cache != "" { // the process behind a mount leaves its folder
		o.remote.DiskCache, err = filepath.Abs(s.cache)
	}
	o.remote.DiskCacheSize = int64(s.cacheSize)
	return o, err
}

// placeOf returns the absolute name of SOURCE for messages and records. It has no credentials.
func placeOf(s *opened, name string) (string, error) {
	if remote.Is(name) {
		return s.checkpoint.Location(), nil
	}
	return absolute(name)
}

// schemes are the beginnings of the addresses of sources, and other names of them.
var schemes = []struct {
	name   string
	others []string
}{
	{"hf", []string{"huggingface", "hub"}},
	{"https", nil},
	{"http", nil},
	{"s3", []string{"s3a", "s3n", "r2", "minio"}},
	{"gs", []string{"gcs"}},
	{"az", []string{"azure", "abfs", "abfss", "wasb", "wasbs", "azblob"}},
}

// explainName adds a hint to the error for a SOURCE that may be a misspelled address.
func explainName(name string, err error) error {
	if err == nil || hintFor(err) != "" && !errors.Is(err, source.ErrMissing) {
		return err
	}
	if as := meant(name); as != "" {
		return withHint(err, "did you mean %s?", as)
	}
	if remote.Is(name) && errors.Is(err, source.ErrMissing) &&
		strings.HasSuffix(name, ".safetensors") {
		return withHint(err, "correct the name of the file, or give its folder as SOURCE")
	}
	if remote.Is(name) { // nothing has to be downloaded
		return withHint(err, "")
	}
	if errors.Is(err, source.ErrNotDownloaded) {
		return withHint(err, "or read it from the Hub as you go: give hf://%s as SOURCE", name)
	}
	return err
}

// meant returns the address that a name was perhaps meant to be, or "".
func meant(name string) string {
	for _, host := range []string{"huggingface.co/", "www.huggingface.co/", "hf.co/"} {
		if strings.HasPrefix(name, host) {
			return "https://" + name
		}
	}
	scheme, rest, ok := strings.Cut(name, ":")
	scheme = strings.ToLower(scheme)
	if !ok || scheme == "" || strings.Contains(scheme, "/") {
		return ""
	}
	var names []string
	for _, s := range schemes {
		names = append(names, s.name)
		if s.name == scheme || slices.Contains(s.others, scheme) {
			return notItself(s.name+"://"+strings.TrimLeft(rest, "/"), name)
		}
	}
	if near := similar(scheme, names); len(near) > 0 {
		return near[0] + "://" + strings.TrimLeft(rest, "/")
	}
	return ""
}

// notItself returns an address unless it is the name.
func notItself(address, name string) string {
	if address == name {
		return ""
	}
	return address
}
