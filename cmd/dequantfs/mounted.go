package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dequantfs/dequantfs/fs"
)

// mounted is a source that is mounted.
type mounted struct {
	*opened
	place      string // of the source, absolute
	mountpoint string
	made       []string // the folders of the mountpoint that were missing, outermost first
	mount      *fs.Mount
	log        *slog.Logger
}

// mountSource mounts a source, and closes it if that fails. It makes the mountpoint if it is
// missing, and logs that a mountpoint is not empty.
func mountSource(
	s *opened, mountpoint string, o fs.MountOptions, log *slog.Logger,
) (*mounted, error) {
	made, err := makeMountpoint(mountpoint)
	hidden := entryOf(mountpoint)
	var mount *fs.Mount
	if err == nil {
		mount, err = s.fs.Mount(mountpoint, o)
	}
	if err != nil {
		removeFolders(made)
		return nil, errors.Join(err, s.Close())
	}
	if hidden != "" {
		log.Warn(mountpoint + " is not empty: the mount hides what is in it, such as " + hidden)
	}
	return &mounted{
		opened: s, mountpoint: mountpoint, made: made, mount: mount, log: log,
	}, nil
}

// sayUnmapped logs that programs cannot map the shards, if that is so. The kernel gives them only
// an errno.
func (m *mounted) sayUnmapped(log *slog.Logger) {
	if !m.mount.Maps() {
		log.Warn("--direct: this kernel is older than Linux 6.6 and does not let programs map " +
			"the shards: mmap fails with ENODEV (\"No such device\"), as in safetensors' " +
			"default loader; use a loader that calls pread, or mount without --direct")
	}
}

// sayLockedOut logs which other users cannot read which files. The kernel refuses them without a
// reason, so the user who mounts gets the reason.
func (m *mounted) sayLockedOut(log *slog.Logger) {
	for i, line := range m.mount.LockedOut() {
		if i == 0 {
			line += "; --mode 0444 lets all users read everything, --gid GID one group, " +
				"--uid UID one user"
		}
		log.Warn(line)
	}
}

// announce tells status and systemd about the mount. The returned function withdraws that.
func (m *mounted) announce(r record) (end func()) {
	entry, err := register(r, m.fs.Stats)
	if err != nil {
		m.log.Warn("dequantfs status will not show this mount", "err", err)
	}
	state := fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=mounted at %s", r.PID, r.Mountpoint)
	if err := notify(state); err != nil {
		m.log.Warn("cannot tell systemd that the mount is ready", "err", err)
	}
	return func() {
		notify("STOPPING=1")
		if entry != nil {
			entry.Close()
		}
	}
}

// serve serves until the mount is gone. It unmounts when ctx ends, and when the mount was idle for
// too long. After that, open files are served for drain. Then their readers get errors.
func (m *mounted) serve(ctx context.Context, idle, drain time.Duration) error {
	done, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	drained := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(drained)
		m.detach(done, drain)
	})()
	if idle > 0 {
		go watchIdle(done, idle, m.fs.Stats, m.leave)
	}
	go boundServing(m.mount)
	gone := make(chan error, 1)
	go func() { gone <- m.mount.Wait() }()
	var err error
	select {
	case err = <-gone:
	case <-drained:
	}
	return errors.Join(err, m.closeSource())
}

// patience is how long the process waits for reads of its source after the mount is gone.
const patience = 5 * time.Second

// closeSource closes the source, but does not wait forever for a file that does not answer. Then
// nothing is lost: the mount is gone, and the source is only read.
func (m *mounted) closeSource() error {
	closed := make(chan error, 1)
	go func() { closed <- m.opened.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(patience):
		m.log.Warn("a file of the source does not answer: it is not closed")
		return nil
	}
}

// drainTime is less than the minute after which the example services kill a process.
const drainTime = 45 * time.Second

// detach unmounts. A mount that is still in use after a few seconds is detached, and its readers
// are served for the rest of drain. detach returns at the end of drain, or when done ends with the
// mount.
func (m *mounted) detach(done context.Context, drain time.Duration) {
	end, cancel := context.WithTimeout(done, drain)
	defer cancel()
	ctx, cancel := context.WithTimeout(end, patience)
	defer cancel()
	err := m.mount.Shutdown(ctx)
	switch {
	case done.Err() != nil:
		return
	case errors.Is(err, context.DeadlineExceeded):
		m.log.Warn("the mount is in use: it is detached, and open files are served until they are "+
			"closed, but no longer than --drain says; a second signal ends that", "drain", drain)
	case err != nil:
		m.log.Error("cannot unmount", "err", err)
	}
	<-end.Done()
	if done.Err() == nil {
		m.log.Warn("open files are not served any more: their readers get errors")
	}
}

// leave unmounts an idle mount, unless it is still in use.
func (m *mounted) leave() {
	m.log.Info("unmounting: nothing was read for as long as --idle says")
	if err := m.mount.Unmount(false); err != nil {
		m.log.Warn("cannot unmount", "err", err)
	}
}

func (m *mounted) close() error {
	return errors.Join(m.mount.Unmount(true), m.opened.Close())
}
