package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// A search server is put behind a meter, and an agent with 1.00 in its wallet calls it.
func Example() {
	book, key := booksWithAnAgent()
	price, _ := pricing.ParsePrice([]string{"0.02", "per", "call"})
	rates, _ := pricing.NewRates([]pricing.Price{price})
	route := &gateway.Route{Payee: "acme", Name: "/search", Rates: rates}

	search := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "3 results") })
	meter := gateway.New(book, gateway.Options{})
	server := httptest.NewServer(meter.Handler(route, search))
	defer server.Close()

	request, _ := http.NewRequest(http.MethodGet, server.URL+"/search?q=ledger", nil)
	request.Header.Set("Authorization", "Bearer "+key)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(string(body))
	fmt.Println("charged", answer.Header.Get("Tallygate-Charge"), "for", answer.Header.Get("Tallygate-Units"))
	fmt.Println("left", answer.Header.Get("Tallygate-Balance"))
	// Output:
	// 3 results
	// charged 0.02 for call=1
	// left 0.98
}

// booksWithAnAgent makes books with a payee, acme, and an agent that has 1.00 and a key.
func booksWithAnAgent() (*escrow.Book, string) {
	folder, _ := os.MkdirTemp("", "")
	store, err := bolt.Open(filepath.Join(folder, "ledger.db"), bolt.Options{})
	if err != nil {
		panic(err)
	}
	books, err := ledger.New(store, ledger.Options{Currency: "USDC"})
	if err != nil {
		panic(err)
	}
	book := escrow.New(books, escrow.Rules{Faucet: 1_000_000_000, OpenRegistration: true})
	if err := book.Reserve(context.Background(), "acme"); err != nil {
		panic(err)
	}
	key, err := escrow.Do(context.Background(), book, func(tx *escrow.Tx) (key string, err error) {
		if _, _, key, err = tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: "alice"}); err == nil {
			_, err = tx.ClaimFaucet(escrow.Actor{Agent: "alice"}, "")
		}
		return key, err
	})
	if err != nil {
		panic(err)
	}
	return book, key
}
