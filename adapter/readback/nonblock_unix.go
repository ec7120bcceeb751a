//go:build unix

package readback

import "golang.org/x/sys/unix"

// Nonblock is an open flag that keeps the opening of a FIFO from waiting for a writer.
const Nonblock = unix.O_NONBLOCK
