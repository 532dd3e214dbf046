package wire

import "github.com/tallygate/tallygate/meter"

// turn is what is known of the present answer over a connection. Its client may leave before the usage comes, which would tell what the answer
// has read.
type turn struct {
	begun   bool
	asked   meter.Said // what the client had said when it began
	covered meter.Said // what of that the usage of an earlier answer includes
	earlier int64      // tokens of the conversation, as the last usage has it
}

// open is how many answers over the connection have begun whose usage has not come.
func (t *State) open() int64 {
	n := int64(len(t.Unfinished))
	if n == 0 && t.hasText() {
		n = 1
	}
	return n
}

// begin notes what the client had said when an answer began.
func (n *turn) begin(t *State) {
	if open := t.open() > 0; open != n.begun {
		n.begun, n.asked = open, t.Call.Said
	}
}

// end notes what the usage of an answer includes.
func (n *turn) end(t *State, s Stated) {
	n.earlier = s.Prompt + s.Completion
	if n.covered = t.Call.Said; n.begun {
		n.covered = n.asked
	}
	n.begun = n.begun && t.open() > 0
}

// addOpen adds an estimate of what the answers have read that have begun and whose usage has not come: the conversation so far, and what the
// client has said since. Each of several answers may have read all of it.
func (c *counter) addOpen(u meter.Units) (open int64) {
	t := &c.state
	if open = t.open(); open == 0 || !c.d.Frames {
		return 0
	}
	n := &t.turn
	text, sound := n.earlier+n.asked.Tokens-n.covered.Tokens, n.asked.Sound-n.covered.Sound
	if c.d.Sound != nil {
		said, _ := c.d.Sound(t)
		u.Add(meter.AudioInput, meter.Whole(min(open*(sound/said), MaxTokens)))
	}
	u.Add(meter.Input, meter.Whole(min(open*text, MaxTokens)))
	return open
}

// soundOf is how many tokens so many characters of the answer's sound are.
func (c *counter) soundOf(size int64) int64 {
	if size == 0 || c.d.Sound == nil {
		return 0
	}
	_, answered := c.d.Sound(&c.state)
	return (size*3/4 + answered - 1) / answered
}
