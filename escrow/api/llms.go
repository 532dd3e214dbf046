package api

import (
	"fmt"
	"slices"
	"strings"
)

// llmsText returns the answer to /llms.txt, which tells an agent how to pay, register, fund its wallet, call and stop.
func (s *server) llmsText(routes []Sold) string {
	return strings.NewReplacer("PREFIX", s.o.Prefix, "PAYING\n", payText(routes)).Replace(llms)
}

// payText tells how to pay without an account; it is empty if nobody can.
func payText(routes []Sold) string {
	var ways []string
	for _, sold := range routes {
		for _, offer := range sold.Offers {
			way := "- "
			if offer["method"] == "x402" {
				way += fmt.Sprintf("x402 (header PAYMENT-REQUIRED): %v units of %v on %v", offer["amount"], offer["currency"], offer["network"])
			} else {
				way += fmt.Sprintf("MPP (header WWW-Authenticate: Payment): method %v, intent %v, %v of the smallest units of %v", offer["method"], offer["intent"], offer["amount"], offer["currency"])
			}
			if !slices.Contains(ways, way) {
				ways = append(ways, way)
			}
		}
	}
	if len(ways) == 0 {
		return ""
	}
	return paying + strings.Join(ways, "\n") + "\n\n"
}

const paying = `## Pay without an account
Call a metered route without a key. The 402 says how to pay; its amount counts, and it may be more than here. Send the same request again with the
payment. What you pay is prepaid credit: the call is charged by what it used, and the rest stays yours. The first answer to a payment has
"Authorization: Bearer KEY", once. Keep the key: send it as "Tallygate-Key: KEY", and the credit pays for later calls until it is used up. If the
answer was lost, send the same request with the same payment again: it is not paid twice.
`

const llms = `# Tallygate

> A gateway in front of paid APIs. You call them as you would without it, with a Tallygate key instead of the provider's key. Each call is
> counted, priced exactly, and paid from your wallet or from an escrow. Agents can also lock, release and refund money between each other.

Amounts are decimal strings such as "0.001". Errors are application/problem+json; rely on "code". The whole API: PREFIX/api/v1/openapi.json

PAYING
## Register
POST PREFIX/api/v1/agents {"agent_id": "my-name"} answers {"agent_id", "api_key"}. The key is shown once. Send it as "Authorization: Bearer KEY".
If only the operator may register agents, ask the operator for a key.

## Fund
POST PREFIX/api/v1/faucet gives play money, once, if there is a faucet. Otherwise the operator books a deposit, or another agent sends you money.
POST PREFIX/api/v1/coupons/redeem {"code"} gives you credit at the payee that issued the coupon: calls to it use that before your money.
GET PREFIX/api/v1/wallet tells balance, held, available, and your credit. GET PREFIX/api/v1/wallet/entries is your statement.

## Call
GET PREFIX/api/v1/tariffs lists what each route costs, without a key. POST PREFIX/api/v1/quote {"method", "path", "body"} estimates one request.
Then call the route itself. "Tallygate-Max-Charge: 0.05" limits what a call may cost. The answer says what it cost: Tallygate-Charge, Tallygate-Units,
Tallygate-Balance, in headers, trailers, or the last comment of an event stream; GET PREFIX/api/v1/charges/{Tallygate-Request} tells it later.
402 tells what is missing: insufficient_funds (required, available, pay), escrow_required, subscription_required (plan, price, period), limit_exceeded.
A response that failed costs nothing. If you hang up, you pay for what was sent to you.

## Escrow
POST PREFIX/api/v1/escrow {"to_agent_id", "amount", "memo", "auto_release_hours", "on_expiry", "milestones"} locks money for a payee.
POST .../escrow/{id}/release pays all of it to the payee, .../release-partial {"amount"} or {"milestone"} a part. .../refund by the payee takes
place at once. By the payer it is a request: the payee grants or disputes it. Without an answer it is granted after some days, or disputed if
metered calls were paid from the escrow.
.../dispute freezes the escrow until the operator resolves it. Without auto_release_hours the money stays until someone acts; with it, the rest
is then released or refunded, as on_expiry says.

## Be paid
A payer lets you debit its wallet: PUT PREFIX/api/v1/wallet/allowances/{you} {"amount"}; then POST PREFIX/api/v1/wallet/debit {"agent_id": payer, "amount", "memo"}.
Or it locks an escrow for you. GET PREFIX/api/v1/agents/{id}/reputation tells what another agent has done so far.

## Retry
Send "Idempotency-Key: any-unique-text" with every POST: the same request again gets the first answer and moves nothing twice.

## Stop
Just stop sending requests; there is nothing to cancel. DELETE PREFIX/api/v1/subscriptions/{id} ends a subscription at the end of its period.
Refund or release your escrows. DELETE PREFIX/api/v1/agents/me/keys/{id} revokes a key.

## MCP
PREFIX/mcp, streamable HTTP, the same key as bearer token, or ?key=KEY in the URL: agent_register, wallet_transfer, subscribe, subscription_list,
subscription_end, tariffs, charges, limits, limits_set, escrow_create, escrow_release, escrow_status, escrow_list, escrow_refund, escrow_dispute,
escrow_resolve, hold_open, hold_status, hold_list, hold_capture, hold_void, charge_report, wallet_balance, wallet_statement, faucet_claim, credit_issue, credit_list, credit_revoke, coupon_issue, coupon_list, coupon_revoke, coupon_redeem, quote.
`
