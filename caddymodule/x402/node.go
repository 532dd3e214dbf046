package x402

import (
	"bytes"
	"context"
	"encoding/hex"
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

// node is a server that answers questions about the chain (JSON-RPC). It is asked only about payments of which the facilitator does not say
// that they were settled. It finds the transaction of a payment by what the payer has signed, so it does not matter who has sent it.
// https://ethereum.org/en/developers/docs/apis/json-rpc/
type node struct {
	url    string
	client *http.Client
}

const (
	// lookBack is how many blocks are searched for a payment. Pending payments are asked for every few seconds, so the block is a late one.
	lookBack = 5000
	// endedFor is how far the chain must be past the end of a payment that it does not have, before the payment counts as not made.
	endedFor = 2 * time.Minute
)

// The selector and the events of EIP-3009 and ERC-20, as a chain has them. https://eips.ethereum.org/EIPS/eip-3009
var (
	callState   = "0x" + selector("authorizationState(address,bytes32)")
	topicUsed   = "0x" + hex.EncodeToString(keccak([]byte("AuthorizationUsed(address,bytes32)")))
	topicMoving = "0x" + hex.EncodeToString(keccak([]byte("Transfer(address,address,uint256)")))
)

// event is a log of a transaction.
type event struct {
	Address     string   `json:"address"`
	Topics      []string `json:"topics"`
	Data        string   `json:"data"`
	Transaction string   `json:"transactionHash"`
}

// is reports whether an event of a contract has these topics.
func (e event) is(contract string, topics ...string) bool {
	if !same(e.Address, contract) || len(e.Topics) != len(topics) {
		return false
	}
	for i, topic := range topics {
		if !same(e.Topics[i], topic) {
			return false
		}
	}
	return true
}

// fate is what the chain says about a payment.
type fate struct {
	transaction string // that has moved the money to the operator; empty if there is none
	over        bool   // the chain has not moved it, and will not
}

// block is the newest block of the chain.
type block struct {
	number int64
	text   string // the number, as the node has written it
	at     time.Time
}

// past reports whether the chain is so far past a time, given in seconds, that what had to be done by then will not be done any more.
func (b block) past(seconds string) (bool, error) {
	ends, err := strconv.ParseInt(seconds, 10, 64)
	return err == nil && b.at.After(time.Unix(ends, 0).Add(endedFor)), err
}

func (n *node) newest(ctx context.Context) (b block, err error) {
	var said struct{ Number, Timestamp string }
	if err := n.call(ctx, &said, "eth_getBlockByNumber", "latest", false); err != nil {
		return b, err
	}
	b.text = said.Number
	if b.number, err = quantity(said.Number); err != nil {
		return b, err
	}
	at, err := quantity(said.Timestamp)
	b.at = time.Unix(at, 0)
	return b, err
}

// events returns the events of a contract that have these topics, in the newest blocks, the oldest first.
func (n *node) events(ctx context.Context, newest block, contract string, topics ...string) (found []event, err error) {
	filter := map[string]any{
		"address": contract, "fromBlock": "0x" + strconv.FormatInt(max(0, newest.number-lookBack), 16), "toBlock": newest.text, "topics": topics,
	}
	return found, n.call(ctx, &found, "eth_getLogs", filter)
}

// find finds out what became of a payment of the scheme exact.
func (n *node) find(ctx context.Context, a authorization, asset string) (f fate, err error) {
	newest, err := n.newest(ctx)
	if err != nil {
		return f, err
	}
	var state string
	call := map[string]string{"to": asset, "data": callState + padded(a.From)[2:] + a.Nonce[2:]}
	if err := n.call(ctx, &state, "eth_call", call, newest.text); err != nil {
		return f, err
	}
	used, ok := new(big.Int).SetString(state, 0)
	if !ok {
		return f, fmt.Errorf("the chain's node says that an authorization is %.80q", state)
	}
	if used.Sign() == 0 {
		f.over, err = newest.past(a.ValidBefore)
		return f, err
	}
	uses, err := n.events(ctx, newest, asset, topicUsed, padded(a.From), a.Nonce)
	if err != nil {
		return f, err
	}
	for _, use := range uses {
		if moved, err := n.moved(ctx, use.Transaction, a, asset); err != nil || moved {
			return fate{transaction: use.Transaction}, err
		}
	}
	return f, errors.New("the payment's authorization is used, and no transaction is found that has moved its money here")
}

// moved reports whether a transaction has made exactly this payment. A payer may sign the same nonce for a transfer to somebody else, and send
// it beside a transfer to us that pays for something else. So the transfer must be the event that follows the use of the nonce, as the
// contract of an asset makes it.
func (n *node) moved(ctx context.Context, transaction string, a authorization, asset string) (bool, error) {
	var receipt struct {
		Status string
		Logs   []event
	}
	if err := n.call(ctx, &receipt, "eth_getTransactionReceipt", transaction); err != nil {
		return false, err
	}
	value, _ := new(big.Int).SetString(a.Value, 10)
	for i := 1; i < len(receipt.Logs); i++ {
		use, transfer := receipt.Logs[i-1], receipt.Logs[i]
		if receipt.Status != "0x1" || !use.is(asset, topicUsed, padded(a.From), a.Nonce) || !transfer.is(asset, topicMoving, padded(a.From), padded(a.To)) {
			continue
		}
		if units, ok := new(big.Int).SetString(transfer.Data, 0); ok && units.Cmp(value) == 0 {
			return true, nil
		}
	}
	return false, nil
}

// call asks the node, and decodes its answer.
func (n *node) call(ctx context.Context, answer any, method string, params ...any) error {
	question, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url, bytes.NewReader(question))
	if err != nil {
		return errors.New("the address of the chain's node can't be used") // it may have a secret, so it is not named
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := n.client.Do(request)
	if err != nil {
		return errors.New("the chain's node does not answer")
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxNodeAnswer))
	if err != nil {
		return fmt.Errorf("reading what the chain's node answers to %s: %w", method, err)
	}
	var said struct {
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(text, &said); err != nil || said.Error == nil && (len(said.Result) == 0 || string(said.Result) == "null") {
		return fmt.Errorf("the chain's node answers to %s with %s, and no result", method, response.Status)
	}
	if said.Error != nil {
		return fmt.Errorf("the chain's node refuses %s: %.200s", method, said.Error.Message)
	}
	return json.Unmarshal(said.Result, answer)
}

// maxNodeAnswer is how many bytes of a node's answer are read. A receipt has all events of its transaction.
const maxNodeAnswer = 4 << 20

// quantity reads a number as nodes write it.
func quantity(text string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(text, "0x"), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("the chain's node has %.80q where a number is expected", text)
	}
	return n, nil
}

// padded writes an address as a value of 32 bytes.
func padded(address string) string {
	return "0x" + strings.Repeat("0", 24) + strings.ToLower(address[2:])
}
