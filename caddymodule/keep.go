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

// KeepResponses stores the answers to calls with an Idempotency-Key. If an answer gets lost on its way, the caller repeats the call with
// the same key and gets the stored answer, free of charge. Answers are stored in the ledger's store. They are encrypted with a key that
// is derived from the caller's own key. The caller's key is not stored, so only a call with that key can read them. Event streams
// and answers longer than Size are not stored.
//
// Stored answers need disk space. Each is written twice, to the journal and then to its final place, and stays there for a day, until its
// idempotency key is forgotten. At most 1 GiB is stored in total, and 64 MiB per agent; answers beyond that are not stored. An answer
// that is to be stored is passed on only when it is complete.
type KeepResponses struct {
	// Size is the largest size of a stored answer in bytes, including its header. It may be up to 16 MiB.
	Size int64 `json:"size"`
	// For is how long a stored answer is used. It may be up to 24h.
	For caddy.Duration `json:"for"`
}

func (k *KeepResponses) check() error {
	if k.Size < 1 || k.Size > gateway.MaxKept {
		return errors.New("keep_responses: expected a size up to 16MiB, such as 1MiB")
	}
	if k.For <= 0 || time.Duration(k.For) > escrow.KeptFor {
		return errors.New("keep_responses: expected a time up to 24h, since Idempotency-Keys are remembered for 24h")
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
