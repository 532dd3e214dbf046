package escrow

import "testing"

// TestKindsOfOldRecords reads old records without a kind.
func TestKindsOfOldRecords(t *testing.T) {
	for want, e := range map[EscrowKind]Escrow{
		KindAgreed:     {},
		KindMilestones: {Milestones: []Milestone{{Name: "draft"}}},
		KindMeter:      {ByMeter: true},
		KindPeriod:     {Subscription: "sub_1"},
		KindOverage:    {Subscription: "sub_1", ByMeter: true},
		KindQuality:    {Request: "req_1", ByMeter: true},
	} {
		if got := e.kind(); got != want {
			t.Errorf("%+v: %s, want %s", e, got, want)
		}
	}
}
