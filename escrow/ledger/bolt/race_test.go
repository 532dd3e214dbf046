//go:build race

package bolt

// racing is true with the race detector, which makes single-threaded work slow and finds nothing in it.
const racing = true
