package api_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// exit is a request that lets 5 of alice's money go to bob, by a key of alice's that may pay bob this much.
type exit struct {
	operation string
	set       func(h *household) (path, body string) // the path is below /api/v1
	later     func(h *household) bool                // what takes the 5 then; nil: the request does. True where it was taken
}

// household is alice, with a key that is limited to 1 a day, and a key that may pay only eve.
type household struct {
	*gate
	alice, bob, eve, limited, bound string
}

func newHousehold(t testing.TB) *household {
	h := &household{gate: newGate(t, rules(), api.Options{Price: unitEach})}
	h.alice, h.bob, h.eve = h.agent("alice", "100"), h.agent("bob", "50"), h.agent("eve", "50")
	made := h.post("/agents/me/keys", h.alice, `{}`).want(201)
	h.limited = made.str("api_key")
	h.do("PUT", "/api/v1/limits", h.alice, `{"limits":[{"key_id":"`+made.str("key_id")+`","amount":1,"window_hours":24}]}`).want(200)
	h.bound = h.post("/agents/me/keys", h.alice, `{"payees":["eve"]}`).want(201).str("api_key")
	return h
}

// lock is an escrow of 5.
func (h *household) lock(key, to, more string) string {
	return h.post("/escrow", key, `{"to_agent_id":"`+to+`","amount":5`+more+`}`).want(201).str("escrow_id")
}

// exits are the requests that let money go, with the operations of the API for which they stand.
var exits = []exit{
	{operation: "createEscrow", set: func(*household) (string, string) { return "/escrow", `{"to_agent_id":"bob","amount":5}` }},
	{operation: "openHold", set: func(*household) (string, string) { return "/holds", `{"to_agent_id":"bob","amount":5}` }},
	{operation: "setAllowance", set: func(*household) (string, string) { return "/wallet/allowances/bob", `{"amount":5}` }, later: func(h *household) bool {
		return h.post("/holds", h.bob, `{"from_agent_id":"alice","amount":5}`).status == 201
	}},
	{operation: "setAllowance", set: func(*household) (string, string) { return "/wallet/allowances/bob", `{"amount":5}` }, later: func(h *household) bool {
		return h.post("/charges", h.bob, `{"payer":"alice","route":"/jobs","reference":"one","units":{"job":5}}`).status == 201
	}},
	{operation: "transfer", set: func(*household) (string, string) { return "/wallet/transfer", `{"to_agent_id":"bob","amount":5}` }},
	{operation: "debit", set: func(*household) (string, string) {
		return "/wallet/debit", `{"agent_id":"alice","to_agent_id":"bob","amount":5}`
	}},
	{operation: "setAllowance", set: func(*household) (string, string) { return "/wallet/allowances/bob", `{"amount":5}` }, later: func(h *household) bool {
		return h.post("/wallet/debit", h.bob, `{"agent_id":"alice","amount":5}`).status == 200
	}},
	{operation: "releaseEscrow", set: func(h *household) (string, string) {
		return "/escrow/" + h.lock(h.alice, "bob", "") + "/release", ``
	}},
	{operation: "releasePartial", set: func(h *household) (string, string) {
		return "/escrow/" + h.lock(h.alice, "bob", "") + "/release-partial", `{"amount":5}`
	}},
	{operation: "releasePartial", set: func(h *household) (string, string) {
		return "/escrow/" + h.lock(h.alice, "bob", `,"milestones":[{"name":"all","amount":5}]`) + "/release-partial", `{"milestone":"all"}`
	}},
	{operation: "refundEscrow", set: func(h *household) (string, string) {
		return "/escrow/" + h.lock(h.bob, "alice", "") + "/refund", `{"amount":5}`
	}},
	{operation: "withdrawRefund", set: func(h *household) (string, string) {
		id := h.lock(h.alice, "bob", `,"auto_release_hours":1`)
		h.post("/escrow/"+id+"/refund", h.alice, ``).want(200)
		return "/escrow/" + id + "/refund", ``
	}},
	{operation: "createSubscription", set: func(*household) (string, string) {
		return "/subscriptions", `{"to_agent_id":"bob","amount":5,"period_hours":1}`
	}},
	{operation: "resumeSubscription", set: func(h *household) (string, string) {
		id := h.post("/subscriptions", h.alice, `{"to_agent_id":"bob","amount":5,"period_hours":1}`).want(201).str("subscription_id")
		h.post("/wallet/withdraw", operatorKey, `{"agent_id":"alice","amount":95}`).want(200)
		h.wait(time.Hour)
		h.post("/wallet/deposit", operatorKey, `{"agent_id":"alice","amount":95}`).want(200)
		return "/subscriptions/" + id + "/resume", ``
	}},
	{operation: "cancelSubscription", set: func(h *household) (string, string) {
		id := h.post("/subscriptions", h.alice, `{"to_agent_id":"bob","amount":10,"period_hours":2}`).want(201).str("subscription_id")
		h.wait(time.Hour)
		return "/subscriptions/" + id + "/cancel", ``
	}},
	{operation: "refundCharge", set: func(h *household) (string, string) {
		return "/charges/" + h.call("bob", "alice", "5") + "/refund", ``
	}},
	{operation: "scoreCharge", set: func(h *household) (string, string) {
		id := h.book.NewRequestID()
		a, err := h.book.Authorise(h.t.Context(), escrow.CallOrder{Request: id, By: escrow.Actor{Agent: "alice"}, Payee: "bob", Least: 5 * ledger.Unit})
		must(h.t, err)
		_, err = a.Settle(h.t.Context(), escrow.Settlement{Amount: 5 * ledger.Unit, Quality: &escrow.Quality{Hold: true, Decision: &escrow.Decision{
			ByPayer: true, Tiers: []escrow.Tier{{Verdict: escrow.Verdict{Share: 1_000_000}}},
		}}})
		must(h.t, err)
		return "/charges/" + id + "/quality", `{"score":1}`
	}},
}

// stays are the operations that change something but let no money go, with the reason.
var stays = map[string]string{
	"createAgent": "another agent has nothing of alice's", "createKey": "refused to keys with a limit or bound to payees", "revokeKey": "it ends a key",
	"changeAgent": "a name is no money", "changeKey": "refused to keys with a limit or bound to payees", "rotateKey": "the key keeps its limits and payees",
	"setAgentLimits": "the operator's", "suspendAgent": "the operator's", "resumeAgent": "the operator's", "closeAgent": "the operator's",
	"claimFaucet": "money comes in", "deleteAllowance": "it takes a promise back", "disputeEscrow": "the operator decides", "disputeCharge": "the operator decides", "withdrawDispute": "the money was paid already", "resolveCharge": "the operator's", "deliverMilestone": "the payer accepts it or not",
	"captureHold": "the caller is paid, of what counted when the hold was opened", "voidHold": "what was not captured was never the payee's", "reportCharge": "the caller is paid",
	"endSubscription": "no further period is paid", "setLimits": "refused to keys with a limit or bound to payees", "createWebhook": "messages carry no money",
	"deleteWebhook": "messages carry no money", "testWebhook": "messages carry no money", "resendMessage": "messages carry no money", "quote": "it reads", "deposit": "the operator's", "withdraw": "the operator's", "resolveEscrow": "the operator's",
	"createCheckout": "money comes in", "setTopUp": "money comes in, and refused to keys with a limit or bound to payees", "deleteTopUp": "no money moves",
	"refundDeposit": "refused to keys with a limit or bound to payees", "createPayout": "refused to keys with a limit or bound to payees", "bookPayout": "the operator's", "refusePayout": "the operator's", "sendPayout": "the operator's",
	"issueCredit": "credit is no money, and refused to keys with a limit or bound to payees", "issueCoupon": "the same", "revokeCredit": "the same",
	"revokeCoupon": "the same", "redeemCoupon": "credit comes in",
}

// TestEveryRouteIsAnExitOrNone goes through all operations of the API: for each it must be decided whether it lets money go. With a key
// that is limited to 1, none of them lets 5 go; with a key that may pay only others, none does either. With the agent's own key they do.
func TestEveryRouteIsAnExitOrNone(t *testing.T) {
	isExit := map[string]bool{}
	for _, e := range exits {
		isExit[e.operation] = true
	}
	methods := map[string]string{}
	for _, o := range operations(t, map[string]string{}) {
		methods[o.id] = o.method
		if o.method != "GET" && !isExit[o.id] && stays[o.id] == "" {
			t.Errorf("%s %s: may it let money go? Enter it in exits or in stays", o.method, o.id)
		}
	}
	for _, e := range exits {
		for _, who := range []string{"limited", "bound", "alice"} {
			t.Run(e.operation+"/"+who, func(t *testing.T) {
				h := newHousehold(t)
				path, body := e.set(h)
				before := h.get("/wallet", h.bob).str("balance")
				key := map[string]string{"limited": h.limited, "bound": h.bound, "alice": h.alice}[who]
				a := h.do(methods[e.operation], "/api/v1"+path, key, body)
				taken := a.status < 300
				if e.later != nil {
					taken = e.later(h)
				} else if who == "limited" {
					a.want(402, "code", "limit_exceeded", "limit", "spending")
				}
				if who == "bound" {
					a.want(403, "code", "forbidden", "payee", "bob")
				}
				if taken != (who == "alice") {
					t.Errorf("by the %s key: %d %s", who, a.status, a.text)
				}
				if after := h.get("/wallet", h.bob).str("balance"); who != "alice" && after != before {
					t.Errorf("by the %s key bob got from %s to %s", who, before, after)
				}
			})
		}
	}
	e := newEstate(t)
	made := e.post("/agents/me/keys", e.alice, `{}`).want(201)
	e.do("PUT", "/api/v1/limits", e.alice, `{"limits":[{"key_id":"`+made.str("key_id")+`","amount":"0.1","window_hours":24}]}`).want(200)
	bound := e.post("/agents/me/keys", e.alice, `{"payees":["eve"]}`).want(201).str("api_key")
	has := func() string {
		locked := strings.Count(e.get("/escrow?status=active&role=payer", e.alice).want(200).text, "escrow_id")
		return fmt.Sprint(e.get("/wallet", e.bob).want(200).str("balance"), " ", e.get("/wallet", e.eve).want(200).str("balance"), " ", locked)
	}
	before := has()
	for _, o := range operations(t, e.own) {
		if o.method == "GET" || isExit[o.id] {
			continue
		}
		for _, key := range []string{made.str("api_key"), bound} {
			e.do(o.method, o.path, key, o.body)
		}
		if after := has(); after != before {
			t.Errorf("%s lets something go: %s, then %s", o.id, before, after)
		}
	}
}

// toolExits are the MCP tools that let money go, with their operations of the API.
var toolExits = map[string][]string{"escrow_create": {"createEscrow"}, "escrow_release": {"releaseEscrow", "releasePartial"}, "escrow_refund": {"refundEscrow"}, "wallet_transfer": {"transfer"}, "hold_open": {"openHold"}, "subscribe": {"createSubscription"}}

// toolStays are the MCP tools that don't.
var toolStays = strings.Fields("escrow_status escrow_list escrow_dispute escrow_resolve wallet_balance wallet_statement faucet_claim quote credit_issue credit_list credit_revoke coupon_issue coupon_list coupon_revoke coupon_redeem agent_register subscription_list subscription_end tariffs charges limits limits_set hold_status hold_list hold_capture hold_void charge_report checkout top_up_status top_up_set top_up_end deposit_list deposit_refund payout_request payout_list")

// TestEveryToolIsAnExitOrNone does the same for the MCP tools.
func TestEveryToolIsAnExitOrNone(t *testing.T) {
	h := newHousehold(t)
	server := httptest.NewServer(h.http)
	defer server.Close()
	listed, err := session(t, server.URL, h.alice).ListTools(t.Context(), nil)
	must(t, err)
	for _, tool := range listed.Tools {
		if toolExits[tool.Name] == nil && !strings.Contains(" "+strings.Join(toolStays, " ")+" ", " "+tool.Name+" ") {
			t.Errorf("%s: may it let money go? Enter it in toolExits or in toolStays", tool.Name)
		}
	}
	for name, operations := range toolExits {
		for _, e := range exits {
			if !strings.Contains(strings.Join(operations, " "), e.operation) {
				continue
			}
			for key, code := range map[string]string{h.limited: "limit_exceeded", h.bound: "forbidden", h.alice: ""} {
				path, body := e.set(h)
				arguments := map[string]any{}
				if body != "" {
					must(t, json.Unmarshal([]byte(body), &arguments))
				}
				if parts := strings.Split(path, "/"); len(parts) > 2 && parts[1] == "escrow" {
					arguments["escrow_id"] = parts[2]
				}
				a := use(t, session(t, server.URL, key), code != "", name, arguments)
				if code != "" {
					a.want(0, "code", code)
				}
			}
		}
	}
}
