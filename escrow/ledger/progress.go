package ledger

// Progress is told now and then how far long work is: what the work counts in its present step, how many of it are done, and of how many.
// The total is 0 if nobody knows it. A nil Progress is told nothing.
type Progress func(step string, done, total int64)

// StepBytes is the step of work that copies a file. It counts bytes.
const StepBytes = "bytes"

// Tell calls p unless it is nil.
func (p Progress) Tell(step string, done, total int64) {
	if p != nil {
		p(step, done, total)
	}
}
