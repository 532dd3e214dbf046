package stripe_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/internal/commandtest"
)

// deposit returns the id of the deposit that a payment has made.
func (s *shop) deposit(key string, intent object) string {
	s.t.Helper()
	for _, found := range s.do("GET", "/deposits", key, "").object["deposits"].([]any) {
		if found.(object)["payment_id"] == intent["id"] {
			return found.(object)["deposit_id"].(string)
		}
	}
	s.t.Fatalf("no deposit of payment %v", intent["id"])
	return ""
}

// back asks for money of a deposit, and returns the payout.
func (s *shop) back(key, deposit, amount string, headers ...string) answer {
	s.t.Helper()
	body := "{}"
	if amount != "" {
		body = fmt.Sprintf(`{"amount":%q}`, amount)
	}
	return s.do("POST", "/deposits/"+deposit+"/refund", key, body, headers...)
}

// decided waits until the outcome of a payout is known.
func (s *shop) decided(key string, payout any) object {
	s.t.Helper()
	for {
		p := s.do("GET", fmt.Sprint("/payouts/", payout), key, "").object
		if p["status"] != "sending" {
			return p
		}
		select {
		case <-s.t.Context().Done():
			s.t.Fatal("the refund was never decided")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestRefundOnRequest: unspent money goes back the way it came, in parts, and never more than is available or left of its payment. What
// Stripe tells of it afterwards changes nothing.
func TestRefundOnRequest(t *testing.T) {
	s := openShop(t, "usd")
	id, key := s.agent()
	_, other := s.agent()
	intent := s.paid(key, "10", false)
	deposit := s.deposit(key, intent)
	shown := s.do("GET", "/deposits", key, "").object["deposits"].([]any)[0].(object)
	want(t, "the deposit", words(shown["rail"], shown["amount"], shown["left"], shown["refund"]), "stripe 10 10 at_once")

	want(t, "another agent's deposit", s.back(other, deposit, "1").code(), "404 not_found")
	want(t, "an altered id", s.back(key, deposit+"0", "1").code(), "404 not_found")
	want(t, "more than the deposit", s.back(key, deposit, "11").code(), "422 invalid_request")
	want(t, "half a cent", s.back(key, deposit, "0.005").code(), "422 invalid_request")
	want(t, "less than nothing", s.back(key, deposit, "-1").code(), "422 invalid_request")

	hold := s.do("POST", "/payouts", key, `{"amount":"2","to":"bank"}`) // what is set aside can't go back
	want(t, "a payout", hold.code(), 201)
	want(t, "what is held", s.back(key, deposit, "9").code(), "402 insufficient_funds")
	first := s.back(key, deposit, "3", "Idempotency-Key", "one")
	want(t, "asked", words(first.code(), first.object["deposit_id"]), "201 "+deposit)
	want(t, "the same request again", s.back(key, deposit, "3", "Idempotency-Key", "one").object["payout_id"], first.object["payout_id"])
	done := s.decided(key, first.object["payout_id"])
	want(t, "made", words(done["status"], done["reference"]), words("paid", s.stripe.refunds[0]["id"]))
	want(t, "the wallet", s.wallet(key), "7 held 2")
	for range 2 {
		s.delivered(s.stripe.told(intent))
	}
	want(t, "told again", s.wallet(key), "7 held 2")

	// A refund in Stripe's dashboard is another one. What is left is bounded by both.
	_, event := s.stripe.refund(intent, 100)
	s.delivered(event)
	want(t, "both", s.wallet(key), "6 held 2")
	want(t, "refused", s.do("POST", fmt.Sprint("/payouts/", hold.object["payout_id"], "/refuse"), operatorKey, "").code(), 200)
	s.do("POST", "/faucet", key, "") // 3 of play money
	want(t, "more than is left", s.back(key, deposit, "7").code(), "409 invalid_status")
	want(t, "play money does not go back", s.do("POST", "/wallet/transfer", key, `{"to_agent_id":"agent-2","amount":"4.005"}`).code(), 200)
	rest := s.back(key, deposit, "")
	gone := s.decided(key, rest.object["payout_id"])
	minor, n := s.stripe.refunded(intent)
	want(t, "all that can", words(gone["status"], gone["amount"], n, minor, s.wallet(key)), "paid 4.99 3 899 0.005 held 0")

	// It fails later: the money comes again.
	s.stripe.mu.Lock()
	last := s.stripe.refunds[2]
	s.stripe.mu.Unlock()
	before := s.do("GET", "/wallet", key, "").object["balance"]
	failed := s.stripe.failRefund(last)
	for range 2 {
		s.delivered(failed)
	}
	if after := s.do("GET", "/wallet", key, "").object["balance"]; after == before {
		t.Errorf("a refund has failed, and the wallet has still %v", after)
	}
	want(t, "suspended", s.do("POST", "/agents/"+id+"/suspend", operatorKey, "").code(), 200)
	want(t, "a suspended agent", s.back(key, deposit, "").code(), "403 forbidden")
}

// TestRefundsAtTheSameTime: many requests for the same money get it once.
func TestRefundsAtTheSameTime(t *testing.T) {
	s := openShop(t, "usd")
	_, key := s.agent()
	intent := s.paid(key, "5", false)
	deposit := s.deposit(key, intent)
	var asking sync.WaitGroup
	answers := make([]answer, 8)
	for i := range answers {
		asking.Go(func() { answers[i] = s.back(key, deposit, "4") })
	}
	asking.Wait()
	made := 0
	for _, a := range answers {
		switch code := a.code(); code {
		case "201":
			made++
			s.decided(key, a.object["payout_id"])
		case "409 invalid_status", "402 insufficient_funds":
		default:
			t.Errorf("answered with %s", code)
		}
	}
	minor, n := s.stripe.refunded(intent)
	want(t, "made", words(made, n, minor, s.wallet(key)), "1 1 400 1 held 0")
}

// TestRefundThatStripeRefuses: Stripe has the last word. What it does not give back is in the wallet again, and what it has given back without
// our knowing is not given twice.
func TestRefundThatStripeRefuses(t *testing.T) {
	s := openShop(t, "usd")
	_, key := s.agent()
	intent := s.paid(key, "5", false)
	deposit := s.deposit(key, intent)

	s.stripe.set("down")
	late := s.back(key, deposit, "1")
	want(t, "asked while Stripe is down", words(late.code(), late.object["status"]), "201 sending")
	want(t, "it can't be refused now", s.do("POST", fmt.Sprint("/payouts/", late.object["payout_id"], "/refuse"), operatorKey, "").code(), "409 invalid_status")
	want(t, "set aside", s.wallet(key), "5 held 1")
	s.stripe.set("")
	want(t, "made later", s.decided(key, late.object["payout_id"])["status"], "paid")

	s.stripe.set("fail")
	bad := s.decided(key, s.back(key, deposit, "1").object["payout_id"])
	want(t, "it failed at once", words(bad["status"], bad["reason"], s.wallet(key)), "refused the refund failed 4 held 0")
	s.stripe.set("")

	_, refunded := s.stripe.refund(intent, 300) // the operator, of which we have not heard yet
	no := s.decided(key, s.back(key, deposit, "2").object["payout_id"])
	want(t, "more than Stripe has", words(no["status"], s.wallet(key)), "refused 4 held 0")
	s.delivered(refunded)
	want(t, "the operator's", s.wallet(key), "1 held 0")

	again := s.paid(key, "5", false)
	second := s.deposit(key, again)
	_, events := s.stripe.dispute(again, 500)
	no = s.decided(key, s.back(key, second, "2").object["payout_id"])
	want(t, "while a dispute is unknown here", words(no["status"], s.wallet(key)), "refused 6 held 0")
	s.delivered(events[1])
	want(t, "after the chargeback", words(s.wallet(key), s.back(key, second, "1").code()), "1 held 0 409 invalid_status")
	for range 2 {
		s.delivered(s.stripe.told(intent))
	}
	want(t, "at the end", s.wallet(key), "1 held 0")
}

// TestTooManyRefunds: a deposit goes back in few parts, since each costs Stripe a request.
func TestTooManyRefunds(t *testing.T) {
	s := openShop(t, "usd")
	_, key := s.agent()
	deposit := s.deposit(key, s.paid(key, "5", false))
	for range 20 {
		a := s.back(key, deposit, "0.01")
		want(t, "a part", a.code(), 201)
		s.decided(key, a.object["payout_id"])
	}
	want(t, "one more", s.back(key, deposit, "0.01").code(), "409 invalid_status")
}

// TestRefundsByTheOperator: where the operator decides, a refund waits until the operator has it sent.
func TestRefundsByTheOperator(t *testing.T) {
	s := openShop(t, "usd", "refunds by_operator")
	_, key := s.agent()
	intent := s.paid(key, "5", false)
	deposit := s.deposit(key, intent)
	asked := s.back(key, deposit, "2")
	want(t, "asked", words(asked.code(), asked.object["status"]), "201 requested")
	two := s.back(key, deposit, "1")
	path := fmt.Sprint("/payouts/", asked.object["payout_id"])
	want(t, "an agent sends", s.do("POST", path+"/send", key, "").code(), "403 forbidden")
	s.stripe.set("lose")
	want(t, "the answer is lost", s.do("POST", path+"/send", operatorKey, "").code(), "503 rail_unavailable")
	s.stripe.set("")
	want(t, "found later", s.decided(key, asked.object["payout_id"])["status"], "paid")
	want(t, "refused", s.do("POST", fmt.Sprint("/payouts/", two.object["payout_id"], "/refuse"), operatorKey, "").code(), 200)
	minor, n := s.stripe.refunded(intent)
	want(t, "made", words(n, minor, s.wallet(key)), "1 200 3 held 0")
	shown := s.do("GET", "/deposits", key, "").object["deposits"].([]any)[0].(object)
	want(t, "the deposit", words(shown["left"], shown["refund"]), "3 by_operator")
}

// TestKilledBetweenRefundAndBooking: Stripe has made a refund, and the process dies before it knows. The next one finds it, and books it once,
// although Stripe has forgotten the idempotency key and tells of the refund too.
func TestKilledBetweenRefundAndBooking(t *testing.T) {
	s := newShop(t, "usd")
	config := filepath.Join(t.TempDir(), "Caddyfile")
	must(t, os.WriteFile(config, []byte(s.file), 0o600))
	running := commandtest.Serve(t, config, s.url+"/api/v1/health")
	_, key := s.agent()
	intent := s.paid(key, "5", false)
	deposit := s.deposit(key, intent)
	answered, died := make(chan struct{}), make(chan struct{})
	answer := sync.OnceFunc(func() { close(answered) })
	t.Cleanup(answer)
	s.stripe.mu.Lock()
	s.stripe.fault, s.stripe.kill = "kill late", sync.OnceFunc(func() {
		<-answered // Stripe is asked as soon as the refund is booked, which may be before the agent has the answer
		running.End(os.Kill)
		close(died)
	})
	s.stripe.mu.Unlock()
	asked := s.back(key, deposit, "2")
	answer()
	want(t, "asked", asked.code(), 201)
	<-died
	s.stripe.set("")
	s.stripe.mu.Lock()
	clear(s.stripe.answers)
	s.stripe.mu.Unlock()
	running = commandtest.Serve(t, config, s.url+"/api/v1/health")
	want(t, "found", s.decided(key, asked.object["payout_id"])["status"], "paid")
	for range 2 {
		s.delivered(s.stripe.told(intent))
	}
	minor, n := s.stripe.refunded(intent)
	want(t, "made, and booked", words(n, minor, s.wallet(key)), "1 200 3 held 0")
	running.End(syscall.SIGTERM)
	if out, err := commandtest.Command(t, "ledger", "verify", "--config", config).CombinedOutput(); err != nil {
		t.Errorf("the books: %v\n%s", err, out)
	}
	s.checkLog()
}
