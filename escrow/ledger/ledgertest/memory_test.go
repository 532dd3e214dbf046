package ledgertest

import "testing"

// TestMemory runs the suite on stores that run operations once, and on those that run them again.
func TestMemory(t *testing.T) {
	Run(t, Memories)
	t.Run("twice", func(t *testing.T) { Run(t, func(t testing.TB) Place { return Memories(t).Twice() }) })
	t.Run("again", func(t *testing.T) { Run(t, func(t testing.TB) Place { return Memories(t).Again() }) })
	t.Run("contended", func(t *testing.T) {
		Run(t, func(testing.TB) Place { return placeIn(&Memory{Contended: true}) })
	})
}
