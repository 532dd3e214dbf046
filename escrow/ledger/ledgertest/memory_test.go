package ledgertest

import "testing"

func TestMemory(t *testing.T) { Run(t, Memories) }
