package gateway

import "time"

// SetStall sets how long a write may wait, by a clock, before the client counts as the one who delays the answer.
func (g *Gateway) SetStall(d time.Duration, now func() time.Time) { g.stall, g.now = d, now }

// SetBodyGrace sets how long a request body may be slow.
func (g *Gateway) SetBodyGrace(d time.Duration) { g.bodyGrace = d }

// SetHangUpGrace sets how long an answer is read, for its usage, after its client has left.
func (g *Gateway) SetHangUpGrace(d time.Duration) { g.hangUpGrace = d }
