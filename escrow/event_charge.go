package escrow

import (
	"hash/fnv"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Webhooks are told of charges by the worker that adds them to the totals, and not by the calls, so that webhooks cost a call nothing.

// HourOfCharges are the sums of an agent's charges in one hour.
type HourOfCharges struct {
	Agent  string        `cbor:"1,keyasint,omitempty"` // empty: of all agents
	From   time.Time     `cbor:"2,keyasint"`
	Calls  int64         `cbor:"3,keyasint"`
	Paid   ledger.Amount `cbor:"4,keyasint"`
	Earned ledger.Amount `cbor:"5,keyasint"`
	Back   ledger.Amount `cbor:"6,keyasint"`
	Credit ledger.Amount `cbor:"7,keyasint"`
}

// UnusualSpend says that an agent has paid much more in an hour than it used to.
type UnusualSpend struct {
	Agent string        `cbor:"1,keyasint"`
	From  time.Time     `cbor:"2,keyasint"` // when the hour began
	Paid  ledger.Amount `cbor:"3,keyasint"` // since then
	Usual ledger.Amount `cbor:"4,keyasint"` // the most that it paid in an hour of the days before
}

const (
	unusualFactor = 3 // more than so many times the usual
	usualDays     = 7 // the usual is the largest hour of so many days
)

// hearers are the webhooks of agents, read once in an operation.
type hearers map[string][]Webhook

func (t *Tx) hearersOf(known hearers, agent string) ([]Webhook, error) {
	hooks, has := known[agent]
	if has {
		return hooks, nil
	}
	hooks, err := t.webhooks(agent)
	known[agent] = hooks
	return hooks, err
}

// tellCharges tells webhooks of charges that were added to the totals.
func (t *Tx) tellCharges(charges []Charge) error {
	known := hearers{}
	watched := map[string]time.Time{} // the agents whose spending is compared, and the hour
	for _, c := range charges {
		for _, party := range c.usageParties() {
			hooks, err := t.hearersOf(known, party)
			if err != nil {
				return err
			}
			hourly := false
			for _, h := range hooks {
				event := Event{At: c.CreatedAt, Charge: &c}
				switch {
				case c.Suspect && h.Wants(ChargeSuspect):
					event.Type = ChargeSuspect
				case h.Wants(ChargeCreated) && h.samples(c.RequestID):
					event.Type = ChargeCreated
				}
				if event.Type != "" {
					if err := t.enqueue(h, event); err != nil {
						return err
					}
				}
				hourly = hourly || h.Wants(ChargesHourly)
				if h.Wants(SpendUnusual) && c.Payer != "" && (party == c.Payer || party == TheOperator) {
					watched[c.Payer] = viewHour.floor(c.CreatedAt)
				}
			}
			if hourly {
				hour := viewHour.floor(c.CreatedAt)
				at := later(hour.Add(time.Hour), t.Now()).Add(time.Minute) // by then the last charges of the hour are in the totals
				if err := t.fallsDue(party, at.Truncate(time.Minute), dueHour+timeKey(hour)+party); err != nil {
					return err
				}
			}
		}
	}
	for agent, hour := range watched {
		if err := t.watchSpending(agent, hour); err != nil {
			return err
		}
	}
	return nil
}

// samples reports whether the webhook is told of a charge. Which charges it is told of depends on the request's id alone.
func (h Webhook) samples(request string) bool {
	if h.OneIn <= 1 {
		return true
	}
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(request))
	return hash.Sum64()%uint64(h.OneIn) == 0
}

// tellHour tells an agent of the sums of an hour.
func (t *Tx) tellHour(what string) error {
	hour, agent := keyTime(what), what[8:]
	sums, err := t.sumsOf(viewHour, agent, hour, hour.Add(time.Hour))
	if err != nil {
		return err
	}
	sum := sums[hour]
	return t.tell(agent, Event{Type: ChargesHourly, At: t.Now(), Hour: &HourOfCharges{
		Agent: agent, From: hour, Calls: sum.Calls, Paid: sum.Paid, Earned: sum.Earned, Back: sum.Back, Credit: sum.Credit,
	}})
}

// sumsOf adds up the totals of an agent for each period of a view.
func (t *Tx) sumsOf(v usageView, agent string, from, to time.Time) (map[time.Time]Usage, error) {
	sums := map[time.Time]Usage{}
	err := v.eachTotal(t.ledger, agent, "", from, to, func(total usageTotal, u Usage) error {
		sum := sums[total.At.UTC()]
		sum.add(u)
		sums[total.At.UTC()] = sum
		return nil
	})
	return sums, err
}

// usualSpend is the most that an agent pays in an hour as a rule. It is computed once a day.
type usualSpend struct {
	Day   time.Time     `cbor:"1,keyasint"`
	Usual ledger.Amount `cbor:"2,keyasint,omitempty"` // the largest hour of the days before Day
	Told  time.Time     `cbor:"3,keyasint,omitzero"`  // the last hour for which the agent was told
}

// watchSpending compares what an agent has paid in an hour with what it usually pays, and tells the agent and the operator if it is much more. It
// does so once in an hour. An agent that has paid nothing in the days before is not compared.
func (t *Tx) watchSpending(agent string, hour time.Time) error {
	var u usualSpend
	if _, err := load(t.ledger, usualTable.key(agent), &u); err != nil || !hour.After(u.Told) {
		return err
	}
	if today := viewDay.floor(hour); !u.Day.Equal(today) {
		hours, err := t.sumsOf(viewHour, agent, today.AddDate(0, 0, -usualDays), today)
		if err != nil {
			return err
		}
		u.Day, u.Usual = today, 0
		for _, sum := range hours {
			u.Usual = max(u.Usual, sum.Paid)
		}
		if err := t.put(usualTable.key(agent), u); err != nil {
			return err
		}
	}
	if u.Usual <= 0 {
		return nil
	}
	sums, err := t.sumsOf(viewHour, agent, hour, hour.Add(time.Hour))
	now := sums[hour]
	if err != nil || now.Paid/unusualFactor <= u.Usual {
		return err
	}
	u.Told = hour
	if err := t.put(usualTable.key(agent), u); err != nil {
		return err
	}
	return t.tellAll(Event{Type: SpendUnusual, At: t.Now(), Spend: &UnusualSpend{Agent: agent, From: hour, Paid: now.Paid, Usual: u.Usual}}, agent)
}

// LimitSpent says how much of a limit is spent.
type LimitSpent struct {
	Agent   string        `cbor:"1,keyasint"`
	Limit   Limit         `cbor:"2,keyasint"`
	Spent   ledger.Amount `cbor:"3,keyasint"`
	Percent int64         `cbor:"4,keyasint"` // 50, 80, 90 or 100
	Until   time.Time     `cbor:"5,keyasint"` // the end of the limit's window
}

// tellLimit tells an agent and the operator if a limit has just been spent to a part that matters.
func (t *Tx) tellLimit(agent string, l Limit, before ledger.Amount, now spentRecord) error {
	for _, percent := range []int64{100, 90, 80, 50} {
		mark, err := l.Amount.MulDiv(uint64(percent), 100)
		if err != nil {
			return err
		}
		if now.Spent >= mark && before < mark {
			return t.tellAll(Event{Type: LimitReached, At: t.Now(), Limit: &LimitSpent{
				Agent: agent, Limit: l, Spent: now.Spent, Percent: percent, Until: now.Since.Add(l.Window),
			}}, agent)
		}
	}
	return nil
}
