//go:build unix

package postgres_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/internal/commandtest"
	"github.com/tallygate/tallygate/internal/rounds"
)

const (
	operatorKey = "the operator's own words"
	lifetime    = 3 * time.Second
)

// faults are what happens to the gateways and the database while they are under load. Each returns when it is over.
func faults(server *pgtest.Server, t *testing.T) map[string]func(*gateway) {
	return map[string]func(*gateway){
		"a gateway is killed":                           func(g *gateway) { g.kill(); g.start() },
		"a gateway is paused":                           func(g *gateway) { g.pause(lifetime / 4) },
		"a gateway is paused until its session is over": func(g *gateway) { g.pause(lifetime + lifetime/2) },
		"the database crashes":                          func(*gateway) { server.Stop(syscall.SIGQUIT); server.Run(t) },
		"the database is restarted":                     func(*gateway) { server.Stop(syscall.SIGINT); server.Run(t) },
		"its backends are terminated": func(*gateway) {
			server.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'")
		},
		"its backends are frozen": func(*gateway) {
			thaw := server.Freeze(t)
			defer thaw()
			time.Sleep(time.Duration(rand.Int64N(int64(2 * lifetime))))
		},
		"the connections of a gateway break": func(g *gateway) { g.line.cut() },
		"answers of the database are lost":   func(g *gateway) { g.line.set(true, 0); time.Sleep(lifetime / 10); g.line.set(false, 0) },
		"a gateway is cut off":               func(g *gateway) { g.line.set(true, 0); time.Sleep(lifetime + lifetime/2); g.line.set(false, 0) },
		"the network is slow": func(g *gateway) {
			g.line.set(false, 1250*time.Microsecond)
			time.Sleep(lifetime / 3)
			g.line.set(false, 0)
		},
	}
}

// gatewayRounds returns how many rounds of faults TestGateways has: TALLYGATE_GATEWAY_ROUNDS, by default a few.
func gatewayRounds(t *testing.T) int {
	text := os.Getenv("TALLYGATE_GATEWAY_ROUNDS")
	if text == "" {
		return rounds.Of(1, 10)
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// TestGateways: three gateways serve agents from one database, while gateways are killed, paused and cut off, and the database crashes and freezes. In the end
// the books verify, each complete response has its charge, each acknowledged transfer is there, no stream has lost more than one batch, each
// period of a subscription was paid once and has served no more than its quota, and all money is free again.
func TestGateways(t *testing.T) {
	server := pgtest.Start(t, "fsync=off")
	dsn := server.New(t)
	upstream := httptest.NewServer(commandtest.Provider(5 * time.Millisecond))
	defer upstream.Close()
	l := &load{t: t, complete: map[string]string{}, cut: map[string]int{}, begun: map[string]bool{}, statuses: map[int]int{}}
	for range 3 {
		l.gateways = append(l.gateways, startGateway(t, server, dsn, upstream.URL, lifetime))
	}
	for i := range 4 {
		l.keys = append(l.keys, l.agent(fmt.Sprintf("agent-%d", i), []string{"100000", "3"}[i%2])) // some run out of money
	}
	l.agent("sink", "0.01")
	happen := faults(server, t)
	var names []string
	for name := range happen {
		names = append(names, name)
	}
	calls, streams := 0, 0
	for round := range gatewayRounds(t) {
		ctx, stop := context.WithCancel(t.Context())
		spun := make(chan struct{})
		go func() { l.spin(ctx); close(spun) }()
		for range 3 {
			time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond) // the random moment
			name := names[rand.IntN(len(names))]
			t.Logf("round %d: %s", round, name)
			happen[name](l.gateways[rand.IntN(len(l.gateways))])
		}
		for _, g := range l.gateways {
			g.await()
		}
		time.Sleep(300 * time.Millisecond) // some calls after the last fault
		stop()
		<-spun
		for _, g := range l.gateways {
			g.await()
		}
		c, s := l.check(dsn)
		calls, streams = calls+c, streams+s
	}
	t.Logf("%d complete responses each have their charge, %d streams were cut and lost at most a batch each, %d transfers and %d subscriptions acknowledged, %d periods, answers by status: %v",
		calls, streams, l.moved, len(l.begun), l.periods, l.statuses)
}

// agent makes an agent with money, and returns its key.
func (l *load) agent(name, amount string) string {
	l.t.Helper()
	s := shop{l.t, l.gateways[0].base}
	var made struct {
		Key string `json:"api_key"`
	}
	s.ask("POST", "/api/v1/agents", "", fmt.Sprintf(`{"agent_id":%q}`, name), http.StatusCreated, &made)
	s.ask("POST", "/api/v1/wallet/deposit", operatorKey, fmt.Sprintf(`{"agent_id":%q,"amount":%q,"reference":%q}`, name, amount, name), http.StatusOK, nil)
	return made.Key
}

// check opens the ledger beside the gateways, and checks what the clients have seen against the books.
func (l *load) check(dsn string) (calls, streams int) {
	l.t.Helper()
	store, err := postgres.Open(dsn, postgres.Options{Lifetime: lifetime, Logger: slog.New(slog.DiscardHandler)})
	must(l.t, err)
	books, err := ledger.New(store, ledger.Options{Logger: slog.New(slog.DiscardHandler)})
	must(l.t, err)
	defer books.Close()
	book := escrow.New(books, escrow.Rules{})
	operator := escrow.Actor{Operator: true}
	report, err := books.Check(context.Background(), nil)
	must(l.t, err)
	if len(report.Wrong) > 0 {
		l.t.Fatal(report.Wrong)
	}
	for id, amount := range l.complete {
		charge, err := book.Charge(context.Background(), operator, id)
		if err != nil || charge.Cut != "none" || amount != "" && charge.Amount.String() != amount {
			l.t.Errorf("the complete response %s of charge %s has the charge %s, cut by %q, %v", id, amount, charge.Amount, charge.Cut, err)
		}
	}
	deadline := time.Now().Add(time.Minute) // a killed gateway's streams are charged when others have ended its session, after the last fault
	for id, events := range l.cut {
		paid := func() int {
			charge, _ := book.Charge(context.Background(), operator, id)
			return int(charge.Amount / (ledger.Unit / 1000))
		}
		for paid() < events-10 && time.Now().Before(deadline) {
			time.Sleep(100 * time.Millisecond)
		}
		if n := paid(); n < events-10 {
			l.t.Errorf("stream %s sent %d events, but only %d are paid", id, events, n)
		}
	}
	sink, err := book.Wallet(context.Background(), "sink")
	must(l.t, err)
	if sink.Balance < ledger.Amount(l.moved+1)*ledger.Unit/100 {
		l.t.Errorf("%d transfers of 0.01 were acknowledged, but the sink has %s", l.moved, sink.Balance)
	}
	l.checkSubscriptions(book)
	calls, streams = len(l.complete), len(l.cut)
	l.complete, l.cut = map[string]string{}, map[string]int{}
	l.allIsFree(book)
	return calls, streams
}

// checkSubscriptions counts what was paid for subscriptions, and what they have served.
func (l *load) checkSubscriptions(book *escrow.Book) {
	l.t.Helper()
	l.periods = 0
	known := map[string]bool{}
	for i := range l.keys {
		agent := fmt.Sprintf("agent-%d", i)
		subs, paid, used := l.soldTo(book, agent)
		going := 0
		for _, s := range subs {
			known[s.ID] = true
			l.periods += s.Periods
			if s.Status != escrow.SubEnded {
				going++
			}
			if paid[s.ID] != s.Periods {
				l.t.Errorf("subscription %s has had %d periods, and paid for %d", s.ID, s.Periods, paid[s.ID])
			}
			if used[s.ID] > s.Periods*s.Plan.Included {
				l.t.Errorf("subscription %s has served %d in %d periods of %d", s.ID, used[s.ID], s.Periods, s.Plan.Included)
			}
		}
		if going > 1 {
			l.t.Errorf("%s has %d subscriptions of one plan", agent, going)
		}
	}
	for id := range l.begun {
		if !known[id] {
			l.t.Errorf("subscription %s was acknowledged, and is lost", id)
		}
	}
}

// soldTo returns the subscriptions of an agent, with what was paid for them and used of them. They renew while they are read, so they are read
// until no period has begun meanwhile.
func (l *load) soldTo(book *escrow.Book, agent string) (subs []escrow.Subscription, paid, used map[string]int64) {
	periods := func() (sum int64) {
		subs = everything(l.t, func(p escrow.Page) ([]escrow.Subscription, string, error) {
			return book.Subscriptions(context.Background(), agent, "", p)
		})
		for _, s := range subs {
			sum += s.Periods
		}
		return sum
	}
	for before := periods(); ; {
		paid, used = l.periodsOf(book, agent), l.usedBy(book, agent)
		after := periods()
		if after == before {
			return subs, paid, used
		}
		before = after
	}
}

// periodsOf returns how many periods an agent has paid for, by subscription.
func (l *load) periodsOf(book *escrow.Book, agent string) map[string]int64 {
	paid := map[string]int64{}
	filter := escrow.EscrowFilter{Agent: agent, Role: "payer"}
	for _, e := range everything(l.t, func(p escrow.Page) ([]escrow.Escrow, string, error) {
		return book.Escrows(context.Background(), filter, p)
	}) {
		if e.Subscription != "" {
			paid[e.Subscription]++
		}
	}
	return paid
}

// usedBy returns what the charges of an agent say that was used of quotas, by subscription.
func (l *load) usedBy(book *escrow.Book, agent string) map[string]int64 {
	used := map[string]int64{}
	filter := escrow.ChargeFilter{Agent: agent, Payer: agent, Payee: "paper"}
	for _, c := range everything(l.t, func(p escrow.Page) ([]escrow.Charge, string, error) { return book.Charges(filter, p) }) {
		used[c.SubscriptionID] += c.QuotaUsed
	}
	return used
}

// everything reads all pages of a list.
func everything[T any](t *testing.T, read func(escrow.Page) ([]T, string, error)) (all []T) {
	t.Helper()
	for p := (escrow.Page{Limit: escrow.MaxPage}); ; {
		items, next, err := read(p)
		must(t, err)
		if all = append(all, items...); next == "" {
			return all
		}
		p.Before = next
	}
}

// allIsFree waits until no gateway has set anything aside, since no call runs, and sessions of dead gateways end.
func (l *load) allIsFree(book *escrow.Book) {
	l.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var held []string
		for i := range l.keys {
			w, err := book.Wallet(context.Background(), fmt.Sprintf("agent-%d", i))
			must(l.t, err)
			if w.Held > 0 {
				held = append(held, fmt.Sprintf("%s of %s", w.Held, w.Agent))
			}
		}
		if len(held) == 0 {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("a minute after the last call, %v are held", held)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
