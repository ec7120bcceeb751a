//go:build unix

package readback

import "golang.org/x/sys/unix"

// Nonblock is the flag that lets the opening of a FIFO return although nobody writes into it.
const Nonblock = unix.O_NONBLOCK
