package source

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// proof is evidence about a file besides its size and times. Size and times show that something
// happened to the file, but not what. Some changes they do not show.
type proof struct {
	system  filesystem
	lease   *lease   // nil: there is none
	refused error    // why there is none
	watch   *watched // nil: there is none
}

// begin collects the proof of a newly opened file and returns its identity.
func (f *localFile) begin() (identity, error) {
	p := &f.proof
	var err error
	if p.system, err = systemOf(f.fd); err != nil {
		return identity{}, err
	}
	if p.system.leases {
		p.lease, p.refused = takeLease(f.fd)
	}
	if p.lease == nil {
		return f.protect()
	}
	p.watch, _ = watchFile(f.fd) // without it no change of times is known to be harmless
	return f.settle()
}

// exposed reports whether the file was opened for writing, since its lease no longer holds. A
// writer can change bytes without changing size and times.
func (p *proof) exposed() bool { return p.lease != nil && !p.lease.holds() }

// harmless reports whether the bytes were unchanged at the identity now, although its time of
// change differs.
func (p *proof) harmless(now identity) bool {
	return p.lease != nil && p.watch != nil && p.watch.unmodified(now.links == 0) && p.lease.holds()
}

// unseen names the changes that reads would not notice, the reason, and the fix. It is empty if
// there are none.
func (p *proof) unseen() string {
	var what string
	switch s := p.system; {
	case s.fixed || p.lease != nil:
		return ""
	case s.memory:
		what = "stores through a mapping, nor holes while they are punched"
	case s.swaps:
		what = Exchanged
	case s.told:
		what = "changes that leave size and times as they are"
	default:
		return ""
	}
	why, remedy := p.unproven()
	return fmt.Sprintf("on %s%s: reads do not notice %s; %s", p.system.name, why, what, remedy)
}

// unproven says why there is no lease, and how to get one.
func (p *proof) unproven() (why, remedy string) {
	switch p.refused {
	case unix.EACCES:
		return ", owned by another user", "mount as the owner or as root (with CAP_LEASE)"
	case unix.EAGAIN:
		return ", open for writing", "end the program that has it open, and mount again"
	}
	return "", "copy the source to a disk of this machine to be sure"
}

// end releases the proof before the file is closed.
func (p *proof) end() {
	if p.lease != nil {
		p.lease.release()
	}
	if p.watch != nil {
		p.watch.release()
	}
}
