// Package tallygate is an agent's side of Tallygate's escrow API, in one file and on the standard library alone.
//
//	buyer := tallygate.Agent{URL: "http://localhost:8402", Key: key}
//	job, err := buyer.Lock(provider, "10.00", "a week of service", 168)
//	job, err = buyer.Release(job.ID)
//
// Amounts are decimals in strings. An amount that was computed in a float64 is accepted too, with its noise: the server reads
// 2.6000000000000002e-05 as 0.000026.
package tallygate

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Week is a week in hours.
const Week = 168.0

// Agent acts with one agent's key. Methods that act on an escrow return the escrow as it is afterwards.
type Agent struct {
	URL string // of the server: http://localhost:8402
	Key string
	ID  string
}

// Escrow is money that a payer has set aside for a payee. Amount = Released + Refunded + Remaining, always.
type Escrow struct {
	ID               string      `json:"escrow_id"`
	Status           string      `json:"status"` // open, refund_requested, disputed, released, refunded, settled
	Amount           string      `json:"amount"`
	Released         string      `json:"released"`
	Refunded         string      `json:"refunded"`
	Remaining        string      `json:"remaining"`
	AutoReleaseHours float64     `json:"auto_release_hours"`
	Milestones       []Milestone `json:"milestones"`
}

// Milestone is a part of an escrow that is released when the payer accepts it.
type Milestone struct {
	Name   string `json:"name"`
	Amount string `json:"amount"`
	Status string `json:"status,omitempty"` // pending, delivered, accepted
}

// Subscription pays an amount each period, from an escrow that is released automatically at the end of the period.
type Subscription struct {
	ID       string `json:"subscription_id"`
	Status   string `json:"status"` // active, ending (with its period), suspended (not funded), ended
	Amount   string `json:"amount"`
	Periods  int    `json:"periods"`   // how many have begun
	EscrowID string `json:"escrow_id"` // of the current period
}

// Refusal says what the server refused to do, and why: an RFC 9457 problem. A refusal changes nothing.
type Refusal struct {
	Status int    `json:"-"` // of HTTP
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (r *Refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.Status, r.Code, r.Detail) }

// Refused reports whether err is a refusal with this code.
func Refused(err error, code string) bool {
	var refusal *Refusal
	return errors.As(err, &refusal) && refusal.Code == code
}

var client = http.Client{Timeout: 30 * time.Second}

// Register makes an agent. Keep its key: it is shown only this once.
func Register(url, name string) (Agent, error) {
	var made struct {
		ID  string `json:"agent_id"`
		Key string `json:"api_key"`
	}
	err := Agent{URL: url}.Call("POST", "/agents", map[string]string{"name": name}, &made)
	return Agent{URL: url, ID: made.ID, Key: made.Key}, err
}

// Call calls a route of the API and decodes what comes back into answer; with nil it is dropped. If the answer may have got lost, the
// call is repeated under the same Idempotency-Key, so nothing is paid twice.
func (a Agent) Call(method, path string, body, answer any) error {
	var content []byte
	var err error
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	once := rand.Text()
	for _, pause := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second} {
		if err = a.try(method, path, once, content, answer); !again(err) {
			return err
		}
		time.Sleep(pause)
	}
	return a.try(method, path, once, content, answer)
}

// again reports whether repeating a call may help.
func again(err error) bool {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal.Status == http.StatusTooManyRequests || refusal.Status >= 500
	}
	return err != nil
}

func (a Agent) try(method, path, once string, content []byte, answer any) error {
	request, err := http.NewRequest(method, a.URL+"/api/v1"+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if a.Key != "" {
		request.Header.Set("Authorization", "Bearer "+a.Key)
		request.Header.Set("Idempotency-Key", once)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		refusal := &Refusal{Status: response.StatusCode}
		if json.Unmarshal(text, refusal) != nil { // a proxy in between has answered, not Tallygate
			refusal.Detail = http.StatusText(response.StatusCode)
		}
		return refusal
	}
	if answer == nil || len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// object is the body of a request.
type object map[string]any

func (a Agent) act(path string, body object) (e Escrow, err error) {
	err = a.Call("POST", path, body, &e)
	return e, err
}

// Lock puts an amount into an escrow for a payee. After autoHours what remains is released to the payee automatically; with 0 it stays
// until someone acts.
func (a Agent) Lock(to, amount, memo string, autoHours float64) (Escrow, error) {
	order := object{"to_agent_id": to, "amount": amount, "memo": memo}
	if autoHours > 0 {
		order["auto_release_hours"] = autoHours
	}
	return a.act("/escrow", order)
}

// LockMilestones puts an amount into an escrow that is released by milestones. Their amounts must add up to it.
func (a Agent) LockMilestones(to, amount, memo string, milestones []Milestone) (Escrow, error) {
	return a.act("/escrow", object{"to_agent_id": to, "amount": amount, "memo": memo, "milestones": milestones})
}

// Release releases all that remains to the payee. The payer calls it.
func (a Agent) Release(id string) (Escrow, error) { return a.act("/escrow/"+id+"/release", object{}) }

// ReleasePartial releases an amount to the payee; the rest stays in the escrow. The payer calls it.
func (a Agent) ReleasePartial(id, amount, memo string) (Escrow, error) {
	return a.act("/escrow/"+id+"/release-partial", object{"amount": amount, "memo": memo})
}

// Deliver says that a milestone's work is done. The payee calls it.
func (a Agent) Deliver(id, milestone, note string) (Escrow, error) {
	return a.act("/escrow/"+id+"/milestones/"+milestone+"/deliver", object{"note": note})
}

// Accept releases a milestone to the payee. The payer calls it.
func (a Agent) Accept(id, milestone string) (Escrow, error) {
	return a.act("/escrow/"+id+"/release-partial", object{"milestone": milestone})
}

// ChargeForTokens pays for tokens. Computing the amount in floats does no harm: see the note on amounts at the top.
func (a Agent) ChargeForTokens(id string, tokens int, pricePer1K float64) (Escrow, error) {
	amount := strconv.FormatFloat(pricePer1K*float64(tokens)/1000, 'g', -1, 64)
	return a.ReleasePartial(id, amount, fmt.Sprintf("%d tokens", tokens))
}

// Refund gives an amount back to the payer, or all that remains if the amount is empty. If the payer calls it, it is a request: the
// money stays frozen until the payee agrees by Refund or refuses by Dispute. If the payee lets the time for an answer pass, the refund is
// granted.
func (a Agent) Refund(id, amount, reason string) (Escrow, error) {
	body := object{"reason": reason}
	if amount != "" {
		body["amount"] = amount
	}
	return a.act("/escrow/"+id+"/refund", body)
}

// Dispute freezes an escrow until the operator resolves it. Either party may.
func (a Agent) Dispute(id, reason string) (Escrow, error) {
	return a.act("/escrow/"+id+"/dispute", object{"reason": reason})
}

// Resolve divides what remains of a disputed escrow. Only the operator may.
func (a Agent) Resolve(id, toPayee, toPayer, note string) (Escrow, error) {
	return a.act("/escrow/"+id+"/resolve", object{"to_payee": toPayee, "to_payer": toPayer, "note": note})
}

// Status returns an escrow as it is.
func (a Agent) Status(id string) (e Escrow, err error) {
	err = a.Call("GET", "/escrow/"+id, nil, &e)
	return e, err
}

// Debit takes an amount from another agent's wallet into the caller's own, within the allowance that the other agent has given.
func (a Agent) Debit(payer, amount, memo string) error {
	return a.Call("POST", "/wallet/debit", object{"agent_id": payer, "amount": amount, "memo": memo}, nil)
}

// Allow lets a payee debit up to an amount from now on.
func (a Agent) Allow(payee, amount string) error {
	return a.Call("PUT", "/wallet/allowances/"+payee, object{"amount": amount}, nil)
}

// Pay pays another agent at once.
func (a Agent) Pay(to, amount, memo string) error {
	return a.Call("POST", "/wallet/transfer", object{"to_agent_id": to, "amount": amount, "memo": memo}, nil)
}

// Subscribe pays an amount each period, until the subscription is ended or the wallet no longer covers a period.
func (a Agent) Subscribe(to, amount, memo string, periodHours float64) (s Subscription, err error) {
	order := object{"to_agent_id": to, "amount": amount, "memo": memo, "period_hours": periodHours}
	err = a.Call("POST", "/subscriptions", order, &s)
	return s, err
}

// Subscription returns a subscription as it is.
func (a Agent) Subscription(id string) (s Subscription, err error) {
	err = a.Call("GET", "/subscriptions/"+id, nil, &s)
	return s, err
}

// EndSubscription ends a subscription at the end of its current period. Either party may.
func (a Agent) EndSubscription(id string) error {
	return a.Call("DELETE", "/subscriptions/"+id, nil, nil)
}

// Balance is what the wallet holds. Escrowed money is not in it.
func (a Agent) Balance() (string, error) {
	var wallet struct {
		Balance string `json:"balance"`
	}
	err := a.Call("GET", "/wallet", nil, &wallet)
	return wallet.Balance, err
}

// Times is an amount times a number of units, exactly. It panics if the amount is not a decimal with at most nine places.
func Times(amount string, units int) string {
	product, ok := new(big.Rat).SetString(amount)
	if !ok {
		panic("not an amount: " + amount)
	}
	product.Mul(product, big.NewRat(int64(units), 1))
	if places, exact := product.FloatPrec(); !exact || places > 9 {
		panic("more than nine places: " + amount)
	}
	text := product.FloatString(9)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}
