package pgtest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// attributes make the server die with the test, however the test ends.
func attributes(who *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGQUIT}
}

// run runs a command on a thread of its own: the kernel sends Pdeathsig when the thread ends that started the command.
func run(c *exec.Cmd, started chan<- error, ended chan<- struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.Start()
	started <- err
	if err == nil {
		_ = c.Wait()
	}
	close(ended)
}
