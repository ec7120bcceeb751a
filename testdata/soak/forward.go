//go:build linux

package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// forwardPiece is what a forward reader copies out of a mapping at once.
const forwardPiece = 1 << 20

// forward reads mapped files of one layout, the one behind the other, as a loader does. It begins
// at a random file and stops after a random number of bytes, or when a fault wants to be alone.
func (s *soak) forward(done <-chan struct{}, rng *rand.Rand, buf, want []byte) {
	first := s.files[rng.IntN(len(s.files))]
	left := rng.Int64N(256 << 20)
	for _, f := range behind(s.files, first) {
		left -= s.forwardIn(s.path("mnt"), f, buf, want, func(read int64) bool {
			return read >= left || s.wanted.Load() > 0 || isClosed(done)
		})
		if left <= 0 || s.wanted.Load() > 0 || isClosed(done) {
			return
		}
	}
}

// behind returns a file and those behind it in its directory that have tensors.
func behind(files []file, first file) []file {
	var list []file
	for _, f := range files {
		if filepath.Dir(f.name) == filepath.Dir(first.name) && f.name >= first.name &&
			strings.HasSuffix(f.name, ".safetensors") {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return list
}

// forwardIn reads a mapped file below root from its beginning until stop says so. Before, it lets
// the kernel forget the file. It returns how many bytes it has tried to read.
func (s *soak) forwardIn(root string, f file, buf, want []byte,
	stop func(read int64) bool) (read int64) {
	epoch := s.epoch.Load()
	h, err := os.Open(filepath.Join(root, f.name))
	if err != nil {
		return f.size // the mount may be away; other readers complain if it should not be
	}
	defer h.Close()
	_ = unix.Fadvise(int(h.Fd()), 0, 0, unix.FADV_DONTNEED) // the file is only warmer without it
	mapped := func(_ string, p []byte, off int64) error { return readMapped(h, p, off) }
	for read < f.size && s.epoch.Load() == epoch && !stop(read) { // or the mount is another one
		n := min(forwardPiece, f.size-read)
		s.oneSince(epoch, f, "forward mmap", mapped, buf[:n], want[:n], read)
		read += n
	}
	return read
}

// ahead is what a daemon has decoded ahead.
type ahead struct {
	Ahead struct {
		Bytes  int64 `json:"bytes"`
		Errors int64 `json:"errors"`
	} `json:"ahead"`
}

// decodedAhead asks the daemon of a mount what it has decoded ahead.
func decodedAhead(mnt string) (a ahead, err error) {
	data, err := os.ReadFile(filepath.Join(mnt, ".dequantfs", "stats.json"))
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	return a, err
}

// alone does something while no reader of the mount has a file open.
func (s *soak) alone(do func() error) error {
	s.wanted.Add(1)
	s.gate.Lock()
	s.wanted.Add(-1)
	defer s.gate.Unlock()
	return do()
}

// lead goes forward through a layout until the daemon has decoded ahead, and returns at once. It
// fails if the end comes first, three times.
func (s *soak) lead(root string) error {
	const layout = "hf"
	buf, want := make([]byte, forwardPiece), make([]byte, forwardPiece)
	first := file{name: layout + "/"}
	for range 3 {
		before, err := decodedAhead(root)
		if err != nil {
			return err
		}
		found, asked := false, time.Now()
		for _, f := range behind(s.files, first) {
			s.forwardIn(root, f, buf, want, func(int64) bool {
				if !found && time.Since(asked) > 20*time.Millisecond {
					now, err := decodedAhead(root)
					found, asked = err == nil && now.Ahead.Bytes > before.Ahead.Bytes, time.Now()
				}
				return found
			})
			if found {
				return nil
			}
		}
	}
	return errNothingAhead
}
