package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// callWithCredit makes a metered call that uses credit first, and returns its request id.
func (g *gate) callWithCredit(payer, payee, amount string) (string, error) {
	g.t.Helper()
	cost, err := ledger.ParseAmount(amount)
	must(g.t, err)
	id := g.book.NewRequestID()
	a, err := g.book.Authorise(context.Background(), escrow.CallOrder{
		Request: id, By: escrow.Actor{Agent: payer}, Payee: payee, Route: "/search*", Pattern: "per_call", Least: cost, Credit: true,
	})
	if err != nil {
		return "", err
	}
	_, err = a.Settle(context.Background(), escrow.Settlement{Amount: cost, Source: "stated", Cut: "none", HTTPStatus: 200})
	return id, err
}

func (g *gate) pays(payer, payee, amount string) string {
	g.t.Helper()
	id, err := g.callWithCredit(payer, payee, amount)
	must(g.t, err)
	return id
}

// sound checks the books.
func (g *gate) sound() {
	g.t.Helper()
	report, err := g.book.Check(context.Background(), nil)
	must(g.t, err)
	if !report.Good() {
		g.t.Errorf("the books are wrong: %v %v", report.Ledger.Wrong, report.Wrong)
	}
}

// TestCredit: a payee gives an agent credit, whose calls use it before money. Both see the credit, and what became of it.
func TestCredit(t *testing.T) {
	r := rules()
	r.CommissionPPM = 100_000
	g := newGate(t, r, api.Options{})
	alice, bob := g.agent("alice", "10"), g.agent("bob", "0")
	fields := []string{"payee", "bob", "agent_id", "alice", "amount", "5", "used", "0", "ended", "0", "remaining", "5", "status", "active", "currency", "USDC", "memo", "welcome"}
	made := g.post("/credits", bob, `{"agent_id":"alice","amount":5,"expires_at":"2026-11-25T12:00:00Z","memo":"welcome"}`).want(201, fields...)
	id := made.str("credit_id")
	made.want(201, "expires_at", "2026-11-25T12:00:00Z", "created_at", "2026-11-24T12:00:00Z")
	for _, key := range []string{alice, bob, operatorKey} {
		g.get("/credits/"+id, key).want(200, fields...)
		g.get("/credits?status=active&payee=bob", key).want(200, "credits.0.credit_id", id, "next_cursor", "null")
	}
	g.get("/wallet", alice).want(200, "balance", "10", "available", "10", "credit.0.payee", "bob", "credit.0.available", "5")
	g.get("/wallet", bob).want(200, "balance", "0", "credit", "[]")

	first := g.pays("alice", "bob", "3")
	g.get("/charges/"+first, alice).want(200, "amount", "3", "credit", "3", "money", "0", "commission", "0")
	second := g.pays("alice", "bob", "3")
	g.get("/charges/"+second, bob).want(200, "amount", "3", "credit", "2", "money", "1", "commission", "0.1")
	third := g.pays("alice", "bob", "3")
	if a := g.get("/charges/"+third, alice).want(200, "amount", "3", "commission", "0.3"); strings.Contains(a.text, "credit") || strings.Contains(a.text, "money") {
		t.Errorf("a charge without credit speaks of it: %s", a.text)
	}
	g.get("/wallet", alice).want(200, "balance", "6", "credit", "[]")
	g.get("/wallet", bob).want(200, "balance", "3.6")
	g.get("/usage", alice).want(200, "usage.0.paid", "9", "usage.0.credit", "5")
	g.get("/statements", alice).want(200, "closing_balance", "6")
	g.get("/credits/"+id, alice).want(200, "used", "5", "remaining", "0", "status", "active")

	// Two parts were paid with credit and one with money. Half of it comes back in this proportion, and so does the rest, to the last nano.
	g.post("/charges/"+second+"/refund", bob, `{"amount":1.5}`).want(200, "refunded", "1.5", "credit_refunded", "1")
	g.get("/wallet", alice).want(200, "balance", "6.5", "credit.0.available", "1")
	g.post("/charges/"+second+"/refund", bob, `{}`).want(200, "refunded", "3", "credit_refunded", "2", "status", "refunded")
	g.get("/wallet", alice).want(200, "balance", "7", "credit.0.available", "2")
	g.get("/wallet", bob).want(200, "balance", "2.7")
	g.get("/credits/"+id, bob).want(200, "used", "3", "remaining", "2")

	g.wait(24 * time.Hour)
	g.get("/credits/"+id, bob).want(200, "status", "expired", "used", "3", "ended", "2", "remaining", "0")
	g.get("/wallet", alice).want(200, "balance", "7", "credit", "[]")
	// Credit that has expired does not come back, and no money comes back instead.
	g.post("/charges/"+first+"/refund", bob, `{}`).want(200, "refunded", "3", "credit_refunded", "3")
	g.get("/wallet", alice).want(200, "balance", "7", "credit", "[]")
	g.get("/credits/"+id, bob).want(200, "used", "3", "ended", "2", "remaining", "0")

	other := g.post("/credits", operatorKey, `{"payee":"bob","agent_id":"alice","amount":4}`).want(201, "payee", "bob", "expires_at", "null").str("credit_id")
	g.pays("alice", "bob", "1")
	g.post("/credits/"+other+"/revoke", alice, "").want(403, "code", "forbidden")
	g.post("/credits/"+other+"/revoke", bob, "").want(200, "status", "revoked", "used", "1", "ended", "3", "remaining", "0")
	g.post("/credits/"+other+"/revoke", operatorKey, "").want(409, "code", "invalid_status")
	g.get("/wallet", alice).want(200, "balance", "7", "credit", "[]")
	g.sound()
}

// TestCreditIsUsedInOrder: credit that expires first is used first, and credit that never expires last.
func TestCreditIsUsedInOrder(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	g.agent("alice", "0")
	bob := g.agent("bob", "0")
	never := g.post("/credits", bob, `{"agent_id":"alice","amount":1}`).want(201).str("credit_id")
	later := g.post("/credits", bob, `{"agent_id":"alice","amount":1,"expires_at":"2026-12-02"}`).status
	if later != 422 && later != 400 {
		t.Errorf("a day is no time in a body: %d", later)
	}
	late := g.post("/credits", bob, `{"agent_id":"alice","amount":1,"expires_at":"2026-12-02T00:00:00Z"}`).want(201).str("credit_id")
	soon := g.post("/credits", bob, `{"agent_id":"alice","amount":1,"expires_at":"2026-12-01T02:00:00+03:00"}`).want(201).str("credit_id")
	for _, want := range []string{"0.5 1 1", "0 1 1", "0 0.5 1", "0 0 1", "0 0 0.5", "0 0 0"} {
		g.pays("alice", "bob", "0.5")
		var left []string
		for _, id := range []string{soon, late, never} {
			left = append(left, g.get("/credits/"+id, bob).str("remaining"))
		}
		if got := strings.Join(left, " "); got != want {
			t.Fatalf("left are %s, want %s", got, want)
		}
	}
	if _, err := g.callWithCredit("alice", "bob", "0.5"); !escrow.IsRefusal(err, escrow.InsufficientFunds) {
		t.Errorf("a call without credit and money: %v", err)
	}
	g.sound()
}

func TestCreditIsRefused(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, bob := g.agent("alice", "10"), g.agent("bob", "10")
	key := func(of, body string) string {
		return g.post("/agents/me/keys", of, body).want(201).str("api_key")
	}
	reader, bound := key(bob, `{"read_only":true}`), key(bob, `{"payees":["alice"]}`)
	made := g.post("/agents/me/keys", bob, `{}`).want(201)
	limited := made.str("api_key")
	g.do("PUT", "/api/v1/limits", bob, fmt.Sprintf(`{"limits":[{"key_id":%q,"amount":1,"window_hours":1}]}`, made.str("key_id"))).want(200)
	for _, test := range []struct {
		name, key, body string
		status          int
	}{
		{"another's", alice, `{"payee":"bob","agent_id":"alice","amount":1}`, 403},
		{"to itself", bob, `{"agent_id":"bob","amount":1}`, 422},
		{"to nobody", bob, `{"agent_id":"nobody","amount":1}`, 422},
		{"of nothing", bob, `{"agent_id":"alice","amount":0}`, 422},
		{"below nothing", bob, `{"agent_id":"alice","amount":-1}`, 422},
		{"finer than a nano", bob, `{"agent_id":"alice","amount":0.0000000001}`, 422},
		{"of all and more", bob, `{"agent_id":"alice","amount":9300000000}`, 422},
		{"that is over", bob, `{"agent_id":"alice","amount":1,"expires_at":"2026-11-24T12:00:00Z"}`, 422},
		{"by a read-only key", reader, `{"agent_id":"alice","amount":1}`, 403},
		{"by a key that is bound to payees", bound, `{"agent_id":"alice","amount":1}`, 403},
		{"by a key with a limit of its own", limited, `{"agent_id":"alice","amount":1}`, 403},
		{"by the operator, for nobody", operatorKey, `{"agent_id":"alice","amount":1}`, 422},
		{"by nobody", "", `{"agent_id":"alice","amount":1}`, 401},
	} {
		if a := g.post("/credits", test.key, test.body); a.status != test.status {
			t.Errorf("credit %s: %d, want %d: %s", test.name, a.status, test.status, a.text)
		}
	}
	if a := g.post("/coupons", limited, `{"amount":1,"uses":1}`); a.status != 403 {
		t.Errorf("a coupon by a key with a limit of its own: %d", a.status)
	}
	g.get("/credits", alice).want(200, "credits", "[]")
	for range 20 {
		g.post("/credits", bob, `{"agent_id":"alice","amount":1}`).want(201)
	}
	g.post("/credits", bob, `{"agent_id":"alice","amount":1}`).want(402, "code", "limit_exceeded")
	g.pays("alice", "bob", "1")
	g.post("/credits", bob, `{"agent_id":"alice","amount":1}`).want(201)
	g.get("/credits?status=gone", alice).want(422)
}

// TestCoupons: each agent redeems a coupon once, and all agents together no more often than it allows.
func TestCoupons(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, bob, cyd, dan := g.agent("alice", "0"), g.agent("bob", "0"), g.agent("cyd", "0"), g.agent("dan", "0")
	redeem := func(key, code string) answer { return g.post("/coupons/redeem", key, `{"code":"`+code+`"}`) }
	made := g.post("/coupons", bob, `{"amount":2,"uses":2,"valid_hours":24,"memo":"launch"}`).
		want(201, "payee", "bob", "amount", "2", "uses", "2", "redeemed", "0", "valid_hours", "24", "redeem_by", "null", "revoked_at", "null")
	code, id := made.str("code"), made.str("coupon_id")
	redeem(bob, code).want(422)
	redeem(alice, "tc_WELCOME").want(404)
	redeem(alice, strings.ToLower(code)).want(404)
	redeem(alice, "").want(404)
	redeem("", code).want(401)
	bound := g.post("/agents/me/keys", alice, `{"payees":["cyd"]}`).want(201).str("api_key")
	redeem(bound, code).want(403)
	credit := redeem(alice, code).want(201, "payee", "bob", "agent_id", "alice", "amount", "2", "coupon_id", id, "memo", "launch", "expires_at", "2026-11-25T12:00:00Z").str("credit_id")
	redeem(alice, code).want(409, "code", "already_exists")
	redeem(cyd, code).want(201)
	redeem(dan, code).want(409, "code", "invalid_status")
	g.get("/coupons", bob).want(200, "coupons.0.coupon_id", id, "coupons.0.code", code, "coupons.0.redeemed", "2")
	g.get("/coupons", alice).want(200, "coupons", "[]")
	g.wait(24 * time.Hour)
	g.get("/credits/"+credit, alice).want(200, "status", "expired", "ended", "2")
	redeem(alice, code).want(409, "code", "already_exists")

	over := g.post("/coupons", bob, `{"amount":1,"uses":10,"redeem_by":"2026-11-25T13:00:00Z"}`).want(201).str("code")
	redeem(alice, over).want(201, "expires_at", "null")
	g.wait(time.Hour)
	redeem(cyd, over).want(409, "code", "invalid_status")

	revoked := g.post("/coupons", operatorKey, `{"payee":"bob","amount":1,"uses":10}`).want(201)
	kept := redeem(dan, revoked.str("code")).want(201).str("credit_id")
	g.post("/coupons/"+revoked.str("coupon_id")+"/revoke", alice, "").want(404)
	g.post("/coupons/"+revoked.str("coupon_id")+"/revoke", bob, "").want(200, "redeemed", "1", "revoked_at", "2026-11-25T13:00:00Z")
	g.post("/coupons/"+revoked.str("coupon_id")+"/revoke", bob, "").want(409)
	redeem(cyd, revoked.str("code")).want(409, "code", "invalid_status")
	g.get("/credits/"+kept, dan).want(200, "status", "active", "remaining", "1")
	for _, bad := range []string{`{"amount":1,"uses":0}`, `{"amount":1,"uses":1000001}`, `{"amount":0,"uses":1}`, `{"amount":1,"uses":1,"valid_hours":99999999}`, `{"amount":1,"uses":1,"redeem_by":"2026-01-01T00:00:00Z"}`, `{"amount":1,"uses":1,"payee":"alice"}`} {
		if a := g.post("/coupons", bob, bad); a.status != 422 && a.status != 403 {
			t.Errorf("coupon %s: %d %s", bad, a.status, a.text)
		}
	}
	g.sound()
}

// TestCreditIsNoMoney: whatever its holder, its issuer and their friends do, credit never gets into a wallet.
func TestCreditIsNoMoney(t *testing.T) {
	r := rules()
	r.CommissionPPM = 100_000
	g := newGate(t, r, api.Options{})
	alice, bob, eve := g.agent("alice", "0"), g.agent("bob", "0"), g.agent("eve", "0")
	credit := g.post("/credits", bob, `{"agent_id":"alice","amount":100}`).want(201).str("credit_id")
	back := g.post("/credits", eve, `{"agent_id":"bob","amount":100}`).want(201).str("credit_id")
	whole, part := g.pays("alice", "bob", "7"), g.pays("alice", "bob", "3")
	g.do("PUT", "/api/v1/wallet/allowances/bob", alice, `{"amount":100}`).want(200)
	g.do("PUT", "/api/v1/wallet/allowances/eve", alice, `{"amount":100}`).want(200)

	for _, try := range []struct{ name, key, path, body string }{
		{"transfer to the issuer", alice, "/wallet/transfer", `{"to_agent_id":"bob","amount":1}`},
		{"transfer to a friend", alice, "/wallet/transfer", `{"to_agent_id":"eve","amount":1}`},
		{"transfer to the credit", alice, "/wallet/transfer", `{"to_agent_id":"credit:` + back + `","amount":1}`},
		{"transfer to the source of credit", alice, "/wallet/transfer", `{"to_agent_id":"credits","amount":1}`},
		{"debit by the issuer", bob, "/wallet/debit", `{"agent_id":"alice","amount":1}`},
		{"debit by a friend", eve, "/wallet/debit", `{"agent_id":"alice","amount":1}`},
		{"debit of the credit's account", bob, "/wallet/debit", `{"agent_id":"credit:` + credit + `","amount":1}`},
		{"debit by the operator", operatorKey, "/wallet/debit", `{"agent_id":"alice","to_agent_id":"eve","amount":1}`},
		{"withdrawal", operatorKey, "/wallet/withdraw", `{"agent_id":"alice","amount":1}`},
		{"withdrawal of the credit", operatorKey, "/wallet/withdraw", `{"agent_id":"` + credit + `","amount":1}`},
		{"withdrawal of the source of credit", operatorKey, "/wallet/withdraw", `{"agent_id":"credits","amount":1}`},
		{"withdrawal by the issuer", operatorKey, "/wallet/withdraw", `{"agent_id":"bob","amount":1}`},
		{"escrow to the issuer", alice, "/escrow", `{"to_agent_id":"bob","amount":1}`},
		{"escrow to a friend", alice, "/escrow", `{"to_agent_id":"eve","amount":1}`},
		{"subscription to the issuer", alice, "/subscriptions", `{"to_agent_id":"bob","amount":1,"period_hours":1}`},
		{"subscription to a friend", alice, "/subscriptions", `{"to_agent_id":"eve","amount":1,"period_hours":1}`},
		{"refund beyond the charge", bob, "/charges/" + whole + "/refund", `{"amount":8}`},
		{"refund by the holder", alice, "/charges/" + whole + "/refund", `{"amount":1}`},
		{"credit passed on by its holder", alice, "/credits", `{"payee":"bob","agent_id":"eve","amount":1}`},
	} {
		if a := g.post(try.path, try.key, try.body); a.status < 400 || a.status >= 500 {
			t.Errorf("%s: %d %s", try.name, a.status, a.text)
		}
	}
	if _, err := g.callWithCredit("alice", "eve", "1"); !escrow.IsRefusal(err, escrow.InsufficientFunds) {
		t.Errorf("a call to another payee: %v", err)
	}
	if _, err := g.callWithCredit("eve", "bob", "1"); !escrow.IsRefusal(err, escrow.InsufficientFunds) {
		t.Errorf("a call by another agent: %v", err)
	}
	// A refund in parts gives back no nano of money that was not paid.
	for range 3 {
		g.post("/charges/"+part+"/refund", bob, `{"amount":0.000000001}`).want(200)
	}
	g.post("/charges/"+part+"/refund", bob, `{}`).want(200, "credit_refunded", "3")
	g.post("/charges/"+part+"/refund", bob, `{}`).want(409)
	g.post("/charges/"+whole+"/refund", operatorKey, `{}`).want(200, "credit_refunded", "7")
	g.post("/credits/"+credit+"/revoke", bob, "").want(200, "ended", "100")
	for _, key := range []string{alice, bob, eve} {
		g.get("/wallet", key).want(200, "balance", "0", "available", "0", "pending", "0")
		if g.get("/wallet/entries", key).str("entries") != "[]" {
			t.Errorf("money moved: %s", g.get("/wallet/entries", key).text)
		}
	}
	g.sound()
}

// TestAnIssuerHindersNobodyElse: absurd amounts of credit harm nobody but their issuer.
func TestAnIssuerHindersNobodyElse(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, bob, eve := g.agent("alice", "0"), g.agent("bob", "0"), g.agent("eve", "0")
	most := `{"agent_id":"alice","amount":9223372036.854775807}`
	id := g.post("/credits", eve, most).want(201).str("credit_id")
	g.post("/credits", eve, `{"agent_id":"alice","amount":1}`).want(422)
	g.post("/credits", bob, most).want(201)
	g.pays("alice", "bob", "1")
	g.pays("alice", "eve", "9223372036.854775807")
	g.get("/wallet", alice).want(200, "balance", "0", "credit.0.payee", "bob", "credit.0.available", "9223372035.854775807")
	g.get("/credits/"+id, alice).want(200, "used", "9223372036.854775807", "remaining", "0")
	g.sound()
}
