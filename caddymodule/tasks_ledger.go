package caddymodule

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/escrow/ledger/ledgercopy"
)

// verified is the result of `tallygate ledger verify`, and of the verification of a backup.
type verified struct {
	Good             bool     `json:"good"`
	Transfers        uint64   `json:"transfers"`
	Accounts         int      `json:"accounts"`
	Seconds          float64  `json:"seconds"`
	EntriesPerSecond int64    `json:"entries_per_second"`
	Head             head     `json:"head"`
	Wrong            []string `json:"wrong,omitempty"`
}

// head is the head of the hash chain over all transfers. If it is kept elsewhere, it can be found out later whether history was rewritten.
type head struct {
	Day      string `json:"day"`
	Transfer uint64 `json:"transfer"`
	Hash     string `json:"hash"`
}

func showHead(h ledger.Head) head {
	return head{Day: h.Day, Transfer: h.Seq, Hash: hex.EncodeToString(h.Hash[:])}
}

func verifiedReport(r ledger.Report) verified {
	v := verified{Transfers: r.Transfers, Accounts: r.Accounts, Seconds: r.Seconds, Head: showHead(r.Head)}
	if v.Seconds > 0 {
		v.EntriesPerSecond = int64(float64(v.Transfers) / v.Seconds)
	}
	for _, finding := range r.Wrong {
		v.Wrong = append(v.Wrong, finding.String())
	}
	v.Good = len(v.Wrong) == 0
	return v
}

type verifyArgs struct {
	// Head is a head that was printed before. It must still be in the hash chain.
	Head *head `json:"head,omitempty"`
}

func verifyLedger(ctx context.Context, on bench, args verifyArgs) (verified, error) {
	report, err := on.Check(ctx, on.progress)
	if errors.Is(err, ledger.ErrCorrupt) {
		v := verified{Wrong: []string{err.Error()}}
		noteVerified(on.Ledger(), v)
		return v, nil
	}
	if err != nil {
		return verified{}, err
	}
	v := verifiedReport(report.Ledger)
	for _, finding := range report.Wrong {
		v.Wrong = append(v.Wrong, finding.String())
	}
	if args.Head != nil {
		kept, err := args.Head.read()
		if err != nil {
			return verified{}, err
		}
		same, err := on.Ledger().Proves(ctx, kept)
		if err != nil {
			return verified{}, err
		}
		if !same {
			v.Wrong = append(v.Wrong, fmt.Sprintf("the transfers up to %d do not match the head %s: history was rewritten", kept.Seq, args.Head.Hash))
		}
	}
	v.Good = len(v.Wrong) == 0
	noteVerified(on.Ledger(), v)
	return v, nil
}

func (h head) read() (ledger.Head, error) {
	kept := ledger.Head{Day: h.Day, Seq: h.Transfer}
	hash, err := hex.DecodeString(h.Hash)
	if err != nil || len(hash) != len(kept.Hash) {
		return kept, fmt.Errorf("head %q: expected TRANSFER:HASH as verify prints it", h.Hash)
	}
	copy(kept.Hash[:], hash)
	return kept, nil
}

// stat is the result of `tallygate ledger stat`.
type stat struct {
	Store     string    `json:"store"`
	Currency  string    `json:"currency"`
	Bytes     int64     `json:"bytes,omitempty"`
	Transfers uint64    `json:"transfers"`
	LastAt    time.Time `json:"last_at"`
	Head      head      `json:"head"`
	// Trouble is the reason why the ledger refuses operations now. It is empty if there is none.
	Trouble string `json:"trouble,omitempty"`
}

func statLedger(_ context.Context, on bench, _ struct{}) (stat, error) {
	stand, err := on.Ledger().Stand()
	if err != nil {
		return stat{}, err
	}
	s := stat{Currency: on.Currency(), Transfers: stand.Transfers, LastAt: stand.Time, Head: showHead(stand.Head)}
	if file, ok := on.store.(interface {
		Path() string
		Size() (int64, error)
	}); ok {
		s.Store = file.Path()
		if s.Bytes, err = file.Size(); err != nil {
			return s, err
		}
	}
	if trouble := on.Ledger().Err(); trouble != nil {
		s.Trouble = trouble.Error()
	}
	return s, nil
}

type backupArgs struct {
	// File is the absolute path of the backup. There must be no file at this path.
	File string `json:"file"`
}

func backupLedger(ctx context.Context, on bench, args backupArgs) (verified, error) {
	store, ok := on.store.(interface {
		BackupFile(ctx context.Context, path string, progress ledger.Progress) (ledger.Report, error)
	})
	if !ok { // a store that is not a file is backed up into one
		copied := func(records int64) { on.progress.Tell("records", records, 0) }
		report, err := bolt.Import(ctx, args.File, bolt.Options{}, on.progress, func(to ledger.Store) error { return ledgercopy.Snapshot(ctx, on.store, to, copied) })
		return verifiedReport(report), err
	}
	report, err := store.BackupFile(ctx, args.File, on.progress)
	return verifiedReport(report), err
}
