package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Script runs one case on a ledger. open opens the ledger's store at the beginning, and for each reopen step. Empty lines and lines that
// begin with # are ignored. In the steps below, A and B are accounts: the name of an agent stands for its wallet, and world, commission
// and escrow:ID for those accounts. N is an amount, H the name of a hold, P the name of a pending transfer, R a reference.
//
//	deposit A N / withdraw A N           moves money from or to the world
//	pay A B N [by H ...] [for R]         makes a transfer, covered by holds
//	pend P A B N [by H ...] [for R]      sets money aside durably
//	resolve P N                          posts N of a pending transfer, gives back the rest
//	op STEP ; STEP ; ...                 runs the steps as one operation: all of them or none
//	try STEP ; STEP ; ...                runs steps in an operation; if they fail, the operation goes on without them
//	note N                               puts a record N in the operation; if the record exists, the operation is refused with noted
//	noted N                              answers yes if the record N exists, otherwise no
//	give H                               releases a hold in the operation
//	hold H A N / extend H N / release H
//	extendupto H N                       extends a hold by at most N, answers by how much
//	amount H                             answers the amount of a hold
//	balance A                            answers "balance B available V held H", without amounts of zero
//	counters A                           answers "debits D+P credits C+P", the pending amounts after the plus
//	entries A [BEFORE [LIMIT]]           answers the entries, newest first, as SEQ:KIND:AMOUNT=BALANCE
//	pendings R                           answers the names of the pending transfers that are not resolved
//	clock D                              moves the clock forwards or backwards
//	now                                  answers the time since the beginning of the case
//	reopen
//	fail / failkept                      makes the next commit fail, before or after it has taken place (only with Memory)
//	recover                              reopens the store of the running ledger
func Script(t *testing.T, open func() ledger.Store, fail func(kept bool), script string) {
	t.Helper()
	r := &runner{open: open, fail: fail, begin: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), pendings: map[string]uint64{}}
	r.reopen(t)
	defer func() { _ = r.ledger.Close() }()
	for i, line := range strings.Split(script, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		step, want, ok := strings.Cut(line, "->")
		if !ok {
			t.Fatalf("line %d, %q: what it must answer is missing", i+1, line)
		}
		want = strings.TrimSpace(want)
		if got := r.step(t, strings.Fields(step)); got != want {
			t.Fatalf("line %d, %s: got %q, want %q", i+1, line, got, want)
		}
	}
	mustBalance(t, r.ledger)
}

// quiet drops the log of ledgers, since many failures are intended.
var quiet = slog.New(slog.DiscardHandler)

// mustBalance checks the books.
func mustBalance(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	report, err := l.Check(context.Background(), nil)
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	if len(report.Wrong) > 0 {
		t.Fatalf("the books are wrong: %v", report.Wrong)
	}
}

type runner struct {
	open     func() ledger.Store
	fail     func(kept bool)
	ledger   *ledger.Ledger
	begin    time.Time
	passed   time.Duration
	holds    map[string]*ledger.Hold
	pendings map[string]uint64
}

func (r *runner) reopen(t testing.TB) {
	t.Helper()
	if r.ledger != nil {
		if err := r.ledger.Close(); err != nil {
			t.Fatalf("closing: %v", err)
		}
	}
	var err error
	r.ledger, err = ledger.New(r.open(), ledger.Options{Currency: "USDC", Lifetime: -1, Now: func() time.Time { return r.begin.Add(r.passed) }, Logger: quiet})
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	r.holds = map[string]*ledger.Hold{}
}

// answer returns the outcome of a step as scripts write it.
func answer(err error) string {
	switch {
	case err == nil:
		return "ok"
	case ledger.OutcomeOf(err) != ledger.OK:
		return string(ledger.OutcomeOf(err))
	case errors.Is(err, ledger.ErrOutcomeUnknown):
		return "unknown"
	case errors.Is(err, ledger.ErrUnavailable):
		return "unavailable"
	default:
		return err.Error()
	}
}

func (r *runner) step(t *testing.T, words []string) string {
	arg := func(i int) string {
		if i >= len(words) {
			t.Fatalf("%v: too short", words)
		}
		return words[i]
	}
	switch words[0] {
	case "deposit", "withdraw", "pay", "pend", "resolve", "note", "give", "op", "try":
		made, err := ledger.Do(context.Background(), r.ledger, func(tx *ledger.Tx) (map[string]uint64, error) {
			o := &operation{runner: r, t: t, tx: tx, pendings: maps.Clone(r.pendings)}
			return o.pendings, o.step(words)
		})
		if err == nil {
			r.pendings = made
		}
		return answer(err)
	case "hold":
		h, err := r.ledger.Hold(account(arg(2)), amount(t, arg(3)))
		if err == nil {
			r.holds[arg(1)] = h
		}
		return answer(err)
	case "extend":
		return answer(r.holds[arg(1)].Extend(amount(t, arg(2))))
	case "extendupto":
		return r.holds[arg(1)].ExtendUpTo(amount(t, arg(2))).String()
	case "release":
		r.holds[arg(1)].Release()
		return "ok"
	case "amount":
		return r.holds[arg(1)].Amount().String()
	case "clock":
		d, err := time.ParseDuration(arg(1))
		r.passed += d
		return answer(err)
	case "now":
		return r.ledger.Now().Sub(r.begin).String()
	case "reopen":
		r.reopen(t)
		return "ok"
	case "fail", "failkept":
		if r.fail == nil {
			t.Skip("this store can't be made to fail")
		}
		r.fail(words[0] == "failkept")
		return "ok"
	case "recover":
		return answer(r.ledger.Reopen())
	default:
		return r.read(t, words)
	}
}

// read runs one of the steps that only read.
func (r *runner) read(t *testing.T, words []string) string {
	if len(words) < 2 {
		t.Fatalf("%v: no such step", words)
	}
	switch words[0] {
	case "balance":
		a, held, err := r.ledger.Balance(account(words[1]))
		if err != nil {
			return answer(err)
		}
		text := fmt.Sprintf("balance %s available %s", a.Balance(), a.Available()-held)
		if held != 0 {
			text += " held " + held.String()
		}
		return text
	case "counters":
		a, _, err := r.ledger.Balance(account(words[1]))
		if err != nil {
			return answer(err)
		}
		return fmt.Sprintf("debits %s+%s credits %s+%s", a.DebitsPosted, a.DebitsPending, a.CreditsPosted, a.CreditsPending)
	case "entries":
		before, limit := uint64(0), 1000
		if len(words) > 2 {
			_, _ = fmt.Sscan(words[2], &before)
		}
		if len(words) > 3 {
			_, _ = fmt.Sscan(words[3], &limit)
		}
		list, err := r.ledger.Entries(account(words[1]), before, limit)
		if err != nil {
			return answer(err)
		}
		var texts []string
		for _, e := range list {
			texts = append(texts, fmt.Sprintf("%d:%s:%s=%s", e.Seq, e.Kind, e.Amount, e.BalanceAfter))
		}
		return strings.Join(texts, " ")
	case "noted":
		there, err := noted(r.ledger, words[1])
		if err != nil {
			return answer(err)
		}
		return map[bool]string{true: "yes", false: "no"}[there]
	case "pendings":
		names, err := r.pendingNames(words[1])
		if err != nil {
			return answer(err)
		}
		return strings.Join(names, " ")
	default:
		t.Fatalf("%v: no such step", words)
		return ""
	}
}

// pendingNames returns the names that the script has given to the pending transfers of a reference.
func (r *runner) pendingNames(reference string) (names []string, err error) {
	err = r.ledger.View(func(reader ledger.Reader) error {
		list, err := ledger.Pendings(reader, reference)
		for _, p := range list {
			for name, seq := range r.pendings {
				if seq == p.Seq {
					names = append(names, name)
				}
			}
		}
		return err
	})
	return names, err
}

// operation is one run of an operation.
type operation struct {
	*runner
	t        *testing.T
	tx       *ledger.Tx
	pendings map[string]uint64 // including those that it makes
}

// step runs one step that changes the books.
func (o *operation) step(words []string) error {
	switch words[0] {
	case "op":
		for _, step := range split(words[1:]) {
			if err := o.step(step); err != nil {
				return err
			}
		}
		return nil
	case "try":
		err := o.tx.Try(func() error { return o.step(append([]string{"op"}, words[1:]...)) })
		if ledger.OutcomeOf(err) != ledger.OK {
			return nil
		}
		return err
	case "deposit":
		_, err := o.tx.Post(ledger.Transfer{Debit: ledger.World, Credit: account(words[1]), Amount: amount(o.t, words[2]), Kind: "deposit"})
		return err
	case "withdraw":
		_, err := o.tx.Post(ledger.Transfer{Debit: account(words[1]), Credit: ledger.World, Amount: amount(o.t, words[2]), Kind: "withdraw"})
		return err
	case "pay":
		_, err := o.tx.Post(transfer(o.t, words[1:], "pay"), o.cover(words)...)
		return err
	case "pend":
		p, err := o.tx.Pend(transfer(o.t, words[2:], "draw"), o.cover(words)...)
		o.pendings[words[1]] = p.Seq
		return err
	case "note":
		return note(o.tx, words[1])
	case "give":
		return o.tx.Release(o.holds[words[1]])
	case "resolve":
		_, err := o.tx.Resolve(o.pendings[words[1]], amount(o.t, words[2]), "", "")
		return err
	default:
		return fmt.Errorf("%q is no step of an operation", words[0])
	}
}

// note puts a record, and refuses the operation if the record exists. So an operation takes place only once, and after an unknown outcome
// the record tells whether it took place. Packages above use records under their own ids in this way.
func note(tx *ledger.Tx, name string) error {
	value, err := tx.Get(noteKey(name))
	if err != nil {
		return err
	}
	if value != nil {
		return &ledger.Refusal{Outcome: isNoted}
	}
	tx.Put(noteKey(name), []byte(name))
	return nil
}

const isNoted ledger.Outcome = "noted"

func noteKey(name string) []byte { return []byte("dnote:" + name) }

// noted reports whether a note was committed.
func noted(l *ledger.Ledger, name string) (there bool, err error) {
	err = l.View(func(r ledger.Reader) error {
		value, err := r.Get(noteKey(name))
		there = value != nil
		return err
	})
	return there, err
}

func split(words []string) (steps [][]string) {
	for len(words) > 0 {
		n := slices.Index(words, ";")
		if n < 0 {
			return append(steps, words)
		}
		steps, words = append(steps, words[:n]), words[n+1:]
	}
	return steps
}

func transfer(t *testing.T, words []string, kind string) ledger.Transfer {
	tr := ledger.Transfer{Debit: account(words[0]), Credit: account(words[1]), Amount: amount(t, words[2]), Kind: kind}
	if i := slices.Index(words, "for"); i > 0 {
		tr.Reference = words[i+1]
	}
	return tr
}

func (r *runner) cover(words []string) (holds []*ledger.Hold) {
	i := slices.Index(words, "by")
	if i < 0 {
		return nil
	}
	for _, name := range words[i+1:] {
		if name == "for" {
			break
		}
		holds = append(holds, r.holds[name])
	}
	return holds
}

func account(name string) ledger.AccountID {
	if name == string(ledger.World) || name == string(ledger.Commission) || strings.HasPrefix(name, "escrow:") {
		return ledger.AccountID(name)
	}
	return ledger.Wallet(name)
}

func amount(t *testing.T, text string) ledger.Amount {
	a, err := ledger.ParseAmount(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
