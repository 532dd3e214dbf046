//go:build unix && !linux

package pgtest

import (
	"os/exec"
	"syscall"
)

func inMemory() string { return "" }

func attributes(who *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: who}
}

func run(c *exec.Cmd, started chan<- error, ended chan<- struct{}) {
	err := c.Start()
	started <- err
	if err == nil {
		_ = c.Wait()
	}
	close(ended)
}
