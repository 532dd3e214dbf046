package ledger

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

// sample makes a ledger with all kinds of records, over three days.
func sample(t *testing.T) (*plain, *Ledger) {
	t.Helper()
	s := newPlain()
	l := newLedger(s)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	l.now = func() time.Time { return now }
	if err := l.open("USDC", current); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		now = now.AddDate(0, 0, 1)
		err := do(l, func(tx *Tx) error {
			tx.Put([]byte("dsome"), []byte("record"))
			var seqs []uint64
			for _, transfer := range []Transfer{
				{Debit: World, Credit: Wallet("alice"), Amount: 10, Kind: "deposit"},
				{Debit: Wallet("alice"), Credit: Wallet("bob"), Amount: 3, Kind: "charge", Reference: "r"},
			} {
				posted, err := tx.Post(transfer)
				if err != nil {
					return err
				}
				seqs = append(seqs, posted.Seq)
			}
			for range 2 {
				p, err := tx.Pend(Transfer{Debit: Wallet("alice"), Credit: Wallet("bob"), Amount: 2, Kind: "draw", Reference: "r"})
				if err != nil {
					return err
				}
				seqs = append(seqs, p.Seq)
			}
			_, err := tx.Resolve(seqs[2], 1, "charge", "")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s, l
}

func wrong(t *testing.T, l *Ledger) []string {
	t.Helper()
	report, err := l.Check(context.Background(), nil)
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	var all []string
	for _, f := range report.Wrong {
		all = append(all, f.String())
	}
	return all
}

// TestCheckFindsAnyRecord: Check finds each record of the books that is lost, changed or forged. Domain records it can only read.
func TestCheckFindsAnyRecord(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	if found := wrong(t, l); len(found) > 0 {
		t.Fatalf("the sample is wrong: %v", found)
	}
	whole := maps.Clone(s.records)
	for key, value := range whole {
		if key[0] == DomainPrefix || key == string(metaKey) {
			continue
		}
		damage := map[string]func(sorted){
			"lost":   func(r sorted) { delete(r, key) },
			"forged": func(r sorted) { r[key[:len(key)-1]+string(key[len(key)-1]+100)] = value },
		}
		if key[0] != pendingPrefix { // the value of a pending record has no meaning
			damage["changed"] = func(r sorted) { r[key] = changed(value) }
		}
		for what, do := range damage {
			s.records = maps.Clone(whole)
			do(s.records)
			l.readOnly = nil
			if found := wrong(t, l); len(found) == 0 {
				t.Errorf("%q was %s, and Check found nothing", key, what)
			}
			if !errors.Is(l.Err(), ErrReadOnly) {
				t.Errorf("%q was %s: the ledger is not read-only: %v", key, what, l.Err())
			}
		}
	}
}

// changed alters the last byte of a value. The value can still be decoded, since numbers and texts end with that byte.
func changed(value string) string {
	bytes := []byte(value)
	bytes[len(bytes)-1] ^= 1
	return string(bytes)
}

// TestCheckNames: findings name what is wrong, and begin with the first wrong account.
func TestCheckNames(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	alice := string(accountKey(Wallet("alice")))
	s.records[alice] = string(encode(Account{CreditsPosted: 1000}))
	found := wrong(t, l)
	if len(found) != 2 || !strings.HasPrefix(found[0], "account wallet:alice: its record states debits 0 (pending 0), credits 0.000001") || !strings.Contains(found[1], "sum of all balances") {
		t.Errorf("found %q", found)
	}
	if _, err := l.Hold(Wallet("alice"), 1); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a hold on wrong books: %v", err)
	}
	if err := do(l, func(tx *Tx) error { return nil }); !errors.Is(err, ErrReadOnly) {
		t.Errorf("an operation on wrong books: %v", err)
	}
	if _, _, err := l.Balance(Wallet("bob")); err != nil {
		t.Errorf("reading wrong books: %v", err)
	}
	if err := l.Reopen(); err == nil {
		if _, err := l.Hold(Wallet("alice"), 1); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a hold on wrong books after reopening: %v", err)
		}
	}
}

// TestBrokenInvariant: a running ledger whose account record is forged stops at the next transfer.
func TestBrokenInvariant(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	hold, err := l.Hold(Wallet("alice"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release()
	forged := maps.Clone(s.records)
	forged[string(accountKey(Wallet("alice")))] = string(encode(Account{CreditsPosted: 1000}))
	if _, err := submit(s, func(Writer) (struct{}, error) { s.records = forged; return struct{}{}, nil }); err != nil {
		t.Fatal(err)
	}
	err = do(l, func(tx *Tx) error {
		_, err := tx.Post(Transfer{Debit: Wallet("alice"), Credit: Wallet("bob"), Amount: 500})
		return err
	})
	if !errors.Is(err, ErrReadOnly) || !errors.Is(l.Err(), ErrReadOnly) {
		t.Errorf("a transfer from a forged account: %v, %v", err, l.Err())
	}
}

// TestProves: each head of the hash chain proves the history up to it.
func TestProves(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	ctx := context.Background()
	var heads []Head
	if err := l.View(func(r Reader) error {
		return r.Scan(Prefix([]byte{headPrefix}), func(key, value []byte) (bool, error) {
			h, err := decodeHead(key, value)
			heads = append(heads, h)
			return true, err
		})
	}); err != nil {
		t.Fatal(err)
	}
	if len(heads) != 2 || heads[0].Day != "2026-11-25" || heads[0].Seq != 6 || heads[1].Day != "2026-11-26" || heads[1].Seq != 12 {
		t.Fatalf("heads: %v", heads)
	}
	stand, err := l.Stand()
	if err != nil || stand.Transfers != 18 || stand.Head.Seq != 18 || stand.Head.Day != "2026-11-27" {
		t.Errorf("stand: %v, %v", stand, err)
	}
	for _, h := range append(heads, stand.Head, Head{}) {
		if ok, err := l.Proves(ctx, h); !ok || err != nil {
			t.Errorf("head %v is not proved: %v", h, err)
		}
		h.Hash[3] ^= 1
		if ok, err := l.Proves(ctx, h); ok || err != nil {
			t.Errorf("head %v is proved: %v", h, err)
		}
	}
	if ok, err := l.Proves(ctx, Head{Seq: 19}); ok || err != nil {
		t.Errorf("a head of the future is proved: %v", err)
	}
	report, err := l.Check(ctx, nil)
	if err != nil || report.Head != stand.Head {
		t.Errorf("check: head %v, %v; want %v", report.Head, err, stand.Head)
	}
}

// TestRewrittenHistory: if a transfer is rewritten together with everything that depends on it, including the daily heads, a head that was
// kept elsewhere proves it.
func TestRewrittenHistory(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	kept, err := l.Stand()
	if err != nil {
		t.Fatal(err)
	}
	forger, books := sample(t)
	defer forger.Close()
	err = forger.rewrite(books)
	if err != nil {
		t.Fatal(err)
	}
	if found := wrong(t, books); len(found) > 0 {
		t.Fatalf("the forger was careless: %v", found)
	}
	s.records = forger.records
	if ok, err := l.Proves(context.Background(), kept.Head); ok || err != nil {
		t.Errorf("history was rewritten, and is proved: %v", err)
	}
}

// rewrite changes a memo and computes the hash chain again.
func (p *plain) rewrite(l *Ledger) error {
	state, err := readState(p.records)
	if err != nil {
		return err
	}
	head, heads := Head{}, map[string]Head{}
	for seq := uint64(1); seq <= state.Seq; seq++ {
		t, _, err := ReadTransfer(p.records, seq)
		if err != nil {
			return err
		}
		if seq == 2 {
			t.Memo = "forged"
		}
		key, value := transferKey(seq), encode(t.record())
		p.records[string(key)] = string(value)
		head = Head{Day: t.Time.Format(time.DateOnly), Seq: seq, Hash: link(head.Hash, key, value)}
		heads[head.Day] = head
	}
	for day, h := range heads {
		if day != head.Day {
			p.records[string(headKey(day))] = string(encode(headRecord{Seq: h.Seq, Head: h.Hash}))
		}
	}
	state.Head = head.Hash
	p.records[string(stateKey)] = string(encode(state))
	return nil
}

// TestDamagedRecord: a record that can't be read makes the ledger read-only, whether a read, a hold or an operation finds it.
func TestDamagedRecord(t *testing.T) {
	for name, find := range map[string]func(*Ledger) error{
		"reading": func(l *Ledger) error { _, _, err := l.Balance(Wallet("alice")); return err },
		"holding": func(l *Ledger) error { _, err := l.Hold(Wallet("alice"), 1); return err },
		"paying": func(l *Ledger) error {
			return do(l, func(tx *Tx) error {
				_, err := tx.Post(Transfer{Debit: Wallet("alice"), Credit: Wallet("bob"), Amount: 1})
				return err
			})
		},
	} {
		s, l := sample(t)
		s.records[string(accountKey(Wallet("alice")))] = "\xff"
		if err := find(l); !errors.Is(err, ErrCorrupt) || !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), "awallet:alice") {
			t.Errorf("%s: %v", name, err)
		}
		if err := do(l, func(*Tx) error { return nil }); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s, then an operation: %v", name, err)
		}
		if _, _, err := l.Balance(Wallet("bob")); err != nil {
			t.Errorf("%s, then reading what is whole: %v", name, err)
		}
		s.Close()
	}
}
