package caddymodule_test

import (
	"strings"
	"testing"
)

// TestMaxChargeOfAMeter checks max_charge: the output limit of a request is lowered to it, and a call whose input alone costs more is refused. The
// caller's own limit can only be lower.
func TestMaxChargeOfAMeter(t *testing.T) {
	t.Parallel()
	up := &chat{}
	s := openShop(t, chatPrices, strings.Replace(chatSite, "tariff chat", "tariff chat\n\t\t\tmax_charge 0.01", 1), up)
	key := s.agent("alice", "1")
	a := s.do("POST", chatCompletions, key, chatBody)
	want(t, "charge", a.header.Get("Tallygate-Charge"), chatCharge)
	if !strings.Contains(up.gotBody, `"max_`) {
		t.Errorf("the answer is not cut to what it may cost: %s", up.gotBody)
	}
	higher := s.do("POST", chatCompletions, key, chatBody, "Tallygate-Max-Charge", "5")
	want(t, "charge under a higher bound of the caller's", higher.header.Get("Tallygate-Charge"), chatCharge)
	if !strings.Contains(up.gotBody, `"max_`) {
		t.Errorf("the caller lifts the provider's bound: %s", up.gotBody)
	}
	wantProblem(t, s.do("POST", chatCompletions, key, chatBody, "Tallygate-Max-Charge", "0.00002"), 402, "limit_exceeded")

	tight := openShop(t, chatPrices, strings.Replace(chatSite, "tariff chat", "tariff chat\n\t\t\tmax_charge 0.00002", 1), up)
	wantProblem(t, tight.do("POST", chatCompletions, tight.agent("bob", "1"), chatBody), 402, "limit_exceeded")
}
