//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// starveOfDescriptors lets the daemon open nothing more for a while; reads go on.
func (s *soak) starveOfDescriptors(context.Context) error {
	pid := s.daemon.Process.Pid
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		return err
	}
	var was unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		return err
	}
	few := unix.Rlimit{Cur: uint64(len(open)), Max: was.Max}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		return err
	}
	time.Sleep(time.Second)
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil)
}

// metricsAddress finds where the daemon serves its metrics in what it has logged.
var metricsAddress = regexp.MustCompile(`metrics"?[ =:]+"?(127\.0\.0\.1:\d+)`)

// crowd connects to the metrics far more often than is allowed, and says nothing; reads go on.
func (s *soak) crowd(context.Context) error {
	all := metricsAddress.FindAllSubmatch(s.said(), -1)
	if len(all) == 0 {
		return errors.New("the daemon does not say where its metrics are")
	}
	address := string(all[len(all)-1][1])
	for range 300 {
		c, err := net.DialTimeout("tcp", address, s.limit)
		if err != nil {
			return err
		}
		defer c.Close()
	}
	time.Sleep(time.Second)
	return nil
}
