package api

import (
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

type reputationOut struct {
	AgentID string    `json:"agent_id"`
	Since   time.Time `json:"since"`
	AsPayee sideOut   `json:"as_payee"`
	AsPayer sideOut   `json:"as_payer"`
}

type sideOut struct {
	EscrowsCompleted int64            `json:"escrows_completed" jsonschema:"closed escrows of which something was released"`
	Value            ledger.Amount    `json:"value" jsonschema:"the released money minus what came back from the same agent; faucet money does not count"`
	Counterparties   int64            `json:"counterparties"`
	DisputesWon      int64            `json:"disputes_won"`
	DisputesLost     int64            `json:"disputes_lost"`
	RefundRate       string           `json:"refund_rate" jsonschema:"the share of the money in closed escrows that was refunded, from 0 to 1"`
	MedianHours      *decimal.Decimal `json:"median_hours_to_release" jsonschema:"hours from lock to close, the median of the last 51; null if there is none"`
}

func sideAnswer(s escrow.Side) sideOut {
	out := sideOut{
		EscrowsCompleted: s.Completed, Value: s.Value, Counterparties: s.Counterparties, DisputesWon: s.DisputesWon,
		DisputesLost: s.DisputesLost, RefundRate: s.RefundRate().String(),
	}
	if median, ok := s.MedianTime(); ok {
		h := decimal.NewFromInt(int64(median)).DivRound(decimal.NewFromInt(hour), 2)
		out.MedianHours = &h
	}
	return out
}

type usageIn struct {
	AgentID string    `query:"agent_id"`
	From    time.Time `query:"from"`
	To      time.Time `query:"to"`
	GroupBy string    `query:"group_by"` // one or several, with commas between them
	Top     int       `query:"top"`      // only the groups with the largest sums
	TopOf   string    `query:"top_of"`   // by which sum
}

// maxTop is how many groups may be asked for by their sums.
const maxTop = 1000

type usageOut struct {
	Usage      []usageRowOut `json:"usage"`
	GroupBy    string        `json:"group_by"`
	Currency   string        `json:"currency"`
	Complete   bool          `json:"complete" jsonschema:"false if there were more charges than can be added up: ask for a shorter time"`
	NextCursor *string       `json:"next_cursor"`
}

type usageRowOut struct {
	Group    string            `json:"group" jsonschema:"the values of the group, with commas between them"`
	By       map[string]string `json:"by" jsonschema:"the values of the group, by their names"`
	Calls    int64             `json:"calls"`
	Paid     ledger.Amount     `json:"paid"`
	Earned   ledger.Amount     `json:"earned" jsonschema:"including the operator's commission"`
	Refunded ledger.Amount     `json:"refunded" jsonschema:"the part of paid and earned that was refunded"`
	Credit   ledger.Amount     `json:"credit" jsonschema:"the part of paid and earned that was credit, for which no money has moved"`
	Fees     ledger.Amount     `json:"fees" jsonschema:"the part of paid and earned that were prices of subscriptions; each counts when its period begins"`
	Units    map[string]string `json:"units"`
}

type statementIn struct {
	AgentID string `query:"agent_id"`
	Month   string `query:"month"`
	Format  string `query:"format"`
}

type statementOut struct {
	Issuer         Issuer             `json:"issuer"`
	AgentID        string             `json:"agent_id"`
	Month          string             `json:"month"`
	Currency       string             `json:"currency"`
	OpeningBalance ledger.Amount      `json:"opening_balance"`
	ClosingBalance ledger.Amount      `json:"closing_balance"`
	Lines          []statementLineOut `json:"lines"`
}

type statementLineOut struct {
	Kind  string        `json:"kind"`
	Count int64         `json:"count"`
	In    ledger.Amount `json:"in"`
	Out   ledger.Amount `json:"out"`
}

func reportRoutes() []route {
	return []route{
		get("/agents/{id}/reputation", "getReputation", "Facts about what an agent has done", func(r *request, in *byID) (reputationOut, error) {
			rep, err := r.book.Reputation(in.ID)
			return reputationOut{AgentID: rep.Agent, Since: rep.Since, AsPayee: sideAnswer(rep.AsPayee), AsPayer: sideAnswer(rep.AsPayer)}, err
		}),
		get("/usage", "getUsage", "The agent's charges, added up", getUsage),
		get("/statements", "getStatement", "The wallet's statement for a month, as JSON, CSV or a page to print", getStatement),
	}
}

func getUsage(r *request, in *usageIn) (usageOut, error) {
	agent, err := r.book.ListsFor(r.by, in.AgentID)
	if err != nil {
		return usageOut{}, err
	}
	if in.GroupBy == "" {
		in.GroupBy = "payee"
	}
	if in.Top > maxTop {
		return usageOut{}, invalid("top", "top: from 1 to %d", maxTop)
	}
	if of := escrow.Sum(in.TopOf); of != "" && of != escrow.SumPaid && of != escrow.SumEarned {
		return usageOut{}, invalid("top_of", "top_of %.40q: paid or earned", in.TopOf)
	}
	by := strings.Split(in.GroupBy, ",")
	rows, whole, err := r.book.Usage(r.Context(), escrow.UsageQuery{Agent: agent, From: in.From, To: in.To, By: by, Top: in.Top, TopOf: escrow.Sum(in.TopOf)})
	return usageOut{Usage: each(rows, func(row escrow.UsageRow) usageRowOut {
		out := usageRowOut{
			Group: strings.Join(row.Group, ","), By: make(map[string]string, len(by)), Calls: row.Calls, Paid: row.Paid, Earned: row.Earned,
			Refunded: row.Back, Credit: row.Credit, Fees: row.Fees, Units: make(map[string]string, len(row.Units)),
		}
		for i, name := range by {
			out.By[name] = row.Group[i]
		}
		for unit, n := range row.Units {
			out.Units[unit] = n.String()
		}
		return out
	}), GroupBy: in.GroupBy, Currency: r.book.Currency(), Complete: whole}, err
}

func getStatement(r *request, in *statementIn) (statementOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return statementOut{}, err
	}
	if in.Month == "" {
		in.Month = r.book.Now().Format("2006-01")
	}
	s, err := r.book.Statement(r.Context(), agent, in.Month)
	if err != nil {
		return statementOut{}, err
	}
	return StatementOf(r.server.o.Issuer, r.book.Currency(), s), nil
}

// Statement is what moved in a wallet in a month.
type Statement = statementOut

// StatementOf returns a statement as the API shows it. currency is the ledger's.
func StatementOf(issuer Issuer, currency string, s escrow.Statement) Statement {
	return statementOut{
		Issuer: issuer, AgentID: s.Agent, Month: s.From.Format("2006-01"), Currency: currency, OpeningBalance: s.Opening, ClosingBalance: s.Closing,
		Lines: each(s.Lines, func(l escrow.StatementLine) statementLineOut { return statementLineOut(l) }),
	}
}
