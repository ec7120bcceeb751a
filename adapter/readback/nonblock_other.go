//go:build !unix

package readback

// Nonblock is an open flag that keeps the opening of a FIFO from waiting. This system needs none.
const Nonblock = 0
