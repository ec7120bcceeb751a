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

// pidNamespace returns the PID namespace of this process, or "" if it is unknown. The number of a
// process has no meaning in another namespace, such as that of a container.
func pidNamespace() string {
	name, _ := os.Readlink("/proc/self/ns/pid")
	return name
}

// foreign reports whether the process of a record is in another PID namespace.
func (r *record) foreign() bool { return r.Namespace != "" && r.Namespace != pidNamespace() }

// over reports whether the process behind a record has ended. A process of another namespace has
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

// refused reports whether no process listens at a socket any more.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// ended reports whether a process of this PID namespace has ended. A zombie has ended.
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
