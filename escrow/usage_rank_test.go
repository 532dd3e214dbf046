package escrow

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// countingReader counts the records that are read.
type countingReader struct {
	ledger.Reader
	records int
}

func (r *countingReader) Get(key []byte) ([]byte, error) {
	r.records++
	return r.Reader.Get(key)
}

func (r *countingReader) Scan(of ledger.Range, fn func(key, value []byte) (bool, error)) error {
	return r.Reader.Scan(of, func(key, value []byte) (bool, error) {
		r.records++
		return fn(key, value)
	})
}

// TestRanksReadFew: the largest payers are read at the same cost, however many payers there are, and they are the largest.
func TestRanksReadFew(t *testing.T) {
	read := map[int]int{}
	for _, payers := range []int{20, 2000} {
		l, err := ledger.New(ledgertest.NewStore(), ledger.Options{Currency: "USDC"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		b := New(l, Rules{})
		at := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
		_, err = Do(context.Background(), b, func(tx *Tx) (struct{}, error) {
			sums := sums{}
			for i := range payers {
				c := Charge{Payer: fmt.Sprintf("payer-%d", i), Payee: "shop", Amount: ledger.Amount(i+1) * ledger.Unit, CreatedAt: at}
				for _, party := range c.usageParties() {
					u := c.usageFor(party)
					sums.addCharge(party, c, u, u)
				}
			}
			return struct{}{}, tx.write(sums)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, agent := range []string{"", "shop"} {
			of := sumOf{view: viewPayers, agent: agent, at: viewPayers.floor(at).Unix()}
			err = b.view(func(r ledger.Reader) error {
				counting := &countingReader{Reader: r}
				first, err := firstRanked(counting, of, 5)
				if err != nil {
					return err
				}
				for i, payer := range first {
					of.group = of.view.partyGroup(payer)
					u, err := totalOf(counting, of)
					if err != nil {
						return err
					}
					if want := ledger.Amount(payers-i) * ledger.Unit; payer != fmt.Sprintf("payer-%d", payers-i-1) || u.Earned != want {
						t.Errorf("payer %d of %d is %s with %s", i, payers, payer, u.Earned)
					}
				}
				read[payers] += counting.records
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if read[20] != read[2000] || read[20] != 20 {
		t.Errorf("for two lists of 5, %d records are read of 20 payers, and %d of 2000", read[20], read[2000])
	}
}
