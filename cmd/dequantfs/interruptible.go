package main

import (
	"context"
	"time"
)

// interruptible does work that stops when ctx ends. A file system that does not answer can keep
// work from stopping. After a while such work is abandoned, and ends with the process.
func interruptible(ctx context.Context, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return ctx.Err()
	}
}
