package pricing

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestHours(t *testing.T) {
	tests := []struct {
		words string
		in    string // times at which they hold, as day hh:mm zone of the week of 2026-11-23, a Monday
		out   string
	}{
		{"16:30-00:30 UTC", "mon 16:30, mon 23:59, tue 00:00, tue 00:29, sun 16:30, mon 00:29", "mon 16:29, tue 00:30, mon 12:00"},
		{"00:00-24:00 UTC", "mon 00:00, sun 23:59", ""},
		{"09:00-18:00 UTC", "mon 09:00, mon 17:59", "mon 08:59, mon 18:00"},
		{"mon-fri 09:00-18:00 UTC", "mon 09:00, fri 17:59", "sat 12:00, sun 12:00, mon 18:00"},
		{"fri 22:00-06:00 UTC", "fri 22:00, sat 05:59", "fri 05:59, sat 06:00, sat 22:00, thu 23:00"},
		{"sat-mon,wed 12:00-13:00 UTC", "sat 12:00, sun 12:30, mon 12:59, wed 12:00", "tue 12:00, thu 12:00, fri 12:00, wed 13:00"},
		{"SAT,Sun 00:00-24:00 UTC", "sat 00:00, sun 23:59", "fri 23:59, mon 00:00"},
		{"sun 23:00-01:00 UTC", "sun 23:00, mon 00:59", "mon 23:00, sun 00:30"},
		{"09:00-10:00 Asia/Shanghai", "mon 01:00, mon 01:59", "mon 00:59, mon 09:00"},
		{"mon 00:00-01:00 Asia/Shanghai", "sun 16:00, sun 16:59", "mon 00:00, mon 16:30"},
		{"09:00-10:00 Europe/Berlin", "mon 08:00", "mon 07:59, mon 09:00"},
	}
	for _, test := range tests {
		h, err := ParseHours(strings.Fields(test.words))
		if err != nil {
			t.Errorf("%s: %v", test.words, err)
			continue
		}
		for want, list := range map[bool]string{true: test.in, false: test.out} {
			for at := range strings.SplitSeq(list, ", ") {
				if at == "" {
					continue
				}
				if when := inWeek(t, at); h.Hold(when) != want {
					t.Errorf("%s at %s: %v", test.words, at, !want)
				}
			}
		}
		var again Hours
		data, err := json.Marshal(h)
		if err == nil {
			err = json.Unmarshal(data, &again)
		}
		if err != nil || again.String() != test.words {
			t.Errorf("%s was read as %s, %v", data, again, err)
		}
	}
}

// inWeek is a time such as "mon 16:30", UTC.
func inWeek(t *testing.T, words string) time.Time {
	t.Helper()
	day, clock, _ := strings.Cut(words, " ")
	at, err := time.Parse("15:04", clock)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		if d := time.Date(2026, 11, 23+i, at.Hour(), at.Minute(), 30, 0, time.UTC); strings.HasPrefix(strings.ToLower(d.Weekday().String()), day) {
			return d
		}
	}
	t.Fatalf("no day %q", day)
	return time.Time{}
}

// A night in which the clocks are changed has its hours by the wall clock.
func TestHoursWhenClocksChange(t *testing.T) {
	h, err := ParseHours([]string{"02:00-04:00", "Europe/Berlin"})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"2026-03-29T00:59:00Z": false, // 01:59; the next minute is 03:00
		"2026-03-29T01:00:00Z": true,
		"2026-03-29T01:59:00Z": true,
		"2026-03-29T02:00:00Z": false, // 04:00
		"2026-10-24T23:59:00Z": false, // 01:59
		"2026-10-25T00:00:00Z": true,  // 02:00, summer time
		"2026-10-25T02:59:00Z": true,  // 03:59, winter time
		"2026-10-25T03:00:00Z": false,
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil || h.Hold(at) != want {
			t.Errorf("%s: %v, %v", text, h.Hold(at), err)
		}
	}
}

func TestHoursThatAreNone(t *testing.T) {
	for _, words := range []string{
		"", "09:00-18:00", "UTC", "9:00-18:00 UTC", "09:00-18:00 Local", "09:00-18:00 Nowhere/City", "09:00-18:60 UTC", "25:00-26:00 UTC",
		"24:00-06:00 UTC", "09:00-09:00 UTC", "09:00 UTC", "09:00-24:01 UTC", "mo-fr 09:00-18:00 UTC", "mon- 09:00-18:00 UTC", "mon fri 09:00-18:00 UTC",
		"-1:00-02:00 UTC", "09:00-18:00 ../../etc/passwd",
	} {
		if h, err := ParseHours(strings.Fields(words)); err == nil {
			t.Errorf("%q was read as %v", words, h)
		}
	}
	var h Hours
	for _, data := range []string{`""`, `"nine to five"`, `5`} {
		if err := json.Unmarshal([]byte(data), &h); err == nil {
			t.Errorf("%s is taken", data)
		}
	}
}
