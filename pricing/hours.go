package pricing

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Hours are times of the day in a named zone, on all days or on some: `mon-fri 09:00-18:00 Europe/Berlin`. If they end before they begin,
// they go on past midnight: `fri 22:00-06:00 UTC` ends on Saturday morning. In JSON they are the same text.
type Hours struct {
	words    string
	days     [7]bool // by time.Weekday: the days on which they begin
	from, to int     // minutes of the day; to is at most 24:00
	zone     *time.Location
}

// ParseHours reads the words [DAYS] HH:MM-HH:MM ZONE. DAYS are days and ranges of days with commas between them: mon-fri,sun. ZONE is a
// name of the IANA database, such as UTC or Asia/Shanghai.
func ParseHours(args []string) (Hours, error) {
	const expected = "expected [DAYS] HH:MM-HH:MM ZONE, as in mon-fri 09:00-18:00 Europe/Berlin"
	h := Hours{words: strings.Join(args, " ")}
	days := "mon-sun"
	if len(args) == 3 {
		days, args = args[0], args[1:]
	}
	if len(args) != 2 {
		return Hours{}, fmt.Errorf("hours %q: %s", h.words, expected)
	}
	var err error
	if h.days, err = parseDays(days); err != nil {
		return Hours{}, fmt.Errorf("%w: %s", err, expected)
	}
	from, to, _ := strings.Cut(args[0], "-")
	var ok [2]bool
	h.from, ok[0] = parseClock(from)
	h.to, ok[1] = parseClock(to)
	if ok != [2]bool{true, true} || h.from == h.to || h.from == minutesOfDay {
		return Hours{}, fmt.Errorf("hours %q: %s", args[0], expected)
	}
	if h.zone, err = zoneNamed(args[1]); err != nil {
		return Hours{}, err
	}
	return h, nil
}

const minutesOfDay = 24 * 60

// zoneNamed finds a zone of the IANA database. It refuses the machine's own zone, because prices must not change with the machine.
func zoneNamed(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return nil, fmt.Errorf("time zone %q is not known: use a name such as UTC, Europe/Berlin or Asia/Shanghai", name)
	}
	return zone, nil
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func parseDays(words string) (days [7]bool, err error) {
	for part := range strings.SplitSeq(strings.ToLower(words), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, to := slices.Index(weekdays, first), slices.Index(weekdays, last)
		if from < 0 || to < 0 {
			return days, fmt.Errorf("days %q: use %s, and ranges such as mon-fri", words, strings.Join(weekdays, ", "))
		}
		for d := from; ; d = (d + 1) % 7 {
			days[d] = true
			if d == to {
				break
			}
		}
	}
	return days, nil
}

// parseClock reads HH:MM, from 00:00 to 24:00, as minutes.
func parseClock(word string) (minutes int, ok bool) {
	hour, minute, found := strings.Cut(word, ":")
	if !found || len(hour) != 2 || len(minute) != 2 || !allDigits(hour+minute) {
		return 0, false
	}
	h, _ := strconv.Atoi(hour)
	m, _ := strconv.Atoi(minute)
	minutes = h*60 + m
	return minutes, m < 60 && minutes <= minutesOfDay
}

// Hold reports whether a time is within the hours.
func (h Hours) Hold(at time.Time) bool {
	local := at.In(h.zone)
	minute, day := local.Hour()*60+local.Minute(), local.Weekday()
	if h.from < h.to {
		return h.days[day] && h.from <= minute && minute < h.to
	}
	yesterday := (day + 6) % 7
	return h.days[day] && minute >= h.from || h.days[yesterday] && minute < h.to
}

// String returns the text that [ParseHours] reads.
func (h Hours) String() string { return h.words }

// IsZero reports whether there are no hours, so that any time is right.
func (h Hours) IsZero() bool { return h.zone == nil }

// MarshalText returns the text that [ParseHours] reads.
func (h Hours) MarshalText() ([]byte, error) { return []byte(h.words), nil }

// UnmarshalText reads the text with [ParseHours].
func (h *Hours) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		return errors.New("hours without words: leave them out for any time")
	}
	*h, err = ParseHours(strings.Fields(string(text)))
	return err
}
