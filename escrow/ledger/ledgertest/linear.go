package ledgertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tallygate/tallygate/escrow/ledger"
)

const linearClients = 5

// purse is the sequential model of one wallet.
type purse struct {
	balance ledger.Amount
	holds   [linearClients]ledger.Amount
}

func (p purse) free() ledger.Amount {
	free := p.balance
	for _, h := range p.holds {
		free -= h
	}
	return free
}

// wish is a call of one client on the wallet. A client has at most one hold.
type wish struct {
	client int
	what   string
	amount ledger.Amount
}

// granted is the answer to a call: whether it was done, and with which amount.
type granted struct {
	done   bool
	amount ledger.Amount
}

// step returns the answer to a call, and the wallet after it.
func (p purse) step(w wish) (granted, purse) {
	own := p.holds[w.client]
	switch w.what {
	case "deposit":
		p.balance += w.amount
	case "pay":
		if w.amount > p.free() {
			return granted{}, p
		}
		p.balance -= w.amount
	case "hold":
		if w.amount > p.free() {
			return granted{}, p
		}
		p.holds[w.client] = w.amount
	case "extend":
		by := max(0, min(w.amount, p.free()))
		p.holds[w.client] += by
		return granted{true, by}, p
	case "settle":
		if w.amount > p.free()+own {
			return granted{}, p
		}
		p.balance -= w.amount
		p.holds[w.client] -= min(own, w.amount)
	case "release":
		p.holds[w.client] = 0
	}
	return granted{done: true}, p
}

var purseModel = porcupine.Model{
	Init: func() any { return purse{} },
	Step: func(state, input, output any) (bool, any) {
		answer, next := state.(purse).step(input.(wish))
		return answer == output.(granted), next
	},
}

// testLinear lets clients use one wallet concurrently, and checks that their answers are linearizable: as if the calls had been made one
// after another. The environment variable TALLYGATE_LINEAR sets the number of histories for long runs.
func testLinear(t *testing.T, p Place) {
	if p.Strays {
		t.Skip("this store runs operations in states of the books that never exist")
	}
	histories, err := strconv.Atoi(os.Getenv("TALLYGATE_LINEAR"))
	if err != nil {
		histories = 5
	}
	l, err := ledger.New(p.Open(), ledger.Options{Currency: "USDC", Lifetime: -1, Logger: quiet})
	must(t, err)
	defer l.Close()
	for n := range histories {
		history := runLinear(t, l, ledger.Wallet(fmt.Sprint(n)))
		if result := porcupine.CheckOperationsTimeout(purseModel, history, time.Minute); result != porcupine.Ok {
			t.Fatalf("history %d of %d calls is not as if they had been made one after another: %s", n, len(history), result)
		}
	}
}

// runLinear records one history.
func runLinear(t *testing.T, l *ledger.Ledger, wallet ledger.AccountID) (history []porcupine.Operation) {
	begin := time.Now()
	var mu sync.Mutex
	var clients sync.WaitGroup
	for client := range linearClients {
		clients.Go(func() {
			c := linearClient{ledger: l, wallet: wallet}
			random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			for i := range 30 {
				w := c.wish(client, random)
				if i == 29 {
					w = wish{client: client, what: "release"}
				}
				call := time.Since(begin)
				answer, err := c.grant(w)
				end := time.Since(begin)
				if err != nil {
					t.Errorf("%v: %v", w, err)
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: client, Input: w, Call: int64(call), Output: answer, Return: int64(end)})
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	return history
}

type linearClient struct {
	ledger *ledger.Ledger
	wallet ledger.AccountID
	hold   *ledger.Hold
}

func (c *linearClient) wish(client int, random *rand.Rand) wish {
	kinds := []string{"deposit", "pay", "hold", "hold"}
	if c.hold != nil {
		kinds = []string{"deposit", "pay", "extend", "settle", "settle", "release"}
	}
	return wish{client, kinds[random.IntN(len(kinds))], ledger.Amount(1 + random.IntN(10))}
}

func (c *linearClient) grant(w wish) (granted, error) {
	var err error
	switch w.what {
	case "hold":
		c.hold, err = c.ledger.Hold(c.wallet, w.amount)
	case "extend":
		return granted{true, c.hold.ExtendUpTo(w.amount)}, nil
	case "release":
		if c.hold != nil {
			c.hold.Release()
		}
		c.hold = nil
	default:
		_, err = ledger.Do(context.Background(), c.ledger, func(tx *ledger.Tx) (ledger.Transfer, error) {
			transfer := ledger.Transfer{Debit: c.wallet, Credit: ledger.World, Amount: w.amount, Kind: w.what}
			if w.what == "deposit" {
				transfer.Debit, transfer.Credit = ledger.World, c.wallet
			}
			var cover []*ledger.Hold
			if w.what == "settle" {
				cover = []*ledger.Hold{c.hold}
			}
			return tx.Post(transfer, cover...)
		})
	}
	if ledger.OutcomeOf(err) == ledger.InsufficientFunds {
		return granted{}, nil
	}
	return granted{done: err == nil}, err
}
