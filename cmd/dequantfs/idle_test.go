package main

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dequantfs/dequantfs/fs"
)

func TestIdleMountIsUnmounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var stats atomic.Pointer[fs.Stats]
		stats.Store(&fs.Stats{})
		var unmounts int
		go watchIdle(ctx, time.Minute, func() fs.Stats { return *stats.Load() },
			func() { unmounts++ })
		after := func(d time.Duration, s fs.Stats, want int, why string) {
			t.Helper()
			stats.Store(&s)
			time.Sleep(d)
			synctest.Wait()
			if unmounts != want {
				t.Errorf("%s: unmounted %d times, want %d", why, unmounts, want)
			}
		}
		after(50*time.Second, fs.Stats{}, 0, "not long enough")
		after(50*time.Second, fs.Stats{Requests: 1}, 0, "a read began the wait anew")
		after(time.Hour, fs.Stats{Requests: 1, OpenFiles: 1}, 0, "a file is open")
		after(time.Hour, fs.Stats{Requests: 1, Active: 1}, 0, "a read is under way")
		after(50*time.Second, fs.Stats{Requests: 1}, 0, "just closed")
		after(30*time.Second, fs.Stats{Requests: 1}, 1, "idle")
		after(80*time.Second, fs.Stats{Requests: 1}, 2, "still in use, tried again")
	})
}
