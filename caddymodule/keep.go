package caddymodule

import (
	"errors"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// KeepResponses keeps the answers to calls with an Idempotency-Key. A caller whose answer got lost on its way makes the call again under
// the same key, and is given the kept answer, free of charge. Answers are kept in the ledger's store, sealed by a key that is derived from the caller's own key. The caller's key is
// not stored, so that only a call with it opens them. Event streams are not kept, nor are answers longer than Size.
//
// Kept answers cost disk. Each is written twice, to the journal and from there to its place, and takes its size until its idempotency key
// is forgotten a day later. At most 1 GiB is kept in all, and 64 MiB of one agent; what comes beyond is not kept.
// An answer that is to be kept is passed on when it is whole.
type KeepResponses struct {
	// Size is the most bytes that a kept answer may have, its header included; at most 16 MiB.
	Size int64 `json:"size"`
	// For is how long an answer is given again; at most 24h.
	For caddy.Duration `json:"for"`
}

func (k *KeepResponses) check() error {
	if k.Size < 1 || k.Size > gateway.MaxKept {
		return errors.New("keep_responses: expected a size up to 16MiB, such as 1MiB")
	}
	if k.For <= 0 || time.Duration(k.For) > escrow.KeptFor {
		return errors.New("keep_responses: expected a time up to 24h, as long as an Idempotency-Key is remembered")
	}
	return nil
}

// unmarshalKeepResponses reads
//
//	keep_responses SIZE for D
func unmarshalKeepResponses(d *caddyfile.Dispenser) (*KeepResponses, error) {
	args := d.RemainingArgs()
	if len(args) != 3 || args[1] != "for" {
		return nil, d.Errf("unexpected 'keep_responses %s': expected 'keep_responses SIZE for D', such as 'keep_responses 1MiB for 24h'", strings.Join(args, " "))
	}
	size, err := parseSize(d, args[0])
	if err != nil {
		return nil, err
	}
	lasts, err := caddy.ParseDuration(args[2])
	if err != nil {
		return nil, d.Errf("unexpected %q: expected a duration such as 24h", args[2])
	}
	k := &KeepResponses{Size: size, For: caddy.Duration(lasts)}
	return k, atLine(d, k.check())
}
