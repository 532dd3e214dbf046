package gateway

import "time"

// SetStall sets how long a write to a client may wait until the client is taken to stall.
func (g *Gateway) SetStall(d time.Duration) { g.stall = d }

// SetBodyGrace sets how long a request body may come as slowly as it likes.
func (g *Gateway) SetBodyGrace(d time.Duration) { g.bodyGrace = d }

// SetHangUpGrace sets how long an answer is read on for its usage when its client has left.
func (g *Gateway) SetHangUpGrace(d time.Duration) { g.hangUpGrace = d }
