//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package bolt

import (
	"os"
	"time"
)

// lock leaves it to bbolt, whose lock can't be taken twice here.
func lock(*os.File, bool, time.Duration) error { return nil }

// syncDirectory does nothing where directories can't be synced.
func syncDirectory(string) error { return nil }

// mapAhead is false since on Windows the file would grow to what is mapped.
const mapAhead = false
