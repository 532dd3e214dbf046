package escrow_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

// BenchmarkCall is one metered call, authorised and settled, on a file that syncs.
func BenchmarkCall(b *testing.B) {
	for _, from := range []escrow.Funding{escrow.FromWallet, escrow.FromEscrow} {
		for _, callers := range []int{1, 8, 64, 512} {
			name := map[escrow.Funding]string{escrow.FromWallet: "wallet", escrow.FromEscrow: "escrow"}[from]
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) { benchmarkCalls(b, from, callers) })
		}
	}
}

func benchmarkCalls(b *testing.B, from escrow.Funding, callers int) {
	store, err := bolt.Open(filepath.Join(b.TempDir(), "ledger.db"), bolt.Options{})
	must(b, err)
	l, err := ledger.New(store, ledger.Options{Currency: "USDC"})
	must(b, err)
	defer l.Close()
	s := &shop{Book: escrow.New(l, defaultRules()), t: b}
	s.agents("0", "shop")
	for i := range callers {
		s.agents("1000000", fmt.Sprintf("payer%d", i))
	}
	call := func(payer string) {
		a, err := s.Authorise(context.Background(), escrow.CallOrder{
			Request: s.NewRequestID(), By: by(payer), Payee: "shop", Least: 1000, From: from, Open: amount("100000"),
		})
		if err == nil {
			_, err = a.Settle(context.Background(), escrow.Settlement{Amount: 1000, Units: map[string]string{"call": "1"}, UnitPrices: map[string]string{"call": "0.000001"}, Source: "stated", Cut: "none"})
		}
		if err != nil {
			b.Error(err)
		}
	}
	work := make(chan struct{}, b.N)
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range work {
				call(fmt.Sprintf("payer%d", i))
			}
		}()
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkAuthorise authorises calls, which writes nothing.
func BenchmarkAuthorise(b *testing.B) {
	s := &shop{t: b, clock: newClock(), path: filepath.Join(b.TempDir(), "ledger.db"), way: ways["once"]}
	s.open(defaultRules())
	defer s.Ledger().Close()
	s.agents("1000", "alice")
	s.agents("0", "shop")
	b.ReportAllocs()
	for b.Loop() {
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: "req_1", By: by("alice"), Payee: "shop", Least: 1000})
		must(b, err)
		a.Cancel()
	}
}
