package escrow

import (
	"errors"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Counter identifies a count of what a payer has used from a payee in a period. Prices with tiers depend on it.
type Counter struct {
	Name string
	Each string // "day", "week" (from Monday) or "month", by the calendar in UTC
}

// Period returns the number of the period in which a time is.
func (c Counter) Period(at time.Time) int64 {
	at = at.UTC()
	days := at.Unix() / (24 * 60 * 60)
	switch c.Each {
	case "day":
		return days
	case "week":
		return (days + 3) / 7 // 1970 began on a Thursday
	default:
		return int64(at.Year())*12 + int64(at.Month())
	}
}

// Use is what a call adds to a counter, in millionths of a unit.
type Use struct {
	Counter
	Units int64
}

// Priced is the price of a call, which depends on what was used before it.
type Priced struct {
	Amount     ledger.Amount
	Units      map[string]string // as in a [Settlement]
	UnitPrices map[string]string
	Uses       []Use
	Suspect    bool
}

// useRecord is how much of a counter was used in its last period.
type useRecord struct {
	Period int64 `cbor:"1,keyasint"`
	Units  int64 `cbor:"2,keyasint"`
}

// Used returns how much of a counter a payer has used in the current period, in millionths of a unit.
func (b *Book) Used(payer, payee string, c Counter) (units int64, err error) {
	err = b.view(func(r ledger.Reader) error {
		units, err = usedOf(r, payer, payee, c, b.Now())
		return err
	})
	return units, err
}

func usedOf(r ledger.Reader, payer, payee string, c Counter, now time.Time) (int64, error) {
	var u useRecord
	if _, err := load(r, useTable.key(payer, payee, c.Each, c.Name), &u); err != nil || u.Period != c.Period(now) {
		return 0, err
	}
	return u.Units, nil
}

// maxUse is the highest value of a counter, so that sums do not overflow.
const maxUse = int64(1) << 61

// priceTiers computes the price of an ended call from what was used before it, and counts what the call used.
func (t *Tx) priceTiers(c *Charge, s *Settlement) error {
	var failed error
	p := s.Price(func(of Counter) int64 {
		units, err := usedOf(t.ledger, c.Payer, c.Payee, of, t.Now())
		failed = errors.Join(failed, err)
		return units
	})
	if failed != nil {
		return failed
	}
	s.Amount, s.Units, s.UnitPrices = p.Amount, p.Units, p.UnitPrices
	s.Suspect = s.Suspect || p.Suspect
	if c.Payer == "" {
		return nil // nobody known made the call
	}
	for _, use := range p.Uses {
		before, err := usedOf(t.ledger, c.Payer, c.Payee, use.Counter, t.Now())
		if err != nil {
			return err
		}
		after := useRecord{Period: use.Period(t.Now()), Units: min(before+min(max(use.Units, 0), maxUse), maxUse)}
		if err := t.put(useTable.key(c.Payer, c.Payee, use.Each, use.Name), after); err != nil {
			return err
		}
	}
	return nil
}
