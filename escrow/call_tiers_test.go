package escrow

import (
	"testing"
	"time"
)

// Periods follow the calendar in UTC. Weeks begin on Monday.
func TestPeriodsOfCounters(t *testing.T) {
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for _, test := range []struct {
		each, a, b string
		same       bool
	}{
		{"day", "2026-11-24T00:00:00Z", "2026-11-24T23:59:59Z", true},
		{"day", "2026-11-24T23:59:59Z", "2026-11-25T00:00:00Z", false},
		{"day", "2026-11-25T00:30:00+02:00", "2026-11-24T12:00:00Z", true},
		{"week", "2026-11-23T00:00:00Z", "2026-11-29T23:59:59Z", true}, // Monday to Sunday
		{"week", "2026-11-22T23:59:59Z", "2026-11-23T00:00:00Z", false},
		{"week", "2026-12-31T12:00:00Z", "2027-01-01T12:00:00Z", true},
		{"month", "2026-02-01T00:00:00Z", "2026-02-28T23:59:59Z", true},
		{"month", "2026-02-28T23:59:59Z", "2026-03-01T00:00:00Z", false},
		{"month", "2026-11-30T00:00:00Z", "2027-11-30T00:00:00Z", false},
		{"month", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z", false},
	} {
		c := Counter{Each: test.each}
		if same := c.Period(at(test.a)) == c.Period(at(test.b)); same != test.same {
			t.Errorf("%s: %s and %s: the same period: %v", test.each, test.a, test.b, same)
		}
	}
}
