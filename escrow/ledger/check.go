package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Report is the result of [Ledger.Check].
type Report struct {
	Transfers uint64
	Accounts  int
	Pendings  int    // pending transfers that are not resolved yet
	Records   uint64 // all records, of every kind; each was read
	Seconds   float64
	Head      Head // the head of the hash chain; keep it elsewhere to find out later whether history was rewritten (Ledger.Proves)
	Wrong     []Finding
}

// Finding is one thing that is wrong with the books.
type Finding struct {
	Account AccountID // empty if the finding is not about an account
	Seq     uint64    // the number of the transfer, 0 if the finding is not about a transfer
	What    string
}

// String returns the finding in one line.
func (f Finding) String() string {
	switch {
	case f.Account != "" && f.Seq != 0:
		return fmt.Sprintf("account %s, transfer %d: %s", f.Account, f.Seq, f.What)
	case f.Account != "":
		return fmt.Sprintf("account %s: %s", f.Account, f.What)
	case f.Seq != 0:
		return fmt.Sprintf("transfer %d: %s", f.Seq, f.What)
	default:
		return f.What
	}
}

const (
	checkPage   = 4096 // records read in one view
	maxFindings = 100
)

// errEnough ends a check once it has maxFindings findings.
var errEnough = errors.New("enough found")

// checker derives the books from the transfers alone.
type checker struct {
	ledger   *Ledger
	report   Report
	progress Progress
	total    int64 // transfers when the check began

	seq      uint64 // of the last transfer that was replayed
	time     time.Time
	head     Head
	heads    map[string]Head // by day, without the last day
	accounts map[AccountID]*derived
	open     map[uint64]*openPending
	entry    Finding // the entry with the highest number, as a finding
}

type derived struct {
	Account
	entries int // posted transfers
}

type openPending struct {
	transfer Transfer
	left     Amount
}

// Check proves that the books are right. It replays all transfers and compares the result with what is recorded: the four counters of
// each account, the balance in each entry, the pending transfers, and the hash chain with its daily heads. The sum of all balances
// must be zero, and every record must be readable. Check works on a live ledger: it reads in short views, and operations go on
// meanwhile. An error means that the check could not finish. If the books are wrong, the report lists why, and the ledger becomes
// read-only.
func (l *Ledger) Check(ctx context.Context, progress Progress) (Report, error) {
	begin := time.Now()
	stand, err := l.Stand()
	if err != nil {
		return Report{}, err
	}
	c := &checker{
		ledger: l, progress: progress, total: int64(stand.Transfers),
		heads: map[string]Head{}, accounts: map[AccountID]*derived{}, open: map[uint64]*openPending{},
	}
	err = c.run(ctx)
	c.report.Transfers, c.report.Accounts, c.report.Pendings, c.report.Head = c.seq, len(c.accounts), len(c.open), c.head
	c.report.Seconds = time.Since(begin).Seconds()
	if len(c.report.Wrong) > 0 {
		_ = l.broke(errors.New(c.report.Wrong[0].String()))
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return c.report, err
}

func (c *checker) run(ctx context.Context) error {
	if err := c.replayAll(ctx); err != nil {
		return err
	}
	if err := c.readAll(ctx); err != nil {
		return err
	}
	// Transfers that were written meanwhile are replayed first. So the last view, which makes all comparisons, stays short.
	if err := c.replayAll(ctx); err != nil {
		return err
	}
	return c.ledger.View(func(r Reader) error {
		for more := true; more; {
			var err error
			if more, err = c.replay(r); err != nil {
				return err
			}
		}
		return c.compare(r)
	})
}

// wrong adds a finding to the report. It returns errEnough when the report is full.
func (c *checker) wrong(f Finding) error {
	c.report.Wrong = append(c.report.Wrong, f)
	if len(c.report.Wrong) >= maxFindings {
		return errEnough
	}
	return nil
}

// replayAll replays transfers, page by page, until there are no more.
func (c *checker) replayAll(ctx context.Context) error {
	for more := true; more; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		err := c.ledger.View(func(r Reader) (err error) {
			more, err = c.replay(r)
			return err
		})
		if err != nil {
			return err
		}
		c.progress.Tell("transfers", int64(c.seq), c.total)
	}
	return nil
}

// replay replays one page of transfers.
func (c *checker) replay(r Reader) (more bool, err error) {
	read := 0
	err = c.scan(r, Range{From: transferKey(c.seq + 1), To: []byte{transferPrefix + 1}}, func(key, value []byte) (bool, error) {
		read++
		t, err := decodeTransfer(key, value)
		if err != nil {
			return false, err
		}
		if err := c.take(r, t, key, value); err != nil {
			return false, err
		}
		return read < checkPage, nil
	})
	return read == checkPage, err
}

// scan is like r.Scan, but reports a damaged record as a finding and goes on after it.
func (c *checker) scan(r Reader, in Range, fn func(key, value []byte) (bool, error)) error {
	for {
		err := r.Scan(in, fn)
		damage, ok := errors.AsType[*CorruptError](err)
		if !ok {
			return err
		}
		f := Finding{What: damage.Error()}
		if len(damage.Key) > 1 && damage.Key[0] == accountPrefix {
			f.Account = AccountID(damage.Key[1:])
		}
		if err := c.wrong(f); err != nil {
			return err
		}
		if bytes.Compare(damage.Key, in.From) < 0 {
			return nil // the scan can't continue after this record
		}
		in.From = append(bytes.Clone(damage.Key), 0)
	}
}

// take applies one transfer to the derived accounts, and checks the entries that were recorded with it.
func (c *checker) take(r Reader, t Transfer, key, value []byte) error {
	if t.Seq != c.seq+1 {
		if err := c.wrong(Finding{Seq: c.seq + 1, What: fmt.Sprintf("the transfers from this one to %d are missing", t.Seq-1)}); err != nil {
			return err
		}
	}
	c.seq = t.Seq
	if t.Time.Before(c.time) {
		if err := c.wrong(Finding{Seq: t.Seq, What: fmt.Sprintf("its time %s is earlier than the time of the transfer before it", t.Time)}); err != nil {
			return err
		}
	}
	c.time = t.Time
	c.chain(t, key, value)
	debit, credit := c.account(t.Debit), c.account(t.Credit)
	debitAfter, creditAfter, outcome := apply(debit.Account, credit.Account, 0, t)
	if outcome == OK {
		outcome = c.pending(t)
	}
	if outcome != OK {
		return c.wrong(Finding{Account: t.Debit, Seq: t.Seq, What: fmt.Sprintf("the rules refuse it: %s", outcome)})
	}
	debit.Account, credit.Account = debitAfter, creditAfter
	if t.Phase != Posted && t.Phase != PostPending {
		return nil
	}
	debit.entries++
	credit.entries++
	if err := c.checkEntry(r, t.Debit, t.Seq, debit.Balance()); err != nil {
		return err
	}
	return c.checkEntry(r, t.Credit, t.Seq, credit.Balance())
}

func (c *checker) account(id AccountID) *derived {
	if a, ok := c.accounts[id]; ok {
		return a
	}
	a := &derived{}
	c.accounts[id] = a
	return a
}

func (c *checker) chain(t Transfer, key, value []byte) {
	day := t.Time.Format(time.DateOnly)
	if c.head.Day != "" && c.head.Day != day {
		c.heads[c.head.Day] = c.head
	}
	c.head = Head{Day: day, Seq: t.Seq, Hash: link(c.head.Hash, key, value)}
}

// pending keeps track of the pending transfers and of how they are resolved.
func (c *checker) pending(t Transfer) Outcome {
	switch t.Phase {
	case Pending:
		c.open[t.Seq] = &openPending{t, t.Amount}
	case PostPending, VoidPending:
		p, ok := c.open[t.Pending]
		if !ok {
			return PendingNotFound
		}
		if p.transfer.Debit != t.Debit || p.transfer.Credit != t.Credit {
			return InvalidTransfer
		}
		if t.Amount > p.left {
			return ExceedsPending
		}
		if p.left -= t.Amount; p.left == 0 {
			delete(c.open, t.Pending)
		}
	}
	return OK
}

func (c *checker) checkEntry(r Reader, id AccountID, seq uint64, balance Amount) error {
	key := entryKey(id, seq)
	value, err := r.Get(key)
	if errors.Is(err, ErrCorrupt) {
		return c.wrong(Finding{Account: id, Seq: seq, What: err.Error()})
	}
	if err != nil {
		return err
	}
	if value == nil {
		return c.wrong(Finding{Account: id, Seq: seq, What: "its entry is missing"})
	}
	var record entryRecord
	if err := decode(key, value, &record); err != nil {
		return c.wrong(Finding{Account: id, Seq: seq, What: err.Error()})
	}
	if record.BalanceAfter != balance {
		return c.wrong(Finding{Account: id, Seq: seq, What: fmt.Sprintf("its entry states a balance of %s, but the transfers make %s", record.BalanceAfter, balance)})
	}
	return nil
}

// readAll reads every record, page by page, and counts each account's entries.
func (c *checker) readAll(ctx context.Context) error {
	upTo, entries := c.seq, map[AccountID]int{}
	for from := []byte{}; from != nil; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		next := []byte(nil)
		err := c.ledger.View(func(r Reader) error {
			read := 0
			return c.scan(r, Range{From: from}, func(key, value []byte) (bool, error) {
				read++
				c.report.Records++
				if read == checkPage {
					next = append(bytes.Clone(key), 0)
				}
				return read < checkPage, c.record(key, value, upTo, entries)
			})
		})
		if err != nil {
			return err
		}
		c.progress.Tell("records", int64(c.report.Records), 0)
		from = next
	}
	return c.entries(entries)
}

// entries compares the number of entries that each account has with the number that its transfers make.
func (c *checker) entries(counted map[AccountID]int) error {
	for id, n := range counted {
		if a, ok := c.accounts[id]; !ok || a.entries != n {
			want := 0
			if ok {
				want = a.entries
			}
			if err := c.wrong(Finding{Account: id, What: fmt.Sprintf("it has %d entries, but its transfers make %d", n, want)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// record checks that a record is of a known kind and can be read. It counts the entries of the transfers up to upTo.
func (c *checker) record(key, value []byte, upTo uint64, entries map[AccountID]int) error {
	switch key[0] {
	case transferPrefix, accountPrefix, pendingPrefix, headPrefix, leasePrefix, recallPrefix, beatPrefix, DomainPrefix:
		return nil
	case entryPrefix:
		seq, err := lastSeq(key)
		if err != nil {
			return err
		}
		account := AccountID(key[1 : len(key)-9])
		if seq <= upTo {
			entries[account]++
		}
		if seq > c.entry.Seq {
			c.entry = Finding{Account: account, Seq: seq, What: "it has an entry, but there is no such transfer"}
		}
		return nil
	case metaPrefix:
		if bytes.Equal(key, metaKey) || bytes.Equal(key, stateKey) {
			return nil
		}
	}
	return c.wrong(Finding{What: fmt.Sprintf("record %q is of an unknown kind", key)})
}

// compare compares the current state, as recorded, with the state that the transfers make.
func (c *checker) compare(r Reader) error {
	state, err := readState(r)
	if err != nil {
		return err
	}
	if state.Seq != c.seq {
		if err := c.wrong(Finding{Seq: state.Seq, What: fmt.Sprintf("it is recorded as the last transfer, but the last one is %d", c.seq)}); err != nil {
			return err
		}
	}
	if c.entry.Seq > c.seq {
		if err := c.wrong(c.entry); err != nil {
			return err
		}
	}
	if got := state.stand().Head; got != c.head {
		if err := c.wrong(Finding{What: "the hash chain's head is not what the transfers make: history was rewritten"}); err != nil {
			return err
		}
	}
	if err := c.compareHeads(r); err != nil {
		return err
	}
	if err := c.compareAccounts(r); err != nil {
		return err
	}
	return c.comparePendings(r)
}

func (c *checker) compareHeads(r Reader) error {
	listed := 0
	err := c.scan(r, Prefix([]byte{headPrefix}), func(key, value []byte) (bool, error) {
		h, err := decodeHead(key, value)
		if err != nil {
			return false, err
		}
		listed++
		if h != c.heads[h.Day] {
			return true, c.wrong(Finding{Seq: h.Seq, What: fmt.Sprintf("the hash chain's head at the end of %s is not what the transfers make: history was rewritten", h.Day)})
		}
		return true, nil
	})
	if err == nil && listed != len(c.heads) {
		err = c.wrong(Finding{What: fmt.Sprintf("there are %d daily heads of the hash chain, but there should be %d", listed, len(c.heads))})
	}
	return err
}

func (c *checker) compareAccounts(r Reader) error {
	sum := new(big.Int)
	seen := 0
	err := c.scan(r, Prefix([]byte{accountPrefix}), func(key, value []byte) (bool, error) {
		id := AccountID(key[1:])
		var got Account
		if err := decode(key, value, &got); err != nil {
			return false, err
		}
		sum.Add(sum, big.NewInt(int64(got.Balance())))
		want := Account{}
		if a, ok := c.accounts[id]; ok {
			want = a.Account
			seen++
		}
		if got != want {
			return true, c.wrong(Finding{Account: id, What: fmt.Sprintf("its record states %s, but its transfers make %s", got, want)})
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	if seen != len(c.accounts) {
		for id := range c.accounts {
			if value, err := r.Get(accountKey(id)); err == nil && value == nil {
				if err := c.wrong(Finding{Account: id, What: "its record is missing"}); err != nil {
					return err
				}
			}
		}
	}
	if sum.Sign() != 0 {
		return c.wrong(Finding{What: fmt.Sprintf("the sum of all balances is %s nanos, not zero", sum)})
	}
	return nil
}

func (c *checker) comparePendings(r Reader) error {
	listed := 0
	err := c.scan(r, Prefix([]byte{pendingPrefix}), func(key, _ []byte) (bool, error) {
		seq, err := lastSeq(key)
		if err != nil {
			return false, err
		}
		p, ok := c.open[seq]
		if !ok || !bytes.Equal(key, pendingKey(p.transfer.Reference, seq)) {
			return true, c.wrong(Finding{Seq: seq, What: "it is listed as pending, but is not pending"})
		}
		listed++
		if p.left != p.transfer.Amount {
			return true, c.wrong(Finding{Account: p.transfer.Debit, Seq: seq, What: "only a part of it was resolved"})
		}
		return true, nil
	})
	if err == nil && listed != len(c.open) {
		err = c.wrong(Finding{What: fmt.Sprintf("%d transfers are listed as pending, but %d are pending", listed, len(c.open))})
	}
	return err
}

// Proves takes a head of the hash chain that was kept elsewhere. It reports whether the ledger's history up to that head is unchanged.
func (l *Ledger) Proves(ctx context.Context, kept Head) (bool, error) {
	head := Head{}
	for head.Seq < kept.Seq {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		before := head.Seq
		err := l.View(func(r Reader) error {
			read := 0
			return r.Scan(Range{From: transferKey(head.Seq + 1), To: transferKey(kept.Seq + 1)}, func(key, value []byte) (bool, error) {
				read++
				seq, err := lastSeq(key)
				head.Seq, head.Hash = seq, link(head.Hash, key, value)
				return read < checkPage, err
			})
		})
		if err != nil {
			return false, err
		}
		if head.Seq == before {
			return false, nil // the ledger has fewer transfers than the head
		}
	}
	return head.Seq == kept.Seq && head.Hash == kept.Hash, nil
}
