package escrow_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

// TestResources: what a settled call has made is its payer's, for one payee, and nobody takes it away or forgets it for the payer.
func TestResources(t *testing.T) {
	t.Parallel()
	s := newShop(t, defaultRules())
	s.agents("10", "alice", "bob", "shop")
	file := escrow.Resource{Payee: "shop", Kind: "files", ID: "f"}
	made := 0
	call := func(payer string, r ...escrow.Resource) {
		t.Helper()
		made++
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: fmt.Sprint("req_", made), By: by(payer), Payee: "shop", Least: amount("0.01"), Most: amount("0.01")})
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.01"), Made: r})
		must(t, err)
	}
	owned := func(by string, resources ...escrow.Resource) {
		t.Helper()
		owners, err := s.Noted(resources)
		must(t, err)
		for i, noted := range owners {
			if noted.Owner != by {
				t.Errorf("%+v is %q's, want %q", resources[i], noted.Owner, by)
			}
		}
	}
	owned("", file)
	call("alice", file, file)
	owned("alice", file)
	call("bob", file)
	must(t, s.run(func(tx *escrow.Tx) error { return tx.Own("bob", file) }))
	must(t, s.run(func(tx *escrow.Tx) error { return tx.Disown("bob", file) }))
	owned("alice", file)
	elsewhere, other := file, file
	elsewhere.Payee, other.Kind = "bob", "responses"
	owned("", elsewhere, other)

	must(t, s.run(func(tx *escrow.Tx) error { return tx.Disown("alice", file) }))
	owned("", file)
	call("bob", file)
	owned("bob", file)

	for _, wrong := range []escrow.Resource{{Payee: "shop", Kind: "files"}, {Kind: "files", ID: "x"}, {Payee: "shop", Kind: "files", ID: strings.Repeat("x", 257)}, {Payee: "shop", Kind: "files", ID: "a\x00b"}} {
		call("alice", wrong)
		owned("", wrong)
	}
	must(t, s.run(func(tx *escrow.Tx) error { return tx.Own("", other) }))
	owned("", other)
}
