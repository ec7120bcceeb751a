package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs/mounts"
	"github.com/dequantfs/dequantfs/fs/pagecache"
)

// wanted are the files and tensors that the flags of warm choose.
type wanted struct {
	all              bool // layouts together, since nothing is read
	ep               string
	ranks            []adapter.EP // empty: all
	include, exclude *regexp.Regexp
	patterns         string // as given, for messages

	seen    map[fileID]bool
	found   []foundFile
	tensors []string // some of those that were looked at
	looked  int
}

// foundFile is a file of which something may be wanted.
type foundFile struct {
	name string
	size int64
}

// fileID tells files apart. The ranks of a mount share files.
type fileID struct{ device, inode uint64 }

// wanted checks the flags.
func (w *warmFlags) wanted(args []string) (*wanted, error) {
	v := &wanted{all: w.check, ep: w.ep, seen: map[fileID]bool{}}
	ranks, everyRank, err := parseRanks(w.ep)
	if err != nil {
		return nil, err
	}
	if w.ep != "" && !everyRank {
		v.ranks = ranks
	}
	if v.include, err = parsePattern("include", w.include); err != nil {
		return nil, err
	}
	if v.exclude, err = parsePattern("exclude", w.exclude); err != nil {
		return nil, err
	}
	for _, p := range [][2]string{{"include", w.include}, {"exclude", w.exclude}} {
		if p[1] != "" {
			v.patterns = strings.TrimSpace(fmt.Sprintf("%s --%s %q", v.patterns, p[0], p[1]))
		}
	}
	return v, nil
}

// list returns the files below the arguments, in their order, each once.
func (v *wanted) list(ctx context.Context, args []string) (files []pagecache.File, err error) {
	for _, arg := range args {
		if err := v.add(ctx, arg); err != nil {
			return nil, explainDead(arg, err)
		}
	}
	for _, found := range v.found {
		f, err := v.file(found)
		if err != nil {
			return nil, err
		}
		if len(f.Ranges) > 0 {
			files = append(files, f)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if len(files) == 0 && v.patterns != "" {
		return nil, withHint(fmt.Errorf("%s leaves none of %d tensors, such as %s", v.patterns,
			v.looked, firstFew(v.tensors)), "patterns match at the start: write '.*experts' for "+
			"anywhere")
	}
	return files, nil
}

// add adds the file or the files of a folder.
func (v *wanted) add(ctx context.Context, arg string) error {
	info, err := os.Stat(arg)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return withHint(fmt.Errorf("%s: there is no such file or mount", arg), listMounts)
	case err != nil:
		return err
	case info.IsDir():
		return v.addFolder(ctx, arg)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a folder", arg)
	}
	v.addFile(arg, info)
	return nil
}

// addFolder adds the *.safetensors below a folder, in the order of their names, as loaders read
// them.
func (v *wanted) addFolder(ctx context.Context, dir string) error {
	if err := v.oneLayout(dir); err != nil {
		return err
	}
	before, ranks := len(v.found), map[string]bool{}
	// The root may be a link, which WalkDir does not follow.
	err := filepath.WalkDir(filepath.Clean(dir)+"/.", func(
		name string, e iofs.DirEntry, err error,
	) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case e.IsDir() && e.Name() != "." && strings.HasPrefix(e.Name(), "."):
			return iofs.SkipDir
		case e.IsDir() && rankFolder.MatchString(e.Name()):
			ranks[e.Name()] = true
			if !v.hasRank(e.Name()) {
				return iofs.SkipDir
			}
		case !e.IsDir() && strings.HasSuffix(name, ".safetensors"):
			return v.addFound(filepath.Clean(name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return v.something(dir, len(v.found) > before, ranks)
}

// rankFolder matches the folder of an expert-parallel rank.
var rankFolder = regexp.MustCompile(`^rank-\d+-of-\d+$`)

func (v *wanted) hasRank(folder string) bool {
	return len(v.ranks) == 0 || slices.ContainsFunc(v.ranks, func(r adapter.EP) bool {
		return folder == fmt.Sprintf("rank-%d-of-%d", r.Rank, r.Size)
	})
}

// something fails if a folder has nothing that is wanted.
func (v *wanted) something(dir string, found bool, ranks map[string]bool) error {
	switch {
	case len(v.ranks) > 0 && len(ranks) == 0:
		return withHint(fmt.Errorf("%s has no folders of ranks, so --ep %s chooses nothing", dir,
			v.ep), "mount with --ep all/N, or leave --ep out")
	case len(v.ranks) > 0 && !slices.ContainsFunc(sortedKeys(ranks), v.hasRank):
		return withHint(fmt.Errorf("%s has no rank %s", dir, v.ep), "it has %s",
			firstFew(sortedKeys(ranks)))
	case !found && len(v.seen) == 0:
		return withHint(fmt.Errorf("%s: nothing is mounted there, and it has no *.safetensors",
			dir), listMounts)
	}
	return nil
}

// oneLayout refuses a folder that shows a model in several layouts: together they take several
// times the memory, and a loader reads one of them.
func (v *wanted) oneLayout(dir string) error {
	if v.all {
		return nil
	}
	var found []string
	for _, name := range layoutNames() {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.IsDir() {
			found = append(found, name)
		}
	}
	if len(found) < 2 {
		return nil
	}
	return usageError{withHint(fmt.Errorf("%s shows the model in %d layouts: %s", dir, len(found),
		firstFew(found)), "name the one that is read: dequantfs warm %s",
		filepath.Join(dir, found[0]))}
}

// addFound adds a file that may be a link, as in the Hub's cache.
func (v *wanted) addFound(name string) error {
	info, err := os.Stat(name)
	if err == nil && info.Mode().IsRegular() {
		v.addFile(name, info)
	}
	return err
}

// addFile adds a file once.
func (v *wanted) addFile(name string, info os.FileInfo) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id := fileID{st.Dev, st.Ino}
		if v.seen[id] {
			return
		}
		v.seen[id] = true
	}
	v.found = append(v.found, foundFile{name, info.Size()})
}

// file returns what is wanted of a file.
func (v *wanted) file(found foundFile) (pagecache.File, error) {
	parts := []pagecache.Range{{Len: found.size}}
	if v.patterns != "" {
		var err error
		if parts, err = v.choose(found); err != nil {
			return pagecache.File{}, fmt.Errorf("%s: %w", found.name, err)
		}
	}
	return pagecache.File{Name: found.name, Ranges: pagecache.Pages(found.size, parts...)}, nil
}

// choose returns where the chosen tensors of a file are. Of the file it reads the header alone: the
// kernel is told not to read ahead.
func (v *wanted) choose(found foundFile) (parts []pagecache.Range, err error) {
	if !strings.HasSuffix(found.name, ".safetensors") {
		return nil, errors.New("patterns choose tensors, and this is not a *.safetensors file")
	}
	f, err := os.Open(found.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		return nil, err
	}
	h, err := safetensors.ReadHeader(f, found.size)
	if err != nil {
		return nil, err
	}
	for _, t := range h.Tensors {
		v.looked++
		if len(v.tensors) < 6 {
			v.tensors = append(v.tensors, t.Name)
		}
		if (v.include == nil || v.include.MatchString(t.Name)) &&
			(v.exclude == nil || !v.exclude.MatchString(t.Name)) {
			at := h.DataOffset + t.Begin
			parts = append(parts, pagecache.Range{Off: at, Len: t.End - t.Begin})
		}
	}
	return parts, nil
}

// mountsOf returns the mounts of checkpoints that these files are in.
func mountsOf(files []pagecache.File) ([]mounts.Entry, error) {
	devices := map[string]bool{}
	for _, f := range files {
		var st unix.Stat_t
		if err := unix.Stat(f.Name, &st); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		devices[fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))] = true
	}
	all, err := mounts.List()
	return slices.DeleteFunc(all, func(m mounts.Entry) bool {
		return m.Type != mounts.Type || !devices[m.Device]
	}), err
}

// explainDead says which mount is dead, if that is why a file below a path cannot be read.
func explainDead(name string, err error) error {
	if !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
		return err
	}
	at, bad := filepath.Abs(name)
	all, _ := mounts.List()
	for _, m := range slices.Backward(all) {
		if bad == nil && m.Type == mounts.Type && strings.HasPrefix(at+"/", m.Mountpoint+"/") {
			return withHint(fmt.Errorf("%s: the process behind the mount is gone", name),
				"clear it with dequantfs umount %s, and mount again", m.Mountpoint)
		}
	}
	return err
}

func sortedKeys(set map[string]bool) (names []string) {
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
