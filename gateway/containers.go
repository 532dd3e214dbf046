package gateway

import (
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/meter"
)

// Code runs in containers of the provider. A container is charged by sessions, or by the minute, and any number of calls may use it: the call
// that begins a session, or uses minutes that are not paid yet, is charged for them. Until when a container is paid, and its memory, is
// noted as the call is charged, and remembered as long as the process runs. After that, and for calls at the same moment, a session or some
// minutes may be charged twice, and never not at all.

// How long a session of a container is, and for how many minutes a container is charged at the least. A container that nobody has used for as
// long as a session is gone. https://platform.openai.com/docs/pricing#built-in-tools, https://developers.openai.com/api/docs/changelog (June 2,
// 2026)
const (
	containerSession = 20 * time.Minute
	containerLeast   = meter.ContainerLeast * time.Minute
)

func (q *asked) container(id string) escrow.Thing {
	return escrow.Thing{Kind: escrow.CodeContainer, Owner: q.payer.Agent, Name: q.route.Payee + "/" + id}
}

// use returns until when a container is paid after it was used now, and what is to be paid for that: sessions and minutes, each for every
// gigabyte of it.
func (q *asked) use(before escrow.Paid, now time.Time) (after escrow.Paid, sessions, minutes int64) {
	after = before
	after.Size = max(1, before.Size, q.call.ContainerGB)
	if !now.Before(before.Session) {
		after.Session, sessions = now.Add(containerSession), after.Size
	}
	switch idle := now.Sub(before.Minutes); {
	case before.Minutes.IsZero() || idle >= containerSession: // another container, as far as can be told
		after.Minutes, minutes = now.Add(containerLeast), meter.ContainerLeast
	case idle >= 0: // it has run since
		minutes = int64(idle/time.Minute) + 1
		after.Minutes = before.Minutes.Add(time.Duration(minutes) * time.Minute)
	}
	return after, sessions, minutes * after.Size
}

// chargeContainers counts in a usage what the call must pay for the containers that it used, and returns until when they are paid then. Before,
// the usage has one session for each.
func (c *counting) chargeContainers(usage *meter.Usage) (paid map[escrow.Thing]escrow.Paid) {
	each, now := max(1, c.call.ContainerGB), c.gateway.book.Now()
	for _, id := range usage.Containers {
		of := c.container(id)
		after, sessions, minutes := c.use(c.gateway.book.Claims().Paid(of), now)
		if c.pay.moves() {
			if paid == nil {
				paid = make(map[escrow.Thing]escrow.Paid)
			}
			paid[of] = after
		}
		if c.call.ByAsked { // it makes the container, and is charged for that by what was asked
			continue
		}
		usage.Units[meter.CodeSession] = max(0, usage.Units[meter.CodeSession]-meter.Whole(each)) + meter.Whole(sessions)
		if c.rates.Uses(meter.ContainerMinute) {
			usage.Units.Add(meter.ContainerMinute, meter.Whole(minutes))
		}
	}
	return paid
}
