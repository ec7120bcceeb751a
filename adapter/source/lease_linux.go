package source

import (
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lease is a read lease on an open file. While it holds, no process has the file open or mapped for
// writing, and none has had since the lease was taken. The kernel grants it to the owner of the
// file and to root, unless a process has the file open for writing.
//
// A process that opens the file for writing waits until the lease is given up. That happens as soon
// as the kernel asks for it. From then on, changes of the bytes may go unseen.
type lease struct {
	fd   uintptr
	lost atomic.Bool
}

// leases are the leases of this process. The kernel asks for them by SIGIO.
var leases leaseList

type leaseList struct {
	mu   sync.Mutex // held while descriptors of the list are used, so that they stay open
	held map[*lease]struct{}
	stop func() // ends the goroutine that waits for the signal; nil if there is none
}

// leaseTries is how often takeLease tries a file that is open for writing. A newly forked child
// holds the descriptors of its parent for a moment.
const leaseTries = 5

// takeLease takes a lease on an open file.
func takeLease(fd uintptr) (*lease, error) {
	if _, err := unix.FcntlInt(fd, unix.F_SETOWN, os.Getpid()); err != nil {
		return nil, err
	}
	l := &lease{fd: fd}
	for try := 1; ; try++ {
		err := leases.take(l)
		if err == nil {
			return l, nil
		}
		if err != unix.EAGAIN || try == leaseTries {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
}

// take asks the kernel for a lease. It holds mu, so that giveUp finds the lease in the list even if
// the kernel asks for it at once.
func (s *leaseList) take(l *lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listen()
	if _, err := unix.FcntlInt(l.fd, unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		s.rest()
		return err
	}
	s.held[l] = struct{}{}
	return nil
}

// holds reports whether the lease still holds.
func (l *lease) holds() bool {
	if l.lost.Load() {
		return false
	}
	kind, err := unix.FcntlInt(l.fd, unix.F_GETLEASE, 0)
	return err == nil && kind == unix.F_RDLCK && !l.lost.Load()
}

// giveUp ends the lease.
func (l *lease) giveUp() {
	l.lost.Store(true)
	_, _ = unix.FcntlInt(l.fd, unix.F_SETLEASE, unix.F_UNLCK) // it may be gone already
}

// release ends the lease before its file is closed.
func (l *lease) release() {
	leases.mu.Lock()
	defer leases.mu.Unlock()
	l.giveUp()
	delete(leases.held, l)
	leases.rest()
}

// listen begins to wait for the signal. The caller holds mu.
func (s *leaseList) listen() {
	if s.stop != nil {
		return
	}
	s.held = map[*lease]struct{}{}
	asked, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(asked, unix.SIGIO)
	s.stop = func() {
		signal.Stop(asked)
		close(done)
	}
	go func() {
		for {
			select {
			case <-asked:
				s.giveUp()
			case <-done:
				return
			}
		}
	}()
}

// giveUp ends the leases that the kernel asks for. One signal may be for several leases.
func (s *leaseList) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.held {
		if !l.holds() {
			l.giveUp()
			delete(s.held, l)
		}
	}
	s.rest()
}

// rest stops waiting for the signal when no lease is held. The caller holds mu.
func (s *leaseList) rest() {
	if s.stop != nil && len(s.held) == 0 {
		s.stop()
		s.stop = nil
	}
}
