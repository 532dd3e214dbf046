package escrow

import (
	"fmt"
	"strconv"
	"time"
)

// Pace is how many calls may be made in a minute, and how many tokens they may use. 0 is no limit.
type Pace struct {
	Requests int64 `cbor:"1,keyasint,omitempty"`
	Tokens   int64 `cbor:"2,keyasint,omitempty"`
}

const maxPace = 1_000_000_000

func (p Pace) check() error {
	for field, n := range map[string]int64{"requests_per_minute": p.Requests, "tokens_per_minute": p.Tokens} {
		if n < 0 || n > maxPace {
			return invalid("rate", "rate: %s is from 1 to %d, or 0 for no limit", field, maxPace)
		}
	}
	return nil
}

// rates returns the rates of a pace. owner says whose it is, and name tells it from others of the agent.
func (p Pace) rates(name, owner string) (rates []CallRate) {
	if p.Requests > 0 {
		rates = append(rates, CallRate{Name: name, Owner: owner, N: p.Requests, Per: time.Minute})
	}
	if p.Tokens > 0 {
		rates = append(rates, CallRate{Name: name, Owner: owner, N: p.Tokens, Per: time.Minute, Tokens: true})
	}
	return rates
}

// CallRate is how many calls each agent may make in a period, or how many tokens its calls may use. The N of a period may be used at once; what
// was used comes back evenly over the period.
type CallRate struct {
	Name   string // tells it from other rates
	Owner  string // what has this rate, as refusals name it: "key", "agent", "route", "plan", "model"
	N      int64
	Per    time.Duration
	Tokens bool
}

func (r CallRate) thing(agent string) Thing {
	return Thing{Kind: PacedCall, Owner: agent, Name: r.unit() + "\x00" + r.Owner + "\x00" + r.Name}
}

func (r CallRate) rate() Rate { return Rate{Every: r.Per, N: int(r.N), Burst: int(r.N)} }

func (r CallRate) unit() string {
	if r.Tokens {
		return "tokens"
	}
	return "requests"
}

// exceeded is the refusal of a call that comes too early.
func (r CallRate) exceeded(wait time.Duration) error {
	seconds := strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)
	return refuse(RateLimited, map[string]string{
		"retry_after": seconds, "rate": fmt.Sprintf("%d %s per %s", r.N, r.unit(), Period(r.Per)), "rate_of": r.Owner,
	}, "more than %d %s per %s: that is the rate of this %s; try again in %s s", r.N, r.unit(), Period(r.Per), r.Owner, seconds)
}

// Paced is a call that was counted against rates. The zero value was counted against none.
type Paced struct {
	claims Claims
	agent  string
	tokens []CallRate
}

// Pace counts a call against the rates of its key and its agent, and against others. A call is refused with rate_limited if a rate is used up,
// and then counts against none. How many tokens a call uses is known only at its end: Pace refuses a call if the tokens of earlier calls have
// used up the rate. Rates are counted in this process, and forgotten when it ends.
func (b *Book) Pace(by Actor, others []CallRate) (Paced, error) {
	all := append(by.Pace.rates(by.Key, "key"), by.Agents.rates("", "agent")...)
	all = append(all, others...)
	if len(all) == 0 {
		return Paced{}, nil
	}
	p := Paced{claims: b.process.claims, agent: by.Agent}
	pacing := b.process.pacing.of(by.Agent)
	pacing.Lock() // otherwise another call could come between, and this one would count against a rate although a later one refuses it
	defer pacing.Unlock()
	for _, r := range all {
		if wait := p.claims.Wait(r.thing(by.Agent), r.rate()); wait > 0 {
			return Paced{}, r.exceeded(wait)
		}
	}
	for _, r := range all {
		if r.Tokens {
			p.tokens = append(p.tokens, r)
		} else if wait := p.claims.Pass(r.thing(by.Agent), r.rate()); wait > 0 { // the rate was changed meanwhile
			return Paced{}, r.exceeded(wait)
		}
	}
	return p, nil
}

// CountsTokens reports whether Used counts anything.
func (p Paced) CountsTokens() bool { return len(p.tokens) > 0 }

// Used counts the tokens that the call has used.
func (p Paced) Used(tokens int64) {
	for _, r := range p.tokens {
		p.claims.Count(r.thing(p.agent), r.rate(), tokens)
	}
}

// And returns a call that was counted against the rates of both.
func (p Paced) And(q Paced) Paced {
	if p.claims == nil {
		return q
	}
	p.tokens = append(p.tokens[:len(p.tokens):len(p.tokens)], q.tokens...)
	return p
}
