package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	rangeBytes = 8 << 20 // of a request of the plain reader
	pieceBytes = 4 << 20 // of a read of the mount
)

// plainly reads all shards by ranges, and does nothing with the bytes.
func (b *bench) plainly() error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: b.connections,
		DisableCompression: true, ReadBufferSize: 64 << 10}}
	defer client.CloseIdleConnections()
	var group errgroup.Group
	group.SetLimit(b.connections)
	buffers := sync.Pool{New: func() any { return new([rangeBytes]byte) }}
	for _, o := range b.urls {
		for at := int64(0); at < o.size; at += rangeBytes {
			group.Go(func() error {
				buf := buffers.Get().(*[rangeBytes]byte)
				defer buffers.Put(buf)
				return get(client, o.url, at, buf[:min(rangeBytes, o.size-at)])
			})
		}
	}
	return group.Wait()
}

// get reads one range.
func get(client *http.Client, url string, off int64, p []byte) error {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
	a, err := client.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	_, err = io.ReadFull(a.Body, p)
	return err
}

// mounted mounts a source, and measures what is done with the mount.
func (b *bench) mounted(name, source string, flags []string, read func(string) error) error {
	mnt := filepath.Join(b.dir, "mnt")
	args := append([]string{"mount", "--quiet", "--layout", b.layout, source, mnt}, flags...)
	args = append(args, strings.Fields(b.flags)...)
	if err := b.as(args...).Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	err := b.time(name, func() error { return read(mnt) })
	if spent, cpuErr := b.processorTime(mnt); cpuErr == nil {
		fmt.Printf("%24s %7.1f s of processor time of the mount\n", "", spent.Seconds())
	}
	return errors.Join(err, b.as("umount", mnt).Run())
}

// processorTime is what the process behind a mount has used.
func (b *bench) processorTime(mnt string) (time.Duration, error) {
	out, err := b.as("status", "--json", mnt).Output()
	if err != nil {
		return 0, err
	}
	var state struct {
		Mounts []struct{ PID int }
	}
	if err := json.Unmarshal(out, &state); err != nil || len(state.Mounts) != 1 {
		return 0, fmt.Errorf("%d mounts: %w", len(state.Mounts), err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", state.Mounts[0].PID))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	var user, system int64 // in hundredths of a second
	for i, f := range strings.Fields(rest) {
		switch i {
		case 11:
			user, _ = strconv.ParseInt(f, 10, 64) // the kernel writes numbers
		case 12:
			system, _ = strconv.ParseInt(f, 10, 64)
		}
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// unmount removes a mount that was left behind.
func (b *bench) unmount() {
	c := b.as("umount", "--lazy", filepath.Join(b.dir, "mnt"))
	c.Stderr = nil
	_ = c.Run() // there is none after a run without errors
}

// as is the program with arguments. Its state is in the folder of this run.
func (b *bench) as(args ...string) *exec.Cmd {
	c := command(b.program, args...)
	c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+b.dir, "HOME="+b.dir)
	return c
}

func command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Stderr = os.Stderr
	return c
}

// readFiles reads all weights below a folder. Each file is divided among the readers.
func (b *bench) readFiles(dir string) error {
	return eachFile(dir, func(name string, size int64) error {
		each := (size/int64(b.readers) + pieceBytes - 1) / pieceBytes * pieceBytes
		var group errgroup.Group
		for at := int64(0); at < size; at += each {
			group.Go(func() error { return readPart(name, at, min(each, size-at)) })
		}
		return group.Wait()
	})
}

// eachFile calls do for each file with weights.
func eachFile(dir string, do func(name string, size int64) error) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".safetensors" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return do(name, info.Size())
	})
}

// readPart reads a part of a file in pieces.
func readPart(name string, off, n int64) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, pieceBytes)
	for end := off + n; off < end; off += pieceBytes {
		if _, err := f.ReadAt(buf[:min(pieceBytes, end-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// mapFiles touches all pages of all weights, one file after the other.
func (b *bench) mapFiles(dir string) error {
	return eachFile(dir, func(name string, size int64) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		var sum byte
		for at := 0; at < len(m); at += 4096 {
			sum += m[at]
		}
		if err := unix.Munmap(m); err != nil {
			return err
		}
		b.seen.Add(int64(sum)) // so that the compiler does not leave the reads out
		return nil
	})
}

// touch brings the files below a folder into memory, or drops them from it.
func touch(dir string, drop bool) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if drop {
			return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		_, err = io.Copy(io.Discard, f)
		return err
	})
}
