package pgtest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// inMemory returns a folder whose files are in memory, if it has room for the files of many servers, or "". A server makes and removes thousands
// of files, which costs more on a disk than all that it does for the tests. A container may have little memory there.
func inMemory() string {
	const folder, tmpfs, room = "/dev/shm", 0x01021994, 4 << 30
	var is syscall.Statfs_t
	if err := syscall.Statfs(folder, &is); err != nil || is.Type != tmpfs || uint64(is.Bavail)*uint64(is.Bsize) < room {
		return ""
	}
	return folder
}

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
