package escrow

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Term is the length of a period: a duration, or a number of calendar months.
type Term struct {
	Length time.Duration
	Months int // above 0: calendar months, and Length is 0
}

const maxMonths = 120

// ParseTerm reads a term such as "168h", "1mo", "daily", "weekly" or "monthly". parse reads a duration.
func ParseTerm(text string, parse func(string) (time.Duration, error)) (Term, error) {
	switch text {
	case "daily":
		return Term{Length: 24 * time.Hour}, nil
	case "weekly":
		return Term{Length: 7 * 24 * time.Hour}, nil
	case "monthly":
		return Term{Months: 1}, nil
	}
	if digits, is := strings.CutSuffix(text, "mo"); is {
		n, err := strconv.Atoi(digits)
		if err != nil || n < 1 || n > maxMonths {
			return Term{}, fmt.Errorf("%q: expected a number of months from 1mo to %dmo", text, maxMonths)
		}
		return Term{Months: n}, nil
	}
	length, err := parse(text)
	if err != nil || length <= 0 {
		return Term{}, fmt.Errorf("%q: expected a duration such as 168h, or calendar months such as 1mo", text)
	}
	return Term{Length: length}, nil
}

// String returns the term as ParseTerm reads it.
func (t Term) String() string {
	if t.Months > 0 {
		return strconv.Itoa(t.Months) + "mo"
	}
	return Period(t.Length)
}

// Term returns the length of the plan's periods.
func (p Plan) Term() Term { return Term{p.Period, p.Months} }

// after returns the end of the n-th period after the anchor. Months end on the anchor's day, or on the last day of a month without that day:
// periods from 31 January end on 28 February, on 31 March, on 30 April.
func (t Term) after(anchor time.Time, n int) time.Time {
	if t.Months == 0 {
		return anchor.Add(time.Duration(n) * t.Length)
	}
	anchor = anchor.UTC()
	end := anchor.AddDate(0, n*t.Months, 0)
	if end.Day() != anchor.Day() { // the month is too short, so AddDate went on into the next one
		end = end.AddDate(0, 0, -end.Day())
	}
	return end
}

// setPeriod sets the period that begins at start: the next one of a series, or the first of a new one.
func (s *Subscription) setPeriod(start time.Time) {
	if s.Anchor.IsZero() || !start.Equal(s.PeriodEnd) {
		s.Anchor, s.SinceAnchor = start, 0
	}
	s.SinceAnchor++
	s.PeriodStart, s.PeriodEnd = start, s.Plan.Term().after(s.Anchor, s.SinceAnchor)
	if s.Plan.Months == 0 {
		s.PeriodEnd = start.Add(s.Plan.Period)
	}
}
