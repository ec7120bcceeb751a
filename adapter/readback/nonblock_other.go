//go:build !unix

package readback

// Nonblock is the flag that lets the opening of a FIFO return where there are any.
const Nonblock = 0
