package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/meter/probe"
)

// Quality makes the payment depend on a score of the answer. The score decides which share of the price is paid; the rest goes back to the
// payer.
type Quality struct {
	// From says where the score comes from. "header" and "json" read it from the provider's answer. "http" asks a judge. "payer" waits
	// some time for the score of the agent that paid.
	From string `json:"from,omitempty"`

	// JudgeRaw is a module that gives the score, of the namespace tallygate.quality, named by "judge". It replaces From.
	JudgeRaw json.RawMessage `json:"judge,omitempty" caddy:"namespace=tallygate.quality inline_key=judge"`

	// At is the response header, the JSON path (gjson's syntax), or the judge's URL.
	At string `json:"at,omitempty"`

	// Within is how long the payer has to give a score, for "payer". A payer that gives none pays in full.
	Within caddy.Duration `json:"within,omitempty"`

	// Tiers are checked in their order. The first tier whose Least the score reaches decides.
	Tiers []Tier `json:"tiers"`

	// Else applies to a score below all tiers. It is a share such as "0%", or "dispute". Default: "0%".
	Else string `json:"else,omitempty"`

	// OnError says what happens if there is no valid score. "hold" (the default) keeps the money locked until there is a score or the
	// operator decides. "pay" pays in full. "refund" pays nothing.
	OnError string `json:"on_error,omitempty"`

	guest gateway.Judge // the module of JudgeRaw
}

// Tier is a share of the price, and the lowest score that earns it.
type Tier struct {
	// Least is the lowest score of this tier, as a decimal.
	Least string `json:"least"`
	// Share of the price, in percent: "70%".
	Share string `json:"share"`
}

const (
	scoreHeader  = "header"
	scoreJSON    = "json"
	scoreHTTP    = "http"
	scorePayer   = "payer"
	errorHold    = "hold"
	errorPay     = "pay"
	errorRefund  = "refund"
	belowDispute = "dispute"
)

// compile checks the quality and converts it for the gateway.
func (q *Quality) compile() (*gateway.Quality, error) {
	judge, err := q.judge()
	if err != nil {
		return nil, err
	}
	unscored, ok := map[string]gateway.Unscored{
		"": gateway.UnscoredHold, errorHold: gateway.UnscoredHold, errorPay: gateway.UnscoredPay, errorRefund: gateway.UnscoredRefund,
	}[q.OnError]
	if !ok {
		return nil, fmt.Errorf("unknown on_error %q: expected 'hold', 'pay' or 'refund'", q.OnError)
	}
	tiers, err := q.compileTiers()
	return &gateway.Quality{Judge: judge, Tiers: tiers, Unscored: unscored}, err
}

// judge returns the source of the score.
func (q *Quality) judge() (gateway.Judge, error) {
	switch q.From {
	case "":
		if q.JudgeRaw == nil && q.guest == nil {
			return nil, errors.New("quality has no judge: expected 'header', 'json', 'http' or 'payer'")
		}
		return q.guest, nil
	case scoreHeader:
		at, err := probe.Header(q.At)
		return gateway.ScoreProbe{Probe: at}, err
	case scoreJSON:
		at, err := probe.JSON(q.At)
		return gateway.ScoreProbe{Probe: at, Body: true}, err
	case scoreHTTP:
		if u, err := url.Parse(q.At); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("quality http %q: expected the judge's URL", q.At)
		}
		return gateway.HTTPJudge{URL: q.At, Agent: judgeAgent()}, nil
	case scorePayer:
		if q.Within <= 0 {
			return nil, errors.New("quality payer needs a time: expected 'quality payer within D'")
		}
		return gateway.PayerJudge{Within: time.Duration(q.Within)}, nil
	default:
		return nil, fmt.Errorf("unknown quality %q: expected 'header', 'json', 'http' or 'payer'", q.From)
	}
}

// compileTiers checks the tiers, and adds a last one for scores below all of them.
func (q *Quality) compileTiers() (tiers []escrow.Tier, err error) {
	var last decimal.Decimal
	for i, t := range q.Tiers {
		least, err := decimal.NewFromString(t.Least)
		if err != nil {
			return nil, fmt.Errorf("quality tier %q: expected a score such as 0.9", t.Least)
		}
		share, err := escrow.ParsePercent(t.Share)
		if err != nil {
			return nil, fmt.Errorf("quality tier >= %s: %w", t.Least, err)
		}
		if i > 0 && least.GreaterThanOrEqual(last) {
			return nil, fmt.Errorf("quality tier >= %s is never reached: write the higher scores first", t.Least)
		}
		last = least
		tiers = append(tiers, escrow.Tier{AtLeast: t.Least, Verdict: escrow.Verdict{Share: share}})
	}
	if len(tiers) == 0 {
		return nil, errors.New("quality has no tiers: expected lines such as '>= 0.9 100%'")
	}
	below := escrow.Tier{Verdict: escrow.Verdict{Dispute: q.Else == belowDispute}}
	if q.Else != "" && q.Else != belowDispute {
		if below.Verdict.Share, err = escrow.ParsePercent(q.Else); err != nil {
			return nil, fmt.Errorf("quality else: %w, or 'dispute'", err)
		}
	}
	return append(tiers, below), nil
}

// selfScored reports whether the provider scores its own answers.
func (q *Quality) selfScored() bool { return q.From == scoreHeader || q.From == scoreJSON }

// unmarshalQuality reads
//
//	quality header NAME | json PATH | http URL | payer within D {
//		>= X P%
//		else P%|dispute
//		on_error hold|pay|refund
//	}
func unmarshalQuality(d *caddyfile.Dispenser) (*Quality, error) {
	args := d.RemainingArgs()
	q := new(Quality)
	switch {
	case len(args) == 2 && (args[0] == scoreHeader || args[0] == scoreJSON || args[0] == scoreHTTP):
		q.From, q.At = args[0], args[1]
	case len(args) == 3 && args[0] == scorePayer && args[1] == "within":
		within, err := caddy.ParseDuration(args[2])
		if err != nil || within <= 0 {
			return nil, d.Errf("unexpected %q: expected a duration such as 24h", args[2])
		}
		q.From, q.Within = scorePayer, caddy.Duration(within)
	case len(args) > 0 && isGuest(judgeKey, args[0]):
		d.Prev()
		for range args[1:] {
			d.Prev()
		}
		var err error
		if q.JudgeRaw, err = unmarshalGuest[gateway.Judge](lineOf(d), "quality", judgeKey, "a judge of answers"); err != nil {
			return nil, err
		}
	default:
		return nil, d.Errf("unexpected 'quality %s': expected 'quality header NAME', 'json PATH', 'http URL' or 'payer within D', then a block of tiers", strings.Join(args, " "))
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case ">=":
			tier := d.RemainingArgs()
			if len(tier) != 2 {
				return nil, d.Errf("unexpected '>= %s': expected '>= SCORE SHARE', such as '>= 0.9 100%%'", strings.Join(tier, " "))
			}
			q.Tiers = append(q.Tiers, Tier{Least: tier[0], Share: tier[1]})
		case "else":
			if err := oneArg(d, &q.Else, "a share such as 0%, or 'dispute'"); err != nil {
				return nil, err
			}
		case "on_error":
			if err := oneOf(d, &q.OnError, errorHold, errorPay, errorRefund); err != nil {
				return nil, err
			}
		default:
			return nil, d.Errf("unrecognized subdirective %q of quality: expected one of >=, else, on_error", d.Val())
		}
	}
	_, err := q.compile()
	return q, atLine(d, err)
}
