package x402

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// permit2 is the contract that takes each nonce of a permit once. It has the same address on all chains.
// https://docs.uniswap.org/contracts/permit2/reference/signature-transfer
const permit2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"

// The functions of Permit2 and of the contract of the scheme upto, as a chain has them.
// https://github.com/coinbase/x402/blob/13cd5633/contracts/evm/src/x402UptoPermit2Proxy.sol
var (
	callNonces = "0x" + selector("nonceBitmap(address,uint256)")
	callSettle = "0x" + selector("settle("+settleArguments)
	// callSettleWithPermit approves Permit2 first, by five values that come before those of settle.
	callSettleWithPermit = "0x" + selector("settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),"+settleArguments)
)

const (
	settleArguments = "((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)"
	permitWords     = 5
	amountWord      = 4 // the place of the amount among the arguments of settle
	// mostTransfers is how many transfers of the same amount are looked at to find that of a permit, the newest first. Each has paid the operator, so
	// a payer can't make them many without paying.
	mostTransfers = 100
)

func selector(function string) string { return hex.EncodeToString(keccak([]byte(function))[:4]) }

// findPermit finds out what became of a permit that was to be settled at a number of units. Permit2 writes down no nonces in events. So the
// transaction is found among the transfers of the payer to the operator, by the call that it makes: only the contract of the scheme may use
// such a permit, and what it is called with says which permit, and how much it has moved.
func (n *node) findPermit(ctx context.Context, a permit, units, asset string) (f fate, err error) {
	newest, err := n.newest(ctx)
	if err != nil {
		return f, err
	}
	used, err := n.usedPermit(ctx, a, newest.text)
	if err != nil {
		return f, err
	}
	if !used {
		f.over, err = newest.past(a.Deadline)
		return f, err
	}
	transfers, err := n.events(ctx, newest, asset, topicMoving, padded(a.From), padded(a.Witness.To))
	if err != nil {
		return f, err
	}
	wanted, err := a.words(units)
	if err != nil {
		return f, err
	}
	of := "0x" + wanted[amountWord*64:(amountWord+1)*64]
	transfers = slices.DeleteFunc(transfers, func(e event) bool { return !same(e.Data, of) })
	slices.Reverse(transfers)
	for _, transfer := range transfers[:min(len(transfers), mostTransfers)] {
		if settled, err := n.settles(ctx, transfer.Transaction, wanted); err != nil || settled {
			return fate{transaction: transfer.Transaction}, err
		}
	}
	return f, errors.New("the payment's permit is used, and no transaction is found that has moved its money here")
}

// usedPermit reports whether Permit2 has taken a permit's nonce, or its owner has given it up. The nonces of an owner are the bits of words.
func (n *node) usedPermit(ctx context.Context, a permit, block string) (bool, error) {
	nonce, ok := new(big.Int).SetString(a.Nonce, 0)
	if !ok {
		return false, fmt.Errorf("the permit's nonce is %.80q", a.Nonce)
	}
	var text string
	call := map[string]string{"to": permit2, "data": callNonces + padded(a.From)[2:] + hexWord(new(big.Int).Rsh(nonce, 8))}
	if err := n.call(ctx, &text, "eth_call", call, block); err != nil {
		return false, err
	}
	bits, ok := new(big.Int).SetString(text, 0)
	if !ok {
		return false, fmt.Errorf("the chain's node says that the nonces of a payer are %.80q", text)
	}
	return bits.Bit(int(nonce.Uint64()&0xff)) == 1, nil
}

// words are the arguments of the call that settles a permit at a number of units, up to its signature.
func (a permit) words(units string) (string, error) {
	var words strings.Builder
	for _, number := range []string{a.Permitted.Token, a.Permitted.Amount, a.Nonce, a.Deadline, units, a.From, a.Witness.To, a.Witness.Facilitator, a.Witness.ValidAfter} {
		value, ok := new(big.Int).SetString(number, 0)
		if !ok || value.Sign() < 0 || value.BitLen() > 256 {
			return "", fmt.Errorf("the permit has %.80q where a number is expected", number)
		}
		words.WriteString(hexWord(value))
	}
	return words.String(), nil
}

// settles reports whether a transaction that has left events, so it was not undone, calls the contract of the scheme with these arguments.
func (n *node) settles(ctx context.Context, transaction, wanted string) (bool, error) {
	var sent struct{ To, Input string }
	if err := n.call(ctx, &sent, "eth_getTransactionByHash", transaction); err != nil {
		return false, err
	}
	if !same(sent.To, proxyUpTo) {
		return false, nil
	}
	input := strings.ToLower(sent.Input)
	arguments, direct := strings.CutPrefix(input, callSettle)
	if !direct {
		var approves bool
		if arguments, approves = strings.CutPrefix(input, callSettleWithPermit); !approves || len(arguments) < permitWords*64 {
			return false, nil
		}
		arguments = arguments[permitWords*64:]
	}
	return strings.HasPrefix(arguments, wanted), nil
}

// hexWord writes a value of 32 bytes in hexadecimal digits.
func hexWord(value *big.Int) string { return fmt.Sprintf("%064x", value) }
