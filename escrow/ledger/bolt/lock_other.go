//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package bolt

import (
	"os"
	"time"
)

// lock does nothing: bbolt locks the file, and on this system a lock can't be taken twice.
func lock(*os.File, bool, time.Duration) error { return nil }

// syncDirectory does nothing: on this system directories can't be synced.
func syncDirectory(string) error { return nil }

// mapAhead is false, because on Windows the file would grow to the mapped size.
const mapAhead = false
