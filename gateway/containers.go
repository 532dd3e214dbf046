package gateway

import (
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/meter"
)

// Code runs in containers of the provider. A container is charged by sessions, each of which any number of calls may use: the call that begins
// one is charged for it. What was begun is remembered as long as the process runs; after that, a session may be charged twice, and never not
// at all.

// containerSession is how long a session of a container is. https://platform.openai.com/docs/pricing#built-in-tools
var containerSession = escrow.Rate{Every: 20 * time.Minute, Burst: 1}

func (q *asked) container(id string) escrow.Thing {
	return escrow.Thing{Kind: escrow.CodeContainer, Owner: q.payer.Agent, Name: q.route.Payee + "/" + id}
}

// takeOffContainers takes the sessions off a usage that its payer has been charged for.
func (c *counting) takeOffContainers(usage *meter.Usage) {
	if c.call.ByAsked {
		return // it makes the container
	}
	each := meter.Whole(max(1, c.call.ContainerGB))
	for _, id := range usage.Containers {
		if c.gateway.book.Claims().Wait(c.container(id), containerSession) > 0 {
			usage.Units[meter.CodeSession] = max(0, usage.Units[meter.CodeSession]-each)
		}
	}
}

// rememberContainers notes the sessions that the call was charged for.
func (c *counting) rememberContainers() {
	if !c.pay.moves() {
		return
	}
	for _, id := range c.counter.Usage(false).Containers {
		c.gateway.book.Claims().Pass(c.container(id), containerSession)
	}
}
