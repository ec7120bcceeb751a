package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// foreignRecord is a record of another PID namespace with the number of this process, which is
// unrelated.
func foreignRecord(t *testing.T, pid int) (path string, r record) {
	t.Helper()
	r = record{Mountpoint: "/mnt/v3", PID: pid, Started: time.Now(), Namespace: "pid:[1]"}
	path = filepath.Join(t.TempDir(), r.name())
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".json", data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, r
}

func TestTheNumberOfAForeignProcessSaysNothing(t *testing.T) {
	for name, pid := range map[string]int{"a number that lives here": os.Getpid(),
		"one that does not": 1<<22 + 7} {
		t.Run(name, func(t *testing.T) {
			path, r := foreignRecord(t, pid)
			l, err := listenUnix(path + ".sock")
			if err != nil {
				t.Fatal(err)
			}
			answerNothing(l)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			m, err := stateOf(ctx, path)
			if err != nil || m.State != stateSilent || over(path, r) {
				t.Errorf("its socket is open: %s, %v", m.State, err)
			}
			if want := fmt.Sprintf("%d in another PID namespace", pid); m.process() != want {
				t.Errorf("it is named %s, want %s", m.process(), want)
			}
			if err := l.Close(); err != nil { // the socket's file stays, as after a kill
				t.Fatal(err)
			}
			m, err = stateOf(t.Context(), path)
			if err != nil || m.State != stateDead || !over(path, r) {
				t.Errorf("its socket is closed: %s, %v", m.State, err)
			}
			forget(path)
			if !over(path, r) {
				t.Error("its record is gone, but it is not over")
			}
		})
	}
}

// answerNothing accepts connections and does not answer.
func answerNothing(l net.Listener) {
	go func() {
		var taken []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range taken {
					c.Close()
				}
				return
			}
			taken = append(taken, c)
		}
	}()
}

// inNamespace mounts in a new PID namespace, in which the process behind the mount is process 1.
func (s *session) inNamespace() *exec.Cmd {
	s.t.Helper()
	c := s.as(exec.Command("unshare", "--pid", "--fork", "--kill-child", s.program, "mount", "-f",
		"--layout", "hf", s.source, s.mnt))
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		clearMounts(s.dir)
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	s.readable()
	eventually(s.t.Fatalf, func() error {
		if len(recordsOf(filepath.Join(s.dir, "run", "dequantfs"), s.mnt)) == 0 {
			return fmt.Errorf("no record of the mount")
		}
		return nil
	})
	return c
}

func TestAMountOfAnotherPIDNamespace(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	s := newSession(t)
	c := s.inNamespace()
	m := s.status()
	if m.State != stateAlive || m.PID != 1 || !m.foreign() {
		t.Errorf("state %s, process %s", m.State, m.process())
	}
	s.run("umount", s.mnt)
	if left := recordsOf(filepath.Join(s.dir, "run", "dequantfs"), s.mnt); len(left) > 0 {
		t.Errorf("umount did not wait for its process: %v", left)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("its process: %v", err)
	}
}

// TestADeadMountOfAnotherPIDNamespace kills the process behind a mount. Its number is 1, and
// process 1 of this namespace lives.
func TestADeadMountOfAnotherPIDNamespace(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	s := newSession(t)
	c := s.inNamespace()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	eventually(t.Fatalf, func() error {
		if out := s.run("status"); !strings.Contains(out,
			"its process (1 in another PID namespace) is gone") {
			return fmt.Errorf("status says %s", out)
		}
		return nil
	})
	s.run("umount", s.mnt)
	if out := s.run("status"); strings.Contains(out, s.mnt) {
		t.Errorf("after umount, status says %s", out)
	}
}
