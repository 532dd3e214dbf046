//go:build linux || darwin || freebsd

package caddymodule

import "golang.org/x/sys/unix"

// room returns how many bytes are free for files beside a file, or false if that is not known.
func room(file string) (free uint64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(file, &s); err != nil {
		return 0, false
	}
	return uint64(s.Bavail) * uint64(s.Bsize), true
}
