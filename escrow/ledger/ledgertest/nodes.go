package ledgertest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// testNodes lets several processes use one ledger in random ways, under clocks that the test controls: some are paused, killed or closed, their
// clocks go at different speeds and jump, commits fail. Each process does what it may do only while its session lasts. At no time do all valid
// holds together exceed what there is, no payment of held money is refused, and in the end all money can be held by any process.
func testNodes(t *testing.T, fresh func(testing.TB) Place) {
	rapid.Check(t, func(rt *rapid.T) {
		c := &cluster{t: rt, place: fresh(t), wall: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
		for i := range 3 {
			c.nodes = append(c.nodes, &node{speed: 0.97 + 0.03*float64(i)})
			c.start(c.nodes[i])
		}
		for _, w := range purses {
			c.deposit(c.nodes[0], w, 1000)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"":           func(*rapid.T) { c.sound() },
			"hold":       c.hold,
			"hold again": c.hold,
			"extend":     c.extend,
			"settle":     c.settle,
			"release":    c.release,
			"pay":        c.pay,
			"earn": func(t *rapid.T) {
				c.deposit(c.any(t), c.purse(t), ledger.Amount(rapid.IntRange(1, 100).Draw(t, "amount")))
			},
			"tend":     func(t *rapid.T) { c.tend(c.any(t)) },
			"tend all": func(*rapid.T) { c.tendAll() },
			"time":     func(t *rapid.T) { c.pass(time.Duration(rapid.IntRange(1, 4000).Draw(t, "ms")) * time.Millisecond) },
			"pause":    c.pause,
			"outlive":  c.outlive,
			"replace":  c.replace,
			"jump": func(t *rapid.T) {
				c.any(t).jump += time.Duration(rapid.IntRange(-3600, 3600).Draw(t, "s")) * time.Second
			},
			"fail": c.fail,
		})
		c.finish()
	})
}

var purses = []ledger.AccountID{ledger.Wallet("alice"), ledger.Wallet("bob")}

// cluster is several processes that share a ledger.
type cluster struct {
	t     *rapid.T
	place Place
	wall  time.Time
	now   time.Duration
	nodes []*node
	dead  []*ledger.Ledger // of processes that were killed
	lost  []*held          // holds of killed processes
}

// node is one process.
type node struct {
	ledger *ledger.Ledger
	speed  float64       // of its clock
	jump   time.Duration // of its wall clock
	until  time.Duration // until when it is paused
	holds  []*held
}

// held is a hold, and the session in which it got what it has.
type held struct {
	*ledger.Hold
	session ledger.Session
}

func (c *cluster) start(n *node) {
	l, err := ledger.New(c.place.Open(), ledger.Options{
		Currency: "USDC", Logger: quiet, Untended: true, Lifetime: 10 * time.Second,
		Now:     func() time.Time { return c.wall.Add(c.now + n.jump) },
		Elapsed: func() time.Duration { return time.Duration(float64(c.now) * n.speed) },
	})
	c.must(err)
	n.ledger, n.holds, n.until = l, nil, 0
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// any returns a process that is not paused.
func (c *cluster) any(t *rapid.T) *node {
	var awake []*node
	for _, n := range c.nodes {
		if n.until <= c.now {
			awake = append(awake, n)
		}
	}
	if len(awake) == 0 {
		t.Skip("all are paused")
	}
	return awake[rapid.IntRange(0, len(awake)-1).Draw(t, "node")]
}

func (c *cluster) purse(t *rapid.T) ledger.AccountID {
	return rapid.SampledFrom(purses).Draw(t, "purse")
}

// works notes whether a process could do something. If its ledger takes no operations, it is opened again, as a server's worker does.
func (c *cluster) works(n *node, err error) bool {
	if err == nil || ledger.OutcomeOf(err) != ledger.OK {
		return true
	}
	if !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, ledger.ErrOutcomeUnknown) {
		c.t.Fatal(err)
	}
	for tries := 0; n.ledger.Err() != nil; tries++ { // a commit that is to fail may be that of Reopen
		if err := n.ledger.Reopen(); tries == 3 {
			c.t.Fatal(err)
		}
	}
	return false
}

func (c *cluster) deposit(n *node, to ledger.AccountID, amount ledger.Amount) {
	c.works(n, do(n.ledger, func(tx *ledger.Tx) error {
		_, err := tx.Post(ledger.Transfer{Debit: ledger.World, Credit: to, Amount: amount, Kind: "deposit"})
		return err
	}))
}

func (c *cluster) amount(t *rapid.T) ledger.Amount {
	return ledger.Amount(rapid.SampledFrom([]int{0, 1, 7, 50, 300, 900}).Draw(t, "amount"))
}

// mustLast checks that a process that was allowed to hold money had a session.
func (c *cluster) mustLast(n *node) {
	if !slices.Contains(c.sessions(), n.ledger.Session()) {
		c.t.Fatalf("a process held money after the others had ended its session")
	}
}

func (c *cluster) hold(t *rapid.T) {
	n, purse, amount := c.any(t), c.purse(t), c.amount(t)
	h, err := n.ledger.Hold(purse, amount)
	if !c.works(n, err) || err != nil {
		return
	}
	c.mustLast(n)
	n.holds = append(n.holds, &held{h, n.ledger.Session()})
}

// one returns a process that has a hold, and the hold.
func (c *cluster) one(t *rapid.T) (*node, *held) {
	n := c.any(t)
	if len(n.holds) == 0 {
		t.Skip("it holds nothing")
	}
	return n, n.holds[rapid.IntRange(0, len(n.holds)-1).Draw(t, "hold")]
}

func (c *cluster) extend(t *rapid.T) {
	n, h := c.one(t)
	by := c.amount(t)
	before := h.Amount()
	switch rapid.IntRange(0, 2).Draw(t, "how") {
	case 0:
		if err := h.Extend(by); !c.works(n, err) || err != nil {
			return
		}
	case 1:
		h.ExtendUpTo(by)
	default:
		h.Gather(by)
	}
	if h.Amount() > before {
		c.mustLast(n)
	}
	if h.Lost() > 0 || h.session != n.ledger.Session() {
		h.session = n.ledger.Session()
	}
}

func (c *cluster) settle(t *rapid.T) {
	n, h := c.one(t)
	amount := h.Amount()
	if amount == 0 {
		t.Skip("nothing is held")
	}
	if rapid.Bool().Draw(t, "a part") {
		amount = (amount + 1) / 2
	}
	err := do(n.ledger, func(tx *ledger.Tx) error {
		if _, err := tx.Post(ledger.Transfer{Debit: h.Account(), Credit: ledger.Wallet("shop"), Amount: amount, Kind: "charge"}, h.Hold); err != nil {
			return err
		}
		return tx.Release(h.Hold)
	})
	if c.works(n, err) && err != nil {
		c.t.Fatalf("a payment of held money was refused: %v", err)
	}
	if err == nil {
		n.holds = slices.DeleteFunc(n.holds, func(other *held) bool { return other == h })
	}
}

func (c *cluster) release(t *rapid.T) {
	n, h := c.one(t)
	h.Release()
	n.holds = slices.DeleteFunc(n.holds, func(other *held) bool { return other == h })
}

func (c *cluster) pay(t *rapid.T) {
	n, purse, amount := c.any(t), c.purse(t), max(1, c.amount(t))
	c.works(n, do(n.ledger, func(tx *ledger.Tx) error {
		_, err := tx.Post(ledger.Transfer{Debit: purse, Credit: ledger.Wallet("shop"), Amount: amount, Kind: "pay"})
		return err
	}))
}

func (c *cluster) tend(n *node) { c.works(n, n.ledger.Tend(context.Background())) }

func (c *cluster) tendAll() { c.tendOthers(nil) }

func (c *cluster) tendOthers(than *node) {
	for _, n := range c.nodes {
		if n.until <= c.now && n != than {
			c.tend(n)
		}
	}
}

// pass lets time pass. Processes that are not paused tend their sessions meanwhile, most of the time.
func (c *cluster) pass(d time.Duration) {
	c.now += d
	if d%3 != 0 {
		c.tendAll()
	}
}

func (c *cluster) pause(t *rapid.T) {
	c.any(t).until = c.now + time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds"))*time.Second
}

// outlive pauses a process until the others have ended its session. Then it does something before it knows.
func (c *cluster) outlive(t *rapid.T) {
	n := c.any(t)
	n.until = c.now + 15*time.Second
	for n.until > c.now {
		c.now += 3 * time.Second
		c.tendOthers(n)
	}
	others := rapid.SampledFrom(c.nodes).Draw(t, "other")
	if h, err := others.ledger.Hold(purses[0], 500); c.works(others, err) && err == nil {
		c.mustLast(others)
		others.holds = append(others.holds, &held{h, others.ledger.Session()})
	}
	h, err := n.ledger.Hold(purses[0], 5)
	if c.works(n, err) && err == nil {
		c.mustLast(n)
		n.holds = append(n.holds, &held{h, n.ledger.Session()})
	}
}

// replace closes or kills a process, and starts another one.
func (c *cluster) replace(t *rapid.T) {
	n := c.any(t)
	if rapid.Bool().Draw(t, "killed") {
		c.dead = append(c.dead, n.ledger)
		c.lost = append(c.lost, n.holds...)
	} else if err := n.ledger.Close(); err != nil && !errors.Is(err, ledger.ErrOutcomeUnknown) && !errors.Is(err, ledger.ErrUnavailable) {
		t.Fatal(err)
	}
	c.start(n)
}

func (c *cluster) fail(t *rapid.T) {
	if c.place.FailNext == nil {
		t.Skip("commits can't fail here")
	}
	n := c.any(t)
	c.place.FailNext(rapid.Bool().Draw(t, "kept"))
	c.deposit(n, purses[0], 1)
}

// view reads with any ledger.
func (c *cluster) view(fn func(ledger.Reader) error) { c.must(c.nodes[0].ledger.View(fn)) }

func (c *cluster) sessions() (valid []ledger.Session) {
	c.view(func(r ledger.Reader) (err error) {
		valid, err = ledger.Sessions(r)
		return err
	})
	return valid
}

// sound checks that the holds of sessions that are not over do not exceed what is available.
func (c *cluster) sound() {
	valid := c.sessions()
	sum := map[ledger.AccountID]ledger.Amount{}
	add := func(h *held) {
		if slices.Contains(valid, h.session) {
			sum[h.Account()] += h.Amount()
		}
	}
	for _, h := range c.lost {
		add(h)
	}
	for _, n := range c.nodes {
		for _, h := range n.holds {
			add(h)
		}
	}
	c.view(func(r ledger.Reader) error {
		for _, purse := range purses {
			account, err := ledger.ReadAccount(r, purse)
			if err != nil {
				return err
			}
			if sum[purse] > account.Available() {
				c.t.Fatalf("of %s, %s are held, but %s are available", purse, sum[purse], account.Available())
			}
		}
		return nil
	})
}

// finish lets all processes go on and give back what they hold. Then each of them can hold all that there is.
func (c *cluster) finish() {
	defer func() {
		for _, l := range c.dead {
			_ = l.Close()
		}
		for _, n := range c.nodes {
			_ = n.ledger.Close()
		}
	}()
	for _, n := range c.nodes {
		n.until = 0
		c.works(n, n.ledger.Err())
		for _, h := range n.holds {
			h.Release()
		}
	}
	for range 60 { // the sessions of killed processes end
		c.now += time.Second
		c.tendAll()
	}
	if valid := c.sessions(); len(valid) != len(c.nodes) {
		c.t.Fatalf("%d sessions are left, of %d processes", len(valid), len(c.nodes))
	}
	for _, n := range c.nodes {
		for _, purse := range purses {
			account, _, err := n.ledger.Balance(purse)
			c.must(err)
			h, err := n.ledger.Hold(purse, account.Available())
			if err != nil { // it has recalled what the others have
				c.tendAll()
				h, err = n.ledger.Hold(purse, account.Available())
			}
			c.must(err)
			h.Release()
		}
	}
	report, err := c.nodes[0].ledger.Check(context.Background(), nil)
	c.must(err)
	if len(report.Wrong) > 0 {
		c.t.Fatal(report.Wrong)
	}
}
