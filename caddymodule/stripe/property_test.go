package stripe_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddyserver/caddy/v2"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// buyer is an agent, and what Stripe says about its money, in cents.
type buyer struct {
	s        *shop
	id, key  string
	pages    []string
	intents  []object
	refunds  []object
	disputes []object
	events   []object // that Stripe has sent, or will
	paid     int64
	gone     map[string]int64 // what of it went back, by refund or dispute
	asked    int              // refunds, by their idempotency key
	spent    ledger.Amount
	resumed  bool // the operator ends suspensions although there is a debt
}

func (b *buyer) page(t *rapid.T) {
	cents := rapid.Int64Range(100, 50_000).Draw(t, "cents")
	a := b.s.do("POST", "/checkout", b.key, fmt.Sprintf(`{"amount":"%d.%02d"}`, cents/100, cents%100))
	if a.status == 201 {
		b.pages = append(b.pages, a.object["checkout_id"].(string))
	} else if a.code() != "503 rail_unavailable" && a.code() != "429 rate_limited" {
		t.Fatalf("a page: %s", a.code())
	}
}

func (b *buyer) pay(t *rapid.T) {
	if len(b.pages) == 0 {
		t.Skip("no page")
	}
	intent, event := b.s.stripe.pay(b.pages[0])
	b.pages, b.intents, b.events = b.pages[1:], append(b.intents, intent), append(b.events, event)
	b.paid += intent["amount"].(int64)
}

// some draws one of the payments, and a part of it.
func (b *buyer) some(t *rapid.T) (intent object, part int64) {
	if len(b.intents) == 0 {
		t.Skip("no payment")
	}
	intent = rapid.SampledFrom(b.intents).Draw(t, "payment")
	return intent, rapid.Int64Range(1, intent["amount"].(int64)).Draw(t, "part")
}

func (b *buyer) refund(t *rapid.T) {
	refund, event := b.s.stripe.refund(b.some(t))
	b.refunds, b.events = append(b.refunds, refund), append(b.events, event)
	b.gone[refund["id"].(string)] = refund["amount"].(int64)
}

// ask asks for a part of one of the deposits, once or twice.
func (b *buyer) ask(t *rapid.T) {
	deposits := b.s.do("GET", "/deposits", b.key, "").object["deposits"].([]any)
	if len(deposits) == 0 {
		t.Skip("no deposit")
	}
	deposit := rapid.SampledFrom(deposits).Draw(t, "deposit").(object)
	cents := rapid.Int64Range(0, 50_000).Draw(t, "cents")
	body := "{}"
	if cents > 0 {
		body = fmt.Sprintf(`{"amount":"%d.%02d"}`, cents/100, cents%100)
	}
	key := fmt.Sprint("refund-", b.asked)
	if !rapid.Bool().Draw(t, "the same request again") {
		b.asked++
		key = fmt.Sprint("refund-", b.asked)
	}
	switch code := b.s.do("POST", "/deposits/"+deposit["deposit_id"].(string)+"/refund", b.key, body, "Idempotency-Key", key).code(); code {
	case "201", "402 insufficient_funds", "403 forbidden", "409 invalid_status", "409 idempotency_conflict", "422 invalid_request", "422 idempotency_conflict":
	default:
		t.Fatalf("a refund: %s", code)
	}
}

// known waits until what became of all refunds that were asked for is known, and notes it as Stripe has it.
func (b *buyer) known(t *rapid.T) {
	for waiting := true; waiting; {
		waiting = false
		for cursor := any(nil); ; {
			path := "/payouts?status=sending&agent_id=" + b.id
			if cursor != nil {
				path += fmt.Sprint("&cursor=", cursor)
			}
			page := b.s.do("GET", path, operatorKey, "").object
			waiting = waiting || len(page["payouts"].([]any)) > 0
			if cursor = page["next_cursor"]; cursor == nil {
				break
			}
		}
		if waiting {
			select {
			case <-b.s.t.Context().Done():
				t.Fatal("the outcome of a refund is never known")
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	b.s.stripe.mu.Lock()
	defer b.s.stripe.mu.Unlock()
	for _, refund := range b.s.stripe.refunds {
		for _, intent := range b.intents {
			if refund["payment_intent"] != intent["id"] {
				continue
			}
			if b.gone[refund["id"].(string)] = refund["amount"].(int64); refund["status"] == "failed" {
				b.gone[refund["id"].(string)] = 0
			}
		}
	}
}

func (b *buyer) failRefund(t *rapid.T) {
	if len(b.refunds) == 0 {
		t.Skip("no refund")
	}
	refund := rapid.SampledFrom(b.refunds).Draw(t, "refund")
	b.events = append(b.events, b.s.stripe.failRefund(refund))
	b.gone[refund["id"].(string)] = 0
}

func (b *buyer) dispute(t *rapid.T) {
	dispute, events := b.s.stripe.dispute(b.some(t))
	b.disputes, b.events = append(b.disputes, dispute), append(b.events, events...)
	b.gone[dispute["id"].(string)] = dispute["amount"].(int64)
}

func (b *buyer) win(t *rapid.T) {
	if len(b.disputes) == 0 {
		t.Skip("no dispute")
	}
	dispute := rapid.SampledFrom(b.disputes).Draw(t, "dispute")
	if dispute["status"] == "won" {
		t.Skip("it is won")
	}
	b.events = append(b.events, b.s.stripe.win(dispute))
	b.gone[dispute["id"].(string)] = 0
}

// deliver sends any of the events, perhaps again. It stays among those that are sent at the end.
func (b *buyer) deliver(t *rapid.T) {
	if len(b.events) == 0 {
		t.Skip("no event")
	}
	a := b.s.deliver(rapid.SampledFrom(b.events).Draw(t, "event"))
	if a.status != 204 && a.status != 503 {
		t.Fatalf("an event: %s", a.code())
	}
}

func (b *buyer) fault(t *rapid.T) {
	b.s.stripe.set(rapid.SampledFrom([]string{"", "down", "lose", "fail"}).Draw(t, "fault"))
}

func (b *buyer) spend(t *rapid.T) {
	nanos := rapid.Int64Range(1, 300*int64(ledger.Unit)).Draw(t, "nanos")
	a := b.s.do("POST", "/wallet/transfer", b.key, fmt.Sprintf(`{"to_agent_id":"sink","amount":%q}`, ledger.Amount(nanos)))
	if a.status == 200 {
		b.spent += ledger.Amount(nanos)
	} else if a.code() != "402 insufficient_funds" && a.code() != "403 forbidden" {
		t.Fatalf("spending: %s", a.code())
	}
}

func (b *buyer) resume(t *rapid.T) {
	if code := b.s.do("POST", "/agents/"+b.id+"/resume", operatorKey, "").code(); code != "200" && code != "409 invalid_status" {
		t.Fatalf("resuming: %s", code)
	}
	b.resumed = true
}

// restart loads the same config anew, as another process would.
func (b *buyer) restart(t *rapid.T) {
	if err := caddy.Load(b.s.config, true); err != nil {
		t.Fatal(err)
	}
}

// check compares the books with what Stripe says, when all events have arrived.
func (b *buyer) check(t *rapid.T) {
	b.s.stripe.set("")
	b.known(t)
	for _, event := range rapid.Permutation(b.events).Draw(t, "events") {
		if a := b.s.deliver(event); a.status != 204 {
			t.Fatalf("%v: %s", event["type"], a.code())
		}
	}
	net := b.paid
	for _, gone := range b.gone {
		net -= gone
	}
	amount := func(name string) ledger.Amount {
		text, is := b.s.do("GET", "/wallet", b.key, "").object[name].(string)
		if !is {
			return 0
		}
		n, err := ledger.ParseAmount(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	balance, debt := amount("balance"), amount("debt")
	if have := balance - debt + b.spent; have != ledger.Amount(net)*ledger.Unit/100 {
		t.Fatalf("Stripe has %d cents of it, and the books %s: balance %s, debt %s, spent %s", net, have, balance, debt, b.spent)
	}
	if debt > 0 && b.s.status(b.id) != "suspended" && !b.resumed {
		t.Fatalf("an agent that owes %s is %s", debt, b.s.status(b.id))
	}
}

// TestBookedIsWhatStripeSays: what Stripe says was paid, minus what it says went back, is what was booked as deposits, minus what was booked
// as taken back: whatever fails, and in whichever order Stripe tells of it.
func TestBookedIsWhatStripeSays(t *testing.T) {
	s := openShop(t, "usd")
	want(t, "the sink", s.do("POST", "/agents", "", `{"agent_id":"sink"}`).code(), 201)
	rapid.Check(t, func(t *rapid.T) {
		b := &buyer{s: s, gone: map[string]int64{}}
		b.id, b.key = s.agent()
		t.Repeat(map[string]func(*rapid.T){
			"page": b.page, "pay": b.pay, "pay again": b.pay, "refund": b.refund, "ask": b.ask, "ask again": b.ask, "fail refund": b.failRefund, "dispute": b.dispute, "win": b.win,
			"deliver": b.deliver, "deliver again": b.deliver, "fault": b.fault, "spend": b.spend, "resume": b.resume, "restart": b.restart,
		})
		b.check(t)
	})
}
