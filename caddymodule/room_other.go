//go:build !linux && !darwin && !freebsd

package caddymodule

// room returns how many bytes are free for files beside a file, or false if that is not known. On this system it is not known.
func room(string) (free uint64, known bool) { return 0, false }
