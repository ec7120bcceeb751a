package stores

import (
	"os/exec"
	"syscall"
)

// endWithParent lets the kernel kill a process when the thread that started it ends.
func endWithParent(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
