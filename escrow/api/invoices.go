package api

import (
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Issuer is the operator, as invoices and statements name it. The texts are printed as they are; nothing is computed from them.
type Issuer struct {
	Name    string   `json:"name,omitempty"`
	Address []string `json:"address,omitempty"`
	Tax     []string `json:"tax,omitempty" jsonschema:"lines about taxes, such as a registration number"`
}

// Product returns what a quantity of a unit costs at a price, which is as charges state it, or false if the two do not tell that.
type Product func(unit, quantity, price string) (decimal.Decimal, bool)

type invoiceIn struct {
	Month  string `path:"month"`
	Payer  string `query:"payer"`
	Payee  string `query:"payee"`
	Format string `query:"format"`
}

type invoiceOut struct {
	Issuer    Issuer           `json:"issuer"`
	Month     string           `json:"month"`
	Payer     string           `json:"payer"`
	PayerName string           `json:"payer_name"`
	Payee     string           `json:"payee"`
	PayeeName string           `json:"payee_name"`
	Currency  string           `json:"currency"`
	Lines     []invoiceLineOut `json:"lines"`
	invoiceSumOut
	Final    bool `json:"final" jsonschema:"the month is over; a refund still changes the month of what is refunded"`
	Complete bool `json:"complete" jsonschema:"false if there were more records than can be added up"`
}

type invoiceSumOut struct {
	Calls      int64         `json:"calls"`
	Amount     ledger.Amount `json:"amount" jsonschema:"the price"`
	Credit     ledger.Amount `json:"credit" jsonschema:"the part of amount that credit paid, without what was given back of it"`
	Refunded   ledger.Amount `json:"refunded" jsonschema:"the part of amount that was refunded"`
	Due        ledger.Amount `json:"due" jsonschema:"what the payer paid with money: amount - credit - refunded"`
	Commission ledger.Amount `json:"commission" jsonschema:"the part of due that the operator took of calls; the statement of the payee has that of subscriptions"`
}

type invoiceLineOut struct {
	Kind  string           `json:"kind" jsonschema:"calls or subscription"`
	Route string           `json:"route"`
	Model string           `json:"model"`
	Plan  string           `json:"plan"`
	Items []invoiceItemOut `json:"items"`
	// Rest is what makes the products of the items the amount.
	Rest decimal.Decimal `json:"rest" jsonschema:"amount - the products of the items: rounding, minimums, tiers, quotas, quality, and costs that a provider stated"`
	invoiceSumOut
}

type invoiceItemOut struct {
	Unit      string           `json:"unit"`
	Quantity  decimal.Decimal  `json:"quantity"`
	UnitPrice string           `json:"unit_price" jsonschema:"empty if the unit had no price of its own, or tiers"`
	Product   *decimal.Decimal `json:"product" jsonschema:"quantity x unit_price, exactly; null if there is no price"`
}

func invoiceRoutes() []route {
	return []route{
		get("/invoices/{month}", "getInvoice", "What one agent bought from another in a month, as JSON, CSV or a page to print", getInvoice),
	}
}

func getInvoice(r *request, in *invoiceIn) (invoiceOut, error) {
	v, err := r.book.Invoice(r.Context(), r.by, in.Month, in.Payer, in.Payee)
	if err != nil {
		return invoiceOut{}, err
	}
	return InvoiceOf(r.server.o.Issuer, r.book.Currency(), v, r.server.o.Product), nil
}

// Invoice is what one agent bought from another in a month.
type Invoice = invoiceOut

// InvoiceOf returns an invoice as the API shows it. currency is the ledger's. Without a product, items have none.
func InvoiceOf(issuer Issuer, currency string, v escrow.Invoice, product Product) Invoice {
	out := invoiceOut{
		Issuer: issuer, Month: v.From.Format("2006-01"), Payer: v.Payer, PayerName: v.PayerName, Payee: v.Payee, PayeeName: v.PayeeName,
		Currency: currency, invoiceSumOut: invoiceSumOut(v.Total), Final: v.Over, Complete: v.Complete,
	}
	out.Lines = each(v.Lines, func(l escrow.InvoiceLine) invoiceLineOut {
		line := invoiceLineOut{Kind: "calls", Route: l.Route, Model: l.Model, Plan: l.Plan, invoiceSumOut: invoiceSumOut(l.InvoiceSum), Rest: l.Amount.Decimal()}
		if l.Subscription {
			line.Kind = "subscription"
		}
		line.Items = each(l.Items, func(i escrow.InvoiceItem) invoiceItemOut {
			item := invoiceItemOut{Unit: i.Unit, Quantity: i.Quantity, UnitPrice: i.Price}
			if product == nil || i.Price == "" {
				return item
			}
			if p, ok := product(i.Unit, i.Quantity.String(), i.Price); ok {
				item.Product = &p
				line.Rest = line.Rest.Sub(p)
			}
			return item
		})
		return line
	})
	return out
}

// paper returns the invoice as a table. The amounts of the rows add up to that of the last one but two, the total.
func (v invoiceOut) paper() paper {
	p := paper{
		Title: "Invoice", Period: v.Month, Issuer: v.Issuer, Currency: v.Currency, File: "invoice-" + v.Month,
		Parties: []party{{"Seller", v.Payee, v.PayeeName}, {"Buyer", v.Payer, v.PayerName}},
		Head:    []string{"kind", "route", "model", "plan", "calls", "unit", "quantity", "unit_price", "amount"}, Numbers: []int{4, 6, 8},
	}
	for _, l := range v.Lines {
		row := []string{l.Kind, l.Route, l.Model, l.Plan, decimal.NewFromInt(l.Calls).String()}
		for _, i := range l.Items {
			product := ""
			if i.Product != nil {
				product = i.Product.String()
			}
			p.add(append(row, i.Unit, i.Quantity.String(), i.UnitPrice, product)...)
			row = []string{l.Kind, l.Route, l.Model, l.Plan, ""}
		}
		if len(l.Items) == 0 || !l.Rest.IsZero() {
			p.add(append(row, map[bool]string{true: "rounding and other prices"}[len(l.Items) > 0], "", "", l.Rest.String())...)
		}
	}
	sum := func(kind string, amount ledger.Amount) {
		p.Sums = append(p.Sums, []string{kind, "", "", "", "", "", "", "", amount.String()})
	}
	if v.Credit != 0 {
		sum("paid by credit", -v.Credit)
	}
	if v.Refunded != 0 {
		sum("refunded", -v.Refunded)
	}
	sum("paid with money", v.Due)
	sum("of which commission", v.Commission)
	sum("received by the seller", v.Due-v.Commission)
	if !v.Final {
		p.Notes = append(p.Notes, "The month is not over; this is what was sold so far.")
	}
	if !v.Complete {
		p.Notes = append(p.Notes, "INCOMPLETE: there were more records than can be added up.")
	}
	p.Notes = append(p.Notes, "Paid from the buyer's wallet and escrows when each call was answered. Days are UTC's. A refund counts in the month of what is refunded.")
	return p
}

// paper returns the statement as a table.
func (s statementOut) paper() paper {
	p := paper{
		Title: "Statement", Period: s.Month, Issuer: s.Issuer, Currency: s.Currency, File: "statement-" + s.Month,
		Parties: []party{{"Wallet of", s.AgentID, ""}},
		Head:    []string{"kind", "count", "in", "out", "balance"}, Numbers: []int{1, 2, 3, 4},
	}
	p.add("opening balance", "", "", "", s.OpeningBalance.String())
	balance := s.OpeningBalance
	for _, l := range s.Lines {
		balance += l.In - l.Out
		p.add(strings.ReplaceAll(l.Kind, "_", " "), decimal.NewFromInt(l.Count).String(), l.In.String(), l.Out.String(), balance.String())
	}
	p.Sums = [][]string{{"closing balance", "", "", "", s.ClosingBalance.String()}}
	return p
}

// monthName returns a month such as 2026-11 for people.
func monthName(month string) string {
	if at, err := time.Parse("2006-01", month); err == nil {
		return at.Format("January 2006")
	}
	return month
}
