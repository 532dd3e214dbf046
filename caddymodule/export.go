package caddymodule

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// exportArgs are the arguments of `tallygate ledger export`.
type exportArgs struct {
	// Format is csv or jsonl for transfers, or cloudevents for charges: one event per line, for OpenMeter and similar programs.
	Format string `json:"format"`
	// From and To limit the time: From <= time < To. The zero time means no limit.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

const (
	formatCSV         = "csv"
	formatJSONL       = "jsonl"
	formatCloudEvents = "cloudevents"
)

// exportPage is how many transfers are read at a time, since a long read of the store would slow down the writer.
const exportPage = 1000

// exportLedger writes the ledger to w page by page, so its memory does not grow with the ledger.
func exportLedger(ctx context.Context, on bench, raw json.RawMessage, w io.Writer) error {
	var args exportArgs
	if err := json.Unmarshal(raw, &args); err != nil {
		return fmt.Errorf("reading the arguments of ledger/export: %w", err)
	}
	out := bufio.NewWriter(w)
	var err error
	switch args.Format {
	case formatCSV:
		err = exportCSV(ctx, on, args, out)
	case formatJSONL:
		encoder := json.NewEncoder(out)
		err = eachTransfer(ctx, on, args, func(t ledger.Transfer) error { return encoder.Encode(showTransfer(t)) })
	case formatCloudEvents:
		encoder := json.NewEncoder(out)
		err = on.EachCharge(ctx, args.From, args.To, func(c escrow.Charge) error { return encoder.Encode(cloudEvent(c)) })
	default:
		err = fmt.Errorf("unknown format %q: expected csv, jsonl or cloudevents", args.Format)
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

func eachTransfer(ctx context.Context, on bench, args exportArgs, fn func(ledger.Transfer) error) error {
	after, err := on.Ledger().TransfersBefore(args.From)
	if err != nil {
		return err
	}
	for {
		page, err := on.Ledger().Transfers(after, exportPage)
		if err != nil || len(page) == 0 {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, t := range page {
			after = t.Seq
			if !args.To.IsZero() && !t.Time.Before(args.To) {
				return nil // transfers are in the order of their times, so all further ones are too late
			}
			if err := fn(t); err != nil {
				return err
			}
		}
	}
}

// transfer is the exported form of a transfer.
type transfer struct {
	Transfer  uint64           `json:"transfer"`
	Time      time.Time        `json:"time"`
	Debit     ledger.AccountID `json:"debit"`
	Credit    ledger.AccountID `json:"credit"`
	Amount    ledger.Amount    `json:"amount"`
	Kind      string           `json:"kind"`
	Phase     string           `json:"phase"`
	Pending   uint64           `json:"pending,omitempty"`
	Reference string           `json:"reference,omitempty"`
	Memo      string           `json:"memo,omitempty"`
}

func showTransfer(t ledger.Transfer) transfer {
	return transfer{
		Transfer: t.Seq, Time: t.Time, Debit: t.Debit, Credit: t.Credit, Amount: t.Amount, Kind: t.Kind,
		Phase: t.Phase.String(), Pending: t.Pending, Reference: t.Reference, Memo: t.Memo,
	}
}

func exportCSV(ctx context.Context, on bench, args exportArgs, w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{"transfer", "time", "debit", "credit", "amount", "kind", "phase", "pending", "reference", "memo"}); err != nil {
		return err
	}
	err := eachTransfer(ctx, on, args, func(t ledger.Transfer) error {
		return out.Write([]string{
			strconv.FormatUint(t.Seq, 10), t.Time.Format(time.RFC3339Nano), string(t.Debit), string(t.Credit), t.Amount.String(),
			t.Kind, t.Phase.String(), strconv.FormatUint(t.Pending, 10), api.Cell(t.Reference), api.Cell(t.Memo),
		})
	})
	out.Flush()
	if err != nil {
		return err
	}
	return out.Error()
}

// cloudEvent returns a charge as a CloudEvent 1.0 in JSON format: https://github.com/cloudevents/spec
func cloudEvent(c escrow.Charge) map[string]any {
	return map[string]any{
		"specversion": "1.0", "type": "tallygate.charge", "source": "tallygate/" + c.Payee, "id": c.RequestID,
		"subject": c.Payer, "time": c.CreatedAt.Format(time.RFC3339Nano), "datacontenttype": "application/json",
		"data": chargeData{
			Payer: c.Payer, Payee: c.Payee, Route: c.Route, Pattern: c.Pattern, API: c.API, Model: c.Model, AskedModel: c.AskedModel,
			Units: c.Units, UnitPrices: c.UnitPrices, Amount: c.Amount, Commission: c.Commission, Refunded: c.Refunded,
			Credit: c.Credit, CreditBack: c.CreditBack,
			Cost: c.Cost, Markup: c.Markup, Price: c.Price, Suspect: c.Suspect, Score: c.Score, Plan: c.Plan, Source: c.Source, Cut: c.Cut,
			Status: c.Status, EscrowID: c.EscrowID, Reference: c.Reference, Tags: c.TagsFor(c.Payee), // only the tags that the payee may see
		},
	}
}

// chargeData is the data of a charge's event. Fields that a charge does not have are left out. For example, a price of 0 would say that
// the call was worth nothing, but an absent price means that it is the same as the amount.
type chargeData struct {
	Payer      string              `json:"payer"`
	Payee      string              `json:"payee"`
	Route      string              `json:"route"`
	Pattern    string              `json:"pattern"`
	API        string              `json:"api,omitempty"`
	Model      string              `json:"model,omitempty"`
	AskedModel string              `json:"asked_model,omitempty"`
	Units      map[string]string   `json:"units"`
	UnitPrices map[string]string   `json:"unit_prices"`
	Amount     ledger.Amount       `json:"amount"`
	Commission ledger.Amount       `json:"commission"`
	Refunded   ledger.Amount       `json:"refunded"`
	Credit     ledger.Amount       `json:"credit,omitzero"`
	CreditBack ledger.Amount       `json:"credit_refunded,omitzero"`
	Cost       string              `json:"cost,omitempty"`
	Markup     string              `json:"markup,omitempty"`
	Price      ledger.Amount       `json:"price,omitzero"`
	Suspect    bool                `json:"suspect"`
	Score      string              `json:"score,omitempty"`
	Plan       string              `json:"plan,omitempty"`
	Source     string              `json:"source"`
	Cut        string              `json:"cut"`
	Status     escrow.ChargeStatus `json:"status"`
	EscrowID   string              `json:"escrow_id,omitempty"`
	Reference  string              `json:"reference,omitempty"`
	Tags       map[string]string   `json:"tags,omitempty"`
}
