package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pidNamespace names the PID namespace of this process, "" if that is not known. The number of a
// process means nothing in another namespace, as that of a container.
func pidNamespace() string {
	name, _ := os.Readlink("/proc/self/ns/pid")
	return name
}

// foreign says whether the process of a record is in another PID namespace.
func (r *record) foreign() bool { return r.Namespace != "" && r.Namespace != pidNamespace() }

// over says whether the process behind a record has ended. Where its number means nothing, it has
// ended if its record is gone or its socket refuses.
func over(path string, r record) bool {
	if !r.foreign() {
		return ended(r.PID)
	}
	if _, err := os.Stat(path + ".json"); errors.Is(err, os.ErrNotExist) {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := ask(ctx, path+".sock")
	return refused(err)
}

// refused says whether no process listens at a socket any more.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// ended says whether a process of this PID namespace has ended, or only waits for its parent to
// ask.
func ended(pid int) bool {
	if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return true
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	_, state, _ := strings.Cut(string(data), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}
