package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs"
)

// A mount in the background is this command run again, in a session of its own.
// Until it is ready it writes its messages to a pipe that the first process copies
// to standard error; then it writes one line to a second pipe, moves its output to
// the log file and is on its own. So nothing it says is lost, and nobody who waits
// for the end of the first process's output waits for the mount.
const (
	readyFD  = 3
	logFD    = 4
	childEnv = "DEQUANTFS_BACKGROUND"
)

// process is where this process stands: in the foreground, or behind a mount.
type process struct{ child bool }

func newProcess() *process {
	p := &process{child: inBackground()}
	os.Unsetenv(childEnv)
	return p
}

// inBackground says whether this process was started to be the one behind a mount.
func inBackground() bool { return os.Getenv(childEnv) != "" }

// ready tells whoever waits that the mount can be read.
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

// startBackground runs this program again with args and returns when it is ready,
// or with its failure.
func startBackground(stderr io.Writer, logFile string, args ...string) error {
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
	child, err := again(args, saidWrite, readyWrite, log)
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
	return waitReady(child, ready)
}

// again starts this program in a session of its own.
func again(args []string, stderr, ready, log *os.File) (*exec.Cmd, error) {
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
	return child, child.Start()
}

// waitReady waits for the line that says ready; without it, for the child's end.
func waitReady(child *exec.Cmd, ready io.Reader) error {
	if line, _ := bufio.NewReader(ready).ReadString('\n'); strings.TrimSpace(line) == "ready" {
		return nil
	}
	err := child.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return quiet{exit.ExitCode()} // it has said why
	}
	if status, ok := childStatus(child); ok && status.Signal() == syscall.SIGKILL {
		allowed, by := fs.AllowedMemory()
		return withHint(fmt.Errorf("the process behind the mount was killed, as it is when memory is short: %s allows %s", by, formatSize(allowed)),
			"raise the limit, or show fewer layouts with --layout")
	}
	return fmt.Errorf("the process behind the mount ended early: %v", err)
}

// childStatus says how a child ended, if it did.
func childStatus(child *exec.Cmd) (status syscall.WaitStatus, ok bool) {
	if child.ProcessState == nil {
		return 0, false
	}
	status, ok = child.ProcessState.Sys().(syscall.WaitStatus)
	return status, ok && status.Signaled()
}

// nonblock keeps opening a named pipe from waiting for its reader.
const nonblock = unix.O_NONBLOCK

// isNobodyThere says whether a named pipe could not be opened since it has no reader.
func isNobodyThere(err error) bool { return errors.Is(err, unix.ENXIO) }

// fuseMissing says why there is no FUSE on this machine; nil if there is.
func fuseMissing() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := exec.LookPath("fusermount3"); err == nil {
		return nil
	}
	_, err = exec.LookPath("fusermount")
	return err
}
