//go:build race

package rounds

// race says that the race detector is on.
const race = true
