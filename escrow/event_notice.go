package escrow

import (
	"strings"
	"time"
)

// Notices announce something that will happen: that an escrow expires soon, or that a subscription renews soon. They are put into the due table
// only if a webhook wants them.

// noticeTime is how long before the end of a term its notice goes out: a day, for short terms a quarter.
func noticeTime(end time.Time, term time.Duration) time.Time {
	return end.Add(-min(24*time.Hour, term/4))
}

func (t *Tx) announceExpiry(e *Escrow) error {
	if e.AutoReleaseAt.IsZero() || e.Kind.ofSubscription() {
		return nil
	}
	return t.announce(e.From, e.To, noticeTime(e.AutoReleaseAt, e.AutoRelease), dueEscrow+e.ID)
}

func (t *Tx) announceRenewal(s *Subscription) error {
	return t.announce(s.Payer, s.Payee, noticeTime(s.PeriodEnd, s.PeriodEnd.Sub(s.PeriodStart)), dueSubscription+s.ID)
}

func (t *Tx) announce(payer, payee string, at time.Time, what string) error {
	for _, party := range []string{payer, payee} {
		hooks, err := t.webhooks(party)
		if err != nil {
			return err
		}
		if len(hooks) > 0 {
			return t.fallsDue(payer, at, dueNotice+what)
		}
	}
	return nil
}

// notice sends a notice, if the announced thing is still going to happen.
func (t *Tx) notice(what string) error {
	if id, is := strings.CutPrefix(what, dueEscrow); is {
		e, err := t.escrow(id)
		if err != nil || e == nil || !e.dueAt().Equal(e.AutoReleaseAt) {
			return err
		}
		return t.escrowEvent(EscrowExpiring, *e)
	}
	id := strings.TrimPrefix(what, dueSubscription)
	s, err := t.subscription(id)
	if err != nil || s == nil || s.Status != SubActive {
		return err
	}
	if *s = t.withFunding(*s); s.RenewalFunded {
		return t.subscriptionEvent(SubscriptionRenewing, *s)
	}
	if err := t.tellAll(Event{Type: SubscriptionUnfunded, At: t.Now(), Subscription: s}, s.Payer); err != nil {
		return err
	}
	return t.tell(s.Payee, Event{Type: SubscriptionRenewing, At: t.Now(), Subscription: s}) // the payee must not learn whether the payer has enough money
}
