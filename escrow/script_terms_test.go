package escrow_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// micro reads whole units as millionths.
func micro(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n * escrow.Micro
}

// centPerUnit is an overage price of 0.01 per unit.
func centPerUnit(units int64) ledger.Amount { return ledger.Amount(units) * 10 }

// termStep runs the steps about what lasts: plans, subscriptions, limits, reputation, events.
func (s *script) termStep(verb string, arg func(int) string, named map[string]string) (bool, error) {
	switch verb {
	case "plan": // plan PAYEE NAME PRICE period=168h included=1000 pool=5 overage=yes
		r := s.Rules()
		p := escrow.Plan{Payee: arg(0), Name: arg(1), Price: amount(arg(2)), Period: s.duration(named["period"]), Included: micro(named["included"]), Unit: "call"}
		if named["pool"] != "" {
			p.Overage, p.Pool = true, amount(named["pool"])
		}
		if named["overage"] != "" {
			p.Overage, p.OveragePrice = true, "0.01 per call"
		}
		r.Plans = append(r.Plans, p)
		s.rule(r)
	case "subscribe": // subscribe S PAYER PAYEE [plan=P | AMOUNT period=168h]
		o := escrow.SubscriptionOrder{Payee: arg(2), Plan: named["plan"]}
		if o.Plan == "" {
			o.Amount, o.Period, o.Memo = amount(arg(3)), s.duration(named["period"]), "salary"
		}
		sub, err := do(s.shop, func(t *escrow.Tx) (escrow.Subscription, error) { return t.Subscribe(s.actor(arg(1)), o) })
		if err == nil {
			s.subs[arg(0)] = sub.ID
			s.escrows[arg(0)+".base"], s.escrows[arg(0)+".pool"] = sub.EscrowID, sub.PoolID
		}
		return true, err
	case "end":
		return true, s.shop.run(func(t *escrow.Tx) error { _, err := t.EndSubscription(actor(arg(1)), s.subs[arg(0)]); return err })
	case "resume":
		return true, s.shop.run(func(t *escrow.Tx) error {
			_, err := t.ResumeSubscription(actor(arg(1)), s.subs[arg(0)])
			return err
		})
	case "sub":
		sub, err := s.Subscription(context.Background(), operator, s.subs[arg(0)])
		if err != nil {
			return true, err
		}
		s.escrows[arg(0)+".base"], s.escrows[arg(0)+".pool"] = sub.EscrowID, sub.PoolID
		s.compare(arg(0), named, map[string]string{
			"status": string(sub.Status), "periods": fmt.Sprint(sub.Periods), "used": fmt.Sprint(sub.Used / escrow.Micro), "funded": fmt.Sprint(sub.RenewalFunded),
			"end": sub.PeriodEnd.Format(time.RFC3339), "start": sub.PeriodStart.Format(time.RFC3339),
		})
	case "reach":
		if got := s.calls[arg(0)].ExtendQuota(micro(arg(1))); fmt.Sprint(got) != named["ok"] {
			s.t.Fatalf("extending the quota of %s to %s: %v", arg(0), arg(1), got)
		}
	default:
		return s.moreSteps(verb, arg, named)
	}
	return true, nil
}

func (s *script) moreSteps(verb string, arg func(int) string, named map[string]string) (bool, error) {
	switch verb {
	case "key": // key AGENT NAME
		key, err := do(s.shop, func(t *escrow.Tx) (escrow.Key, error) {
			key, _, err := t.CreateKey(s.actor(arg(0)), "", escrow.KeyOrder{})
			return key, err
		})
		s.keys[arg(1)] = key.ID
		return true, err
	case "limit": // limit AGENT AMOUNT window=24h [payee=P] [key=K]; each replaces all before
		return true, s.shop.run(func(t *escrow.Tx) error {
			_, err := t.SetLimits(s.actor(arg(0)), "", []escrow.Limit{{
				Key: s.keys[named["key"]], Payee: named["payee"], Amount: amount(arg(1)), Window: s.duration(named["window"]),
			}})
			return err
		})
	case "spent":
		limits, err := s.Limits(arg(0))
		must(s.t, err)
		s.compare(arg(0), named, map[string]string{"spent": limits[0].Spent.String()})
	case "hook": // hook AGENT [below=A]
		return true, s.shop.run(func(t *escrow.Tx) error {
			o := escrow.WebhookOrder{URL: "https://example.com/hook"}
			if named["below"] != "" {
				o.Below = amount(named["below"])
			}
			_, err := t.CreateWebhook(actor(arg(0)), o)
			return err
		})
	case "told": // told AGENT all=a,b: what its webhooks were told since the last time
		var events []string
		for {
			due, _, err := s.Deliveries(context.Background(), 1000, func(d escrow.Delivery) bool { return d.Agent != arg(0) })
			must(s.t, err)
			if len(due) == 0 {
				break
			}
			for _, d := range due {
				events = append(events, string(d.Event.Type))
				must(s.t, s.shop.run(func(t *escrow.Tx) error { return t.Delivered(d, escrow.Attempt{Status: 200}) }))
			}
		}
		s.compare(arg(0), named, map[string]string{"all": strings.Join(events, ",")})
	default:
		return s.judgeSteps(verb, arg, named)
	}
	return true, nil
}

func (s *script) judgeSteps(verb string, arg func(int) string, named map[string]string) (bool, error) {
	switch verb {
	case "score": // score CALL WHO SCORE
		return true, s.shop.run(func(t *escrow.Tx) error {
			_, err := t.Score(actor(arg(1)), s.requests[arg(0)], arg(2))
			return err
		})
	case "decide": // decide CALL SHARE: the judge, at last
		return true, s.shop.run(func(t *escrow.Tx) error {
			_, err := t.Decide(s.requests[arg(0)], verdict(arg(1)), "0.5")
			return err
		})
	case "open": // how many decisions are open
		open, err := s.OpenDecisions(context.Background(), "", 100)
		must(s.t, err)
		s.compare("decisions", named, map[string]string{"decisions": fmt.Sprint(len(open))})
	case "repute": // repute AGENT payee|payer completed=.. value=..
		r, err := s.Reputation(arg(0))
		if err != nil {
			return true, err
		}
		side := r.AsPayee
		if arg(1) == "payer" {
			side = r.AsPayer
		}
		median, _ := side.MedianTime()
		s.compare(arg(0), named, map[string]string{
			"completed": fmt.Sprint(side.Completed), "value": side.Value.String(), "counterparties": fmt.Sprint(side.Counterparties),
			"won": fmt.Sprint(side.DisputesWon), "lost": fmt.Sprint(side.DisputesLost), "refunds": side.RefundRate().String(), "median": median.String(),
		})
	default:
		return false, nil
	}
	return true, nil
}

// verdict reads 70% or dispute.
func verdict(text string) escrow.Verdict {
	if text == "dispute" {
		return escrow.Verdict{Dispute: true}
	}
	ppm, err := escrow.ParsePercent(text)
	if err != nil {
		panic(err)
	}
	return escrow.Verdict{Share: ppm}
}

// quality reads judged=70%, or hold=24h end=100% payer=yes.
func (s *script) quality(named map[string]string) *escrow.Quality {
	switch {
	case named["judged"] != "":
		return &escrow.Quality{Verdict: verdict(named["judged"]), Score: "0.8"}
	case named["hold"] != "":
		return &escrow.Quality{Hold: true, Decision: &escrow.Decision{
			DecideBy: s.Now().Add(s.duration(named["hold"])), AtEnd: verdict(named["end"]), ByPayer: named["payer"] != "", Judge: []byte("the work"),
			Tiers: []escrow.Tier{{AtLeast: "0.9", Verdict: verdict("100%")}, {AtLeast: "0.7", Verdict: verdict("70%")}, {Verdict: verdict("dispute")}},
		}}
	default:
		return nil
	}
}
