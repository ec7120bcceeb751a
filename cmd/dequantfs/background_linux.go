package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs"
)

// A mount in the background is this command run again in a new session. Until it is ready it writes
// its messages to a pipe, and the first process copies them to standard error. When it is ready it
// writes one line to a second pipe, and from then on logs to the log file.
//
// So no message is lost. A program that waits for the end of the first process's output does not
// wait for the mount.
const (
	readyFD  = 3
	logFD    = 4
	childEnv = "DEQUANTFS_BACKGROUND"
)

// process is this process's role: in the foreground, or the child behind a mount.
type process struct{ child bool }

func newProcess() *process {
	p := &process{child: inBackground()}
	os.Unsetenv(childEnv)
	return p
}

// inBackground reports whether this process was started as the child behind a mount.
func inBackground() bool { return os.Getenv(childEnv) != "" }

// ready tells the first process that the mount can be read.
func (p *process) ready() error {
	if !p.child {
		return nil
	}
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(logFD, fd, 0); err != nil {
			return err
		}
	}
	unix.Close(logFD)
	if err := os.Chdir("/"); err != nil {
		return err
	}
	pipe := os.NewFile(readyFD, "ready")
	defer pipe.Close()
	_, err := io.WriteString(pipe, "ready\n")
	return err
}

// startBackground runs this program again with args. It returns when the child is ready or has
// failed. If ctx ends first, it also ends the child.
func startBackground(
	ctx context.Context, stdin *os.File, stderr io.Writer, logFile string, args ...string,
) error {
	log, err := openLog(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	defer readyWrite.Close()
	said, saidWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	defer saidWrite.Close()
	child, err := again(args, stdin, saidWrite, readyWrite, log)
	if err != nil {
		return err
	}
	readyWrite.Close()
	saidWrite.Close()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(stderr, said)
	}()
	defer func() { <-copied }()
	defer context.AfterFunc(ctx, func() { endChild(child.Process) })()
	if err := waitReady(child, ready); err != nil || ctx.Err() == nil {
		return cmp.Or(ctx.Err(), err)
	}
	_ = child.Wait() // it has unmounted, or was killed
	return ctx.Err()
}

// endChild ends a mount process that is not ready, as a signal to it would. A source that does not
// answer can keep the process from ending. Then the process is killed.
func endChild(p *os.Process) {
	_ = p.Signal(syscall.SIGTERM) // an error if it has ended
	time.Sleep(patience)
	_ = p.Kill()
}

// again starts this program in a new session.
func again(args []string, stdin, stderr, ready, log *os.File) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := &exec.Cmd{
		Path:        self,
		Args:        append([]string{os.Args[0]}, args...),
		Env:         append(os.Environ(), childEnv+"=1"),
		Stdout:      stderr,
		Stderr:      stderr,
		ExtraFiles:  []*os.File{ready, log},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if stdin != nil {
		child.Stdin = stdin
	}
	return child, child.Start()
}

// waitReady waits for the line that says ready, or for the end of the child.
func waitReady(child *exec.Cmd, ready io.Reader) error {
	if line, _ := bufio.NewReader(ready).ReadString('\n'); strings.TrimSpace(line) == "ready" {
		return nil
	}
	err := child.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return quiet{exit.ExitCode()} // it has printed its error
	}
	if status, ok := childStatus(child); ok && status.Signal() == syscall.SIGKILL {
		return killedServer()
	}
	return fmt.Errorf("the process behind the mount ended early: %v", err)
}

// killedServer is the error of a mount whose process was killed.
func killedServer() error {
	allowed, by := fs.AllowedMemory()
	err := fmt.Errorf("the process behind the mount was killed, as the kernel does when "+
		"memory is short: %s allows %s", by, formatSize(allowed))
	return withHint(err, "raise the limit, or show fewer layouts with --layout")
}

// childStatus describes how a child ended, if it has.
func childStatus(child *exec.Cmd) (status syscall.WaitStatus, ok bool) {
	if child.ProcessState == nil {
		return 0, false
	}
	status, ok = child.ProcessState.Sys().(syscall.WaitStatus)
	return status, ok && status.Signaled()
}

// nonblock opens a named pipe without waiting for its reader.
const nonblock = unix.O_NONBLOCK

// isWithoutReader reports whether a named pipe could not be opened because it has no reader.
func isWithoutReader(err error) bool { return errors.Is(err, unix.ENXIO) }
