package escrow_test

import (
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

func TestParsePercent(t *testing.T) {
	for text, want := range map[string]int64{"1%": 10_000, "0.25%": 2_500, "1": 10_000, " 0% ": 0, "100%": 1_000_000, "0.0001%": 1, "33.3333%": 333_333} {
		if got, err := escrow.ParsePercent(text); err != nil || got != want {
			t.Errorf("%q is %d parts per million (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "x", "-1%", "100.0001%", "0.00001%", "1e999999999%", "1%%", "NaN"} {
		if got, err := escrow.ParsePercent(text); err == nil {
			t.Errorf("%q is taken for %d parts per million", text, got)
		}
	}
}

func TestJudge(t *testing.T) {
	tiers := []escrow.Tier{{AtLeast: "0.9", Verdict: verdict("100%")}, {AtLeast: "0.7", Verdict: verdict("70%")}, {Verdict: verdict("dispute")}}
	for score, want := range map[string]string{"1": "100%", "0.9": "100%", "9e-1": "100%", "0.8999999": "70%", "0.7": "70%", "0.69": "dispute", "-5": "dispute", "0": "dispute"} {
		if got, ok := escrow.Judge(tiers, score); !ok || got != verdict(want) {
			t.Errorf("%q comes to %+v, want %s", score, got, want)
		}
	}
	for _, score := range []string{"", "good", "NaN", "1e999999999", "1e-999999999", "Infinity", "0x1"} {
		if got, ok := escrow.Judge(tiers, score); ok {
			t.Errorf("%q comes to %+v", score, got)
		}
	}
	if _, ok := escrow.Judge(tiers[:2], "0.1"); ok {
		t.Error("a score below all tiers has a verdict")
	}
}

func FuzzJudge(f *testing.F) {
	f.Add("0.75")
	f.Add("1e999999999")
	tiers := []escrow.Tier{{AtLeast: "0.9", Verdict: verdict("100%")}, {Verdict: verdict("0%")}}
	f.Fuzz(func(t *testing.T, score string) {
		if v, ok := escrow.Judge(tiers, score); ok && v.Share != 0 && v.Share != 1_000_000 {
			t.Fatalf("%q comes to %+v", score, v)
		}
	})
}
