package api_test

import (
	"context"
	"encoding/csv"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
)

// TestInvoice sells two calls, refunds a part, and reads the invoice in all its forms.
func TestInvoice(t *testing.T) {
	g := newGate(t, rules(), api.Options{
		Issuer: api.Issuer{Name: "Acme <Market>", Address: []string{"1 Main Street"}, Tax: []string{"VAT ID XX123"}},
		Product: func(_, quantity, _ string) (decimal.Decimal, bool) {
			return decimal.RequireFromString(quantity).Mul(decimal.RequireFromString("0.0000000015")), true
		},
	})
	alice, eve := g.agent("alice", "10"), g.agent("eve", "10")
	shop := g.agent("shop", "0")
	id := ""
	for range 2 {
		id = g.book.NewRequestID()
		a, err := g.book.Authorise(context.Background(), escrow.CallOrder{Request: id, By: escrow.Actor{Agent: "alice"}, Payee: "shop", Least: 1e9, Model: "=1+1", Route: "/a"})
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{Amount: 1, Units: map[string]string{"input": "1"}, UnitPrices: map[string]string{"input": "0.0015 per 1M"}})
		must(t, err)
	}
	g.post("/charges/"+id+"/refund", shop, `{}`).want(200)
	month := g.clock().UTC().Format("2006-01")
	path := "/invoices/" + month + "?payee=shop"
	g.get(path, alice).want(200, "payer", "alice", "calls", "2", "amount", "0.000000002", "refunded", "0.000000001", "due", "0.000000001",
		"lines.0.model", "=1+1", "lines.0.items.0.product", "0.000000003", "lines.0.rest", "-0.000000001", "final", "false", "issuer.name", "Acme <Market>")
	g.get("/invoices/"+month+"?payer=alice", shop).want(200, "due", "0.000000001")
	g.get("/invoices/"+month+"?payer=alice&payee=shop", eve).want(404, "code", "not_found")
	g.get(path, eve).want(200, "calls", "0")
	g.get(path+"&format=pdf", alice).want(422, "field", "format")
	g.get("/invoices/tomorrow?payee=shop", alice).want(422, "field", "month")

	table := g.get(path+"&format=csv", alice)
	rows, err := csv.NewReader(strings.NewReader(table.text)).ReadAll()
	must(t, err)
	sum := decimal.Zero
	for _, row := range rows[1:] {
		if row[0] == "paid with money" {
			break
		}
		if row[2] == "=1+1" {
			t.Errorf("a formula: %q", row)
		}
		sum = sum.Add(decimal.RequireFromString(row[8]))
	}
	if sum.String() != "0.000000001" || table.header.Get("Content-Disposition") != `attachment; filename="invoice-`+month+`.csv"` {
		t.Errorf("the rows add up to %s: %q, %v", sum, rows, table.header)
	}
	for _, at := range []string{path, "/statements?month=" + month} {
		sheet := g.do("GET", "/api/v1"+at, alice, "", "Accept", "text/html,*/*;q=0.8")
		if !strings.Contains(sheet.text, "Acme &lt;Market&gt;") || !strings.Contains(sheet.text, "@media print") || sheet.header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %v\n%s", at, sheet.header, sheet.text)
		}
	}
}
