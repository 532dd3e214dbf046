package gateway

import "time"

// SetStall sets how long a write to a client may wait until the client is taken to stall.
func (g *Gateway) SetStall(d time.Duration) { g.stall = d }
