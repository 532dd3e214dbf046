package caddymodule

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// KeepResponses lets who has lost the answer to a call with an Idempotency-Key on its way have it again, for nothing, by making the
// call again. Answers are kept in the ledger's store, sealed by a key that is derived from the caller's own, which is not kept: only a call
// with that key opens them. Event streams, and answers that are longer, are not kept.
//
// It costs disk: each answer is written twice on its way (to the journal, and from there to its place) and takes its size until its
// idempotency key is forgotten, a day later; at most 1 GiB in all and 64 MiB of one agent, beyond which answers are not kept.
// An answer that is to be kept goes out when it is whole.
type KeepResponses struct {
	// Size is the most bytes that a kept answer may have, its header included; at most 16 MiB.
	Size int64 `json:"size"`
	// For is how long an answer is given again; at most 24h.
	For caddy.Duration `json:"for"`
}

func (k *KeepResponses) check() error {
	if k.Size < 1 || k.Size > gateway.MaxKept {
		return fmt.Errorf("keep_responses: expected a size up to 16MiB, such as 1MiB")
	}
	if k.For <= 0 || time.Duration(k.For) > escrow.KeptFor {
		return fmt.Errorf("keep_responses: expected a time up to 24h, as long as an Idempotency-Key is remembered")
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
	k := new(KeepResponses)
	digits, factor := args[0], int64(1)
	for unit, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20} {
		if s, ok := strings.CutSuffix(args[0], unit); ok {
			digits, factor = s, bytes
		}
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return nil, d.Errf("unexpected %q: expected a number of bytes, KiB or MiB, such as 1MiB", args[0])
	}
	lasts, err := caddy.ParseDuration(args[2])
	if err != nil {
		return nil, d.Errf("unexpected %q: expected a duration such as 24h", args[2])
	}
	k.Size, k.For = int64(n)*factor, caddy.Duration(lasts)
	return k, atLine(d, k.check())
}
