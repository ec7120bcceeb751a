package source

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

// watch detects modifications of an open file: writes and truncations. It sees changes that a lease
// does not: an overlay or a file server truncates a file without opening it. It does not see stores
// through a mapping.
type watch struct {
	number   uint32 // the kernel's
	users    int
	modified int  // number of known or possible modifications
	ended    bool // by the kernel: later modifications are unknown
}

// watches are the watches of this process. They share one descriptor.
var watches watchList

type watchList struct {
	mu       sync.Mutex
	fd       int // of inotify; open while there are users
	users    int // of all watches
	byNumber map[uint32]*watch
	buf      [4096]byte
}

// watched is one use of a watch.
type watched struct {
	*watch
	before int // modifications before that
}

// watchFile watches an open file from now on.
func watchFile(fd uintptr) (*watched, error) {
	s := &watches
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		var err error
		if s.fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
			return nil, err
		}
		s.byNumber = map[uint32]*watch{}
	}
	number, err := unix.InotifyAddWatch(s.fd, throughProc(int(fd)), unix.IN_MODIFY)
	if err != nil {
		s.rest()
		return nil, err
	}
	s.drain()
	w := s.byNumber[uint32(number)]
	if w == nil { // else the file is open twice
		w = &watch{number: uint32(number)}
		s.byNumber[w.number] = w
	}
	w.users++
	s.users++
	return &watched{w, w.modified}, nil
}

// unmodified reports whether the file was not modified since the use began. The kernel ends the
// watch of a file when its last name is removed. From then on, only processes that have the file
// open can reach it.
func (w *watched) unmodified(removed bool) bool {
	watches.mu.Lock()
	defer watches.mu.Unlock()
	watches.drain()
	return w.modified == w.before && (!w.ended || removed)
}

// release ends the watch when its last user is gone.
func (w *watched) release() {
	s := &watches
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.users--; w.users == 0 && !w.ended {
		_, _ = unix.InotifyRmWatch(s.fd, w.number)
		delete(s.byNumber, w.number)
	}
	s.users--
	s.rest()
}

// rest closes the descriptor when it has no users. The caller holds mu.
func (s *watchList) rest() {
	if s.users == 0 {
		_ = unix.Close(s.fd)
	}
}

// drain reads the pending events. The caller holds mu.
func (s *watchList) drain() {
	for {
		n, err := unix.Read(s.fd, s.buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil && err != unix.EAGAIN {
			s.lose()
		}
		if err != nil || n < unix.SizeofInotifyEvent {
			return
		}
		s.take(s.buf[:n])
	}
}

// take processes events. The caller holds mu.
func (s *watchList) take(events []byte) {
	for len(events) >= unix.SizeofInotifyEvent {
		number, mask := binary.NativeEndian.Uint32(events), binary.NativeEndian.Uint32(events[4:])
		name := binary.NativeEndian.Uint32(events[12:])
		events = events[min(unix.SizeofInotifyEvent+int(name), len(events)):]
		w := s.byNumber[number] // nil: the event is of a watch that has ended
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			s.lose()
		case w != nil && mask&unix.IN_IGNORED != 0:
			w.ended = true
			delete(s.byNumber, number)
		case w != nil:
			w.modified++
		}
	}
}

// lose records that events were lost, so any file may have been modified. The caller holds mu.
func (s *watchList) lose() {
	for _, w := range s.byNumber {
		w.modified++
	}
}
