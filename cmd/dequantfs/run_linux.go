package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter/remote"
	dfs "github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// The run command is up to four processes. The first one starts a second one that mounts and
// serves, then COMMAND, and waits for both. The server is in a session of its own, so signals of
// the terminal do not reach it. It unmounts once the pipe from the first process closes, also if
// that process was killed. COMMAND is killed with the first process, because its view is gone.
//
// A user who may not mount gets one more process between. It runs the same command line in a user
// namespace and a mount namespace of its own.
const (
	// serverEnv tells a process that it is the server. It has the number of folders to remove at
	// the end, and the mountpoint.
	serverEnv = "DEQUANTFS_RUN_SERVER"
	// namespaceEnv tells a process that it is in namespaces of its own. It has the trouble that
	// made them necessary, in JSON, or onlyTrial.
	namespaceEnv = "DEQUANTFS_RUN_NAMESPACE"

	serverReadyFD = 3 // the server writes a line to it when the view can be read
	serverAliveFD = 4 // the server reads it; it closes with the first process
)

// taken returns a variable that is only for this process.
func taken(variable string) string {
	value := os.Getenv(variable)
	os.Unsetenv(variable)
	return value
}

func (r *runFlags) run(c *cobra.Command, source string, command []string) error {
	server, namespace := taken(serverEnv), taken(namespaceEnv)
	if namespace == onlyTrial {
		return fuseMissing()
	}
	r.inNamespace = namespace != ""
	request, err := r.mount.check(c)
	if err != nil {
		return err
	}
	if server != "" {
		v, err := parsePlace(server)
		if err != nil {
			return err
		}
		return r.serve(c, request, source, v)
	}
	if err := r.exists(command[0]); err != nil {
		return cannotRun(c, command[0], err)
	}
	if err := r.mount.wait.download(c, source, request.view.opening); err != nil {
		return err
	}
	v, err := makePlace(r.at)
	if err != nil {
		return err
	}
	defer v.remove()
	err = tryMount(v.path, request.to.AllowOther)
	if err == nil {
		return r.around(c, v, command)
	}
	source = remote.Shown(source)
	t, found := troubleOf(err, v.path, source)
	v.remove()
	switch {
	case !found:
		return err
	case r.inNamespace:
		return alsoInNamespace(namespace, refusedInNamespace(err)).error(source)
	case t.Private:
		warnOfRest(c, err, t)
		return r.again(c, t, source)
	}
	return t.error(source)
}

// warnOfRest warns of a trial that could not be unmounted.
func warnOfRest(c *cobra.Command, err error, t trouble) {
	var stays *mounts.StaysError
	if errors.As(err, &stays) {
		logger(c).Warn(t.Says + ": " + strings.Join(t.Ways, "; "))
	}
}

// tryMount mounts at a mountpoint for a moment, to learn whether this process may. What is wrong
// with the mountpoint itself is found later.
func tryMount(mountpoint string, allowOther bool) error {
	if _, found, _ := mounts.Top(mountpoint); found {
		return nil
	}
	return dfs.TryMount(mountpoint, allowOther)
}

// exists looks for a program before anything is mounted.
func (r *runFlags) exists(program string) error {
	if r.replace != "" && strings.Contains(program, r.replace) {
		return nil // in the view
	}
	_, err := exec.LookPath(program)
	return err
}

// runPlace is the mountpoint of a run.
type runPlace struct {
	path string
	made []string // the folders to remove at the end, outermost first
}

// makePlace makes the mountpoint, in a folder for temporary files if it has no name.
func makePlace(name string) (runPlace, error) {
	if name == "" {
		dir, err := temporaryFolder("dequantfs-run-")
		if err != nil {
			return runPlace{}, withHint(err, "name a folder: --at /mnt")
		}
		return runPlace{dir, []string{dir}}, nil
	}
	path, err := realMountpoint(name)
	if err != nil {
		return runPlace{}, err
	}
	made, err := makeMountpoint(path)
	if err != nil {
		removeFolders(made)
	}
	return runPlace{path, made}, err
}

func (p runPlace) remove() { removeFolders(p.made) }

// String is read by parsePlace.
func (p runPlace) String() string { return strconv.Itoa(len(p.made)) + ":" + p.path }

func parsePlace(text string) (p runPlace, err error) {
	n, path, _ := strings.Cut(text, ":")
	made, err := strconv.Atoi(n)
	p.path = path
	for ; made > 0; made-- {
		p.made = append(p.made, path)
		path = filepath.Dir(path)
	}
	slices.Reverse(p.made)
	return p, err
}

// around runs the command while the view is mounted.
func (r *runFlags) around(c *cobra.Command, v runPlace, command []string) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn()...)
	defer signal.Stop(signals)
	s, err := startServer(c.Context(), v)
	if err != nil {
		return err
	}
	status, err := r.command(command, v.path, signals)
	if s.end(); s.process.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		logger(c).Warn("the process behind the view was killed, and so the view was lost")
		clearDead(v.path)
	}
	if err != nil {
		return cannotRun(c, command[0], err)
	}
	return asStatus(status)
}

// command runs the command and returns its exit status.
func (r *runFlags) command(args []string, view string, signals <-chan os.Signal) (int, error) {
	args = r.commandAt(args, view)
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	child := &exec.Cmd{
		Path: path, Args: args, Env: environmentAt(view), SysProcAttr: &syscall.SysProcAttr{},
	}
	return runChild(child, signals, r.dropRights)
}

// asStatus returns a status that was reported by the command itself.
func asStatus(status int) error {
	if status == 0 {
		return nil
	}
	return quiet{status}
}

// The statuses of shells for a program that cannot be run.
const (
	notExecutable = 126
	notFound      = 127
)

// cannotRun reports that the command could not be started.
func cannotRun(c *cobra.Command, name string, err error) error {
	status := notExecutable
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		status = notFound
	}
	var reason *exec.Error
	if errors.As(err, &reason) {
		err = reason.Err
	}
	report(c.ErrOrStderr(), fmt.Errorf("%s: %w", name, pathless(err)))
	return quiet{status}
}

// pathless drops the path from an error that is shown after it.
func pathless(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// server is the process behind the view of a run.
type server struct {
	process *exec.Cmd
	alive   *os.File
	gone    chan struct{}
}

// startServer starts this program again as the server, and returns when the view can be read.
func startServer(ctx context.Context, v runPlace) (*server, error) {
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	defer readyWrite.Close()
	aliveRead, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer aliveRead.Close()
	child, err := itself()
	if err != nil {
		return nil, errors.Join(err, alive.Close())
	}
	child.Env = append(os.Environ(), serverEnv+"="+v.String())
	child.Stdout, child.Stderr = os.Stderr, os.Stderr
	child.ExtraFiles = []*os.File{readyWrite, aliveRead}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return nil, errors.Join(err, alive.Close())
	}
	readyWrite.Close()
	s := &server{process: child, alive: alive, gone: make(chan struct{})}
	go func() {
		_ = child.Wait()
		close(s.gone)
	}()
	stop := context.AfterFunc(ctx, func() { alive.Close() })
	defer stop()
	line, _ := bufio.NewReader(ready).ReadString('\n')
	if line != "" && ctx.Err() == nil {
		return s, nil
	}
	s.end()
	return nil, cmp.Or(ctx.Err(), s.failure())
}

// itself is this command line, to be run again.
func itself() (*exec.Cmd, error) {
	self, err := os.Executable()
	return &exec.Cmd{Path: self, Args: os.Args}, err
}

// failure returns the reason why the server did not become ready.
func (s *server) failure() error {
	if status := s.process.ProcessState.ExitCode(); status > 0 {
		return quiet{status} // it has printed its error
	}
	if signaled, ok := childStatus(s.process); ok && signaled.Signal() == syscall.SIGKILL {
		return killedServer()
	}
	return fmt.Errorf("the process behind the view ended early: %v", s.process.ProcessState)
}

// end lets the server unmount, and waits for it. A server that a source keeps from ending is
// killed.
func (s *server) end() {
	s.alive.Close()
	select {
	case <-s.gone:
	case <-time.After(2 * patience):
		_ = s.process.Process.Kill()
		<-s.gone
	}
}

// clearDead unmounts what a killed server has left behind.
func clearDead(mountpoint string) {
	if m, found, err := mounts.Top(mountpoint); err == nil && found && m.Type == mounts.Type {
		_ = mounts.Unmount(context.Background(), mountpoint, true) // the folder stays, too
	}
}

// serve mounts and serves the view of a run until the first process is gone.
func (r *runFlags) serve(
	c *cobra.Command, request *mountRequest, source string, v runPlace,
) error {
	defer v.remove()
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	c.SetContext(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(serverAliveFD, "alive"))
		cancel()
	}()
	m := &r.mount
	late, end, err := m.handler(c, &process{})
	if err != nil {
		return err
	}
	defer end()
	mounted, _, withdraw, err := m.present(c, &process{}, request, slog.New(late), source, v.path)
	if err != nil {
		return err
	}
	defer withdraw()
	mounted.sayLockedOut(slog.New(late))
	if !m.log.verbose && m.log.file == "" {
		w, flush := unhurried(c.ErrOrStderr())
		defer flush()
		late.become(newPeopleHandler(w, slog.LevelWarn)) // the terminal is the command's now
	}
	pipe := os.NewFile(serverReadyFD, "ready")
	if _, err := io.WriteString(pipe, "ready\n"); err != nil {
		return errors.Join(err, mounted.close())
	}
	pipe.Close()
	return mounted.serveDuring(ctx)
}

// serveDuring serves until ctx ends, and then unmounts. A process that the command has left behind
// gets errors.
func (m *mounted) serveDuring(ctx context.Context) error {
	go boundServing(m.mount)
	gone := make(chan error, 1)
	go func() { gone <- m.mount.Wait() }()
	select {
	case <-gone:
	case <-ctx.Done():
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), noticed)
		defer cancel()
		if err := m.mount.Shutdown(end); errors.Is(err, context.DeadlineExceeded) {
			m.log.Warn("the command has ended, but a process uses its view: it gets errors")
		} else if err != nil {
			m.log.Error("cannot unmount", "err", err)
		}
	}
	return m.closeSource()
}

// passedOn are the signals that the command gets when the first process does.
func passedOn() []os.Signal {
	all := []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// runChild runs a command to its end, passes signals on, and returns its exit status as a shell
// does. The command is killed if this process is. before runs on the thread that starts it.
func runChild(
	child *exec.Cmd, signals <-chan os.Signal, before func() error,
) (status int, err error) {
	done := make(chan struct{})
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error, 1)
	go func() {
		defer close(done)
		runtime.LockOSThread() // the kernel watches the thread that started the command
		err := before()
		if err == nil {
			err = child.Start()
		}
		started <- err
		_ = child.Wait() // an error if it was not started
	}()
	if err := <-started; err != nil {
		return 0, err
	}
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s) {
				_ = child.Process.Signal(s) // an error if it has ended
			}
		case <-done:
			if s, ok := childStatus(child); ok {
				return 128 + int(s.Signal()), nil
			}
			return child.ProcessState.ExitCode(), nil
		}
	}
}

// fromTerminal reports whether the command has got a signal already. The terminal sends those of
// its keys to all processes of the foreground.
func fromTerminal(s os.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT {
		return false
	}
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
