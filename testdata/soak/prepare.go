//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/cgroup"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// soak is one run.
type soak struct {
	dir     string
	rng     *rand.Rand
	fio     fioFile
	fioSkip int64 // bytes of the tensor before what fio has written
	files   []file
	// of a source whose shards have all that their files need
	together []file
	daemon   *exec.Cmd     // nil: none runs
	ended    chan error    // what its end was
	env      []string      // its environment; nil: ours
	group    *cgroup.Group // of the daemon, if there can be one
	// for a read, or for the daemon to begin or to end: what takes longer hangs
	limit time.Duration

	gate   sync.RWMutex // held by readers that have a file of the mount open
	wanted atomic.Int32 // how many want to be alone; forward readers then stop
	counts
}

// file is a virtual file and the bytes it must have.
type file struct {
	name string // from the mount's root
	want *os.File
	size int64
}

// fioFile is where the tensor that fio has written lies in the mount.
type fioFile struct {
	name      string
	off, size int64
}

// fioTensor is a tensor that views pass on as it is.
const fioTensor = "model.embed_tokens.weight"

func (s *soak) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// prepare builds the command, writes a checkpoint, and exports it twice: for the place of fio's
// tensor, then with fio's bytes in it as what every read is compared with.
func (s *soak) prepare(ctx context.Context) error {
	if err := s.build(ctx); err != nil {
		return err
	}
	c := synth.DeepSeek(synth.Options{
		Layers: 4, MTP: 1, Experts: 12, Hidden: 1024, ExpertIntermediate: 320, Shards: 4,
		ScalesApart: true, Vocab: 8192,
	})
	if err := c.Write(s.path("source")); err != nil {
		return err
	}
	if err := s.command(ctx, "export", s.path("source"), s.path("first"), "--layout",
		"native"); err != nil {
		return err
	}
	name, off, size, err := findTensor(s.path("first"), fioTensor)
	if err != nil {
		return err
	}
	first := (off + 4095) &^ 4095 // on a page, for direct reads
	s.fio = fioFile{filepath.Join("native", name), first, (off + size - first) &^ 4095}
	s.fioSkip = first - off
	if err := s.writeFio(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(s.path("first")); err != nil {
		return err
	}
	if err := s.command(ctx, "export", s.path("source"), s.path("want"), "--layout",
		"native,hf"); err != nil {
		return err
	}
	if s.files, err = list(s.path("want")); err != nil {
		return err
	}
	return s.prepareTogether(ctx)
}

// prepareTogether writes a source each of whose shards has all that its file of the view needs.
func (s *soak) prepareTogether(ctx context.Context) error {
	c := synth.DeepSeek(synth.Options{
		Layers: 4, Experts: 12, Hidden: 1024, ExpertIntermediate: 320, Shards: 4, Vocab: 8192,
	})
	err := c.Write(s.path("together"))
	if err == nil {
		err = s.command(ctx, "export", s.path("together"), s.path("want-together"), "--layout",
			"hf")
	}
	if err == nil {
		s.together, err = list(s.path("want-together"))
	}
	return err
}

// build builds the command under test.
func (s *soak) build(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "build", "-o", s.path("dequantfs"),
		"github.com/dequantfs/dequantfs/cmd/dequantfs").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// command runs the command under test.
func (s *soak) command(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, s.path("dequantfs"), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("dequantfs %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// findTensor finds a tensor below dir.
func findTensor(dir, key string) (name string, off, size int64, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil {
		return "", 0, 0, err
	}
	for _, path := range names {
		f, err := os.Open(path)
		if err != nil {
			return "", 0, 0, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return "", 0, 0, err
		}
		h, err := safetensors.ReadHeader(f, info.Size())
		if err != nil {
			return "", 0, 0, err
		}
		for _, t := range h.Tensors {
			if t.Name == key {
				return filepath.Base(path), h.DataOffset + t.Begin, t.End - t.Begin, nil
			}
		}
	}
	return "", 0, 0, fmt.Errorf("there is no %s in %s", key, dir)
}

// writeFio lets fio write what it will verify, at the offset at which it will, and puts that into
// the source.
func (s *soak) writeFio(ctx context.Context) error {
	scratch := s.path("fio")
	err := s.runFio(ctx, scratch, "--rw=write", "--do_verify=0", "--ioengine=psync",
		"--end_fsync=1")
	if err != nil {
		return err
	}
	from, err := os.Open(scratch)
	if err != nil {
		return err
	}
	defer from.Close()
	name, off, size, err := findTensor(s.path("source"), fioTensor)
	if err != nil {
		return err
	}
	if size < s.fioSkip+s.fio.size {
		return fmt.Errorf("%s has %d bytes in the source, too few", fioTensor, size)
	}
	to, err := os.OpenFile(s.path("source", name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(to, off+s.fioSkip),
		io.NewSectionReader(from, s.fio.off, s.fio.size))
	return errors.Join(err, to.Close(), os.Remove(scratch))
}

// runFio runs fio over its tensor in a file; every block of 4 KiB has a checksum and says where it
// is.
func (s *soak) runFio(ctx context.Context, path string, args ...string) error {
	all := append([]string{
		"--name=soak", "--filename=" + path, "--offset=" +
			strconv.FormatInt(s.fio.off, 10), "--size=" + strconv.FormatInt(s.fio.size, 10),
		"--bs=4k", "--verify=crc32c", "--verify_fatal=1", "--minimal",
	}, args...)
	c := exec.CommandContext(ctx, "fio", all...)
	c.Dir = s.dir // where it leaves its state
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("fio %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// list opens the files below root that reads are compared with.
func list(root string) (files []file, err error) {
	err = filepath.WalkDir(root, func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".dequantfs" {
				return filepath.SkipDir
			}
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if info.Size() > 0 {
			files = append(files, file{name, f, info.Size()})
		}
		return err
	})
	return files, err
}
