package caddymodule

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// columns of exported files, in lower case and without other characters than letters and digits. The first that a line has counts.
var (
	stripeIDs    = []string{"source", "sourceid", "refundid", "disputeid", "transferid", "chargeid", "paymentintentid"}
	chainIDs     = []string{"transactionhash", "txhash", "hash", "transaction"}
	amountsThere = []string{"gross", "amount", "tokenvalue", "quantity", "value"}
	timesThere   = []string{"createdutc", "created", "datetimeutc", "unixtimestamp", "timestamp", "date"}
)

// stripeObjects are what begins the ids of what the ledger books: charges, refunds, disputes and transfers. The others, such as fees and
// payouts to the operator's bank, are the operator's own.
var stripeObjects = []string{"ch_", "py_", "re_", "pyr_", "dp_", "du_", "tr_"}

// readBalance reads an exported file, and adds up the lines with the same id.
func readBalance(rail, address string, from io.Reader) ([]outside, error) {
	ids := map[string][]string{"stripe": stripeIDs, "x402": chainIDs}[rail]
	if ids == nil {
		return nil, fmt.Errorf("rail %q: expected stripe or x402", rail)
	}
	in := csv.NewReader(from)
	in.FieldsPerRecord = -1
	head, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("reading the report: %w", err)
	}
	place := map[string]int{}
	for i, name := range head {
		place[plainName(name)] = i
	}
	sums := map[string]outside{}
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the report: %w", err)
		}
		line, _ := in.FieldPos(0)
		cell := func(names ...string) string {
			for _, name := range names {
				if i, there := place[name]; there && i < len(record) && strings.TrimSpace(record[i]) != "" {
					return strings.TrimSpace(record[i])
				}
			}
			return ""
		}
		move, wanted, err := readMove(rail, address, ids, cell)
		if err != nil {
			return nil, fmt.Errorf("line %d of the report: %w", line, err)
		}
		if sum, there := sums[move.ID]; wanted && there {
			move.Amount += sum.Amount
			if sum.At.Before(move.At) {
				move.At = sum.At
			}
		}
		if wanted {
			sums[move.ID] = move
		}
	}
	return slices.SortedFunc(maps.Values(sums), func(a, b outside) int { return cmp.Compare(a.ID, b.ID) }), nil
}

// readMove reads one line.
func readMove(rail, address string, ids []string, cell func(...string) string) (move outside, wanted bool, err error) {
	if move.ID = cell(ids...); move.ID == "" {
		return move, false, nil
	}
	sign := ledger.Amount(1)
	if rail == "stripe" {
		if !slices.ContainsFunc(stripeObjects, func(prefix string) bool { return strings.HasPrefix(move.ID, prefix) }) {
			return move, false, nil
		}
	} else {
		move.ID = strings.ToLower(move.ID)
		switch {
		case address == "" || strings.EqualFold(cell("to"), address):
		case strings.EqualFold(cell("from"), address):
			sign = -1
		default:
			return move, false, nil
		}
	}
	text := strings.ReplaceAll(cell(amountsThere...), ",", "")
	if negative, is := strings.CutPrefix(text, "-"); is {
		text, sign = negative, -sign
	}
	if move.Amount, err = ledger.ParseAmount(text); err != nil {
		return move, false, err
	}
	move.Amount *= sign
	move.At, err = readTime(cell(timesThere...))
	return move, true, err
}

// readTime reads a time as exported files have them, in UTC.
func readTime(text string) (time.Time, error) {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(seconds, 0).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time", text)
}

func plainName(column string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			return unicode.ToLower(c)
		}
		return -1
	}, column)
}
