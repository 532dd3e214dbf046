package caddymodule

import (
	"math"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// appWords lists the subdirectives of the global option, for error messages.
const appWords = "ledger, currency, operator_key, registration, faucet, commission, min_escrow, min_period, max_subscriptions, default_limit, refund_window, webhooks, max_bodies, problem_types, dashboard, discovery, invoice, metrics_by_payer, identify, rail, cashier, tariff"

// parseGlobalOption reads the global option `tallygate`. Its syntax is described at [App.UnmarshalCaddyfile].
func parseGlobalOption(d *caddyfile.Dispenser, earlier any) (any, error) {
	if earlier != nil {
		d.Next()
		return nil, d.Err("the global option tallygate is given twice: put everything into one block")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "tallygate", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile reads
//
//	tallygate {
//		ledger bolt [PATH]
//		currency LABEL
//		operator_key KEY
//		registration operator|open
//		faucet A [budget B per D]
//		commission P%
//		min_escrow A
//		min_period D
//		max_subscriptions N
//		default_limit A per D
//		refund_window D
//		webhooks public|private
//		max_bodies SIZE
//		problem_types URL
//		invoice {
//			name NAME
//			address LINE...
//			tax LINE...
//		}
//		dashboard on|off
//		discovery last|first
//		metrics_by_payer
//		identify upstream [signed] | none
//		rail NAME ...
//		cashier NAME ...
//		tariff NAME {
//			model GLOB {
//				CLASS A per [N] UNIT [{ after N A ... }]
//				above N tokens { ... }
//				service NAME { ... }
//				minimum A per call
//				max_output N
//			}
//			tool GLOB A per [N] call
//			catalog FILE [provider NAME] [markup P%]
//			max_output N
//			for GLOB... {
//				... (as in a tariff)
//			}
//			at [DAYS] HH:MM-HH:MM ZONE {
//				... (as in a tariff)
//			}
//		}
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("unexpected %q: the global option tallygate takes a block only", d.Val())
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		word := d.Val()
		if seen[word] && word != "tariff" && word != "rail" && word != "default_limit" {
			return d.Errf("%s is given twice", word)
		}
		seen[word] = true
		if err := a.unmarshalWord(d, word); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) unmarshalWord(d *caddyfile.Dispenser, word string) error {
	switch word {
	case "ledger":
		return a.unmarshalLedger(d)
	case "currency":
		return oneArg(d, &a.Currency, "a label such as USDC")
	case "operator_key":
		return oneArg(d, &a.OperatorKey, "a key, best as a placeholder such as {env.TALLYGATE_OPERATOR_KEY}")
	case "registration":
		return oneOf(d, &a.Registration, "operator", "open")
	case "faucet":
		return a.unmarshalFaucet(d)
	case "commission":
		return a.unmarshalCommission(d)
	case "min_escrow":
		return oneAmount(d, &a.MinEscrow)
	case "min_period":
		return oneDuration(d, &a.MinPeriod)
	case "max_subscriptions":
		return oneCount(d, &a.MaxSubscriptions)
	case "default_limit":
		return a.unmarshalDefaultLimit(d)
	case "refund_window":
		return oneDuration(d, &a.RefundWindow)
	case "webhooks":
		return oneOf(d, &a.Webhooks, "public", "private")
	case "dashboard":
		return oneOf(d, &a.Dashboard, "on", "off")
	case "discovery":
		return oneOf(d, &a.Discovery, "last", discoveryFirst)
	case "metrics_by_payer":
		a.MetricsByPayer = true
		if d.NextArg() {
			return d.ArgErr()
		}
		return nil
	case "problem_types":
		return a.unmarshalProblemTypes(d)
	case "invoice":
		return a.unmarshalInvoice(d)
	case "max_bodies":
		return oneSize(d, &a.MaxBodies)
	case "identify":
		return unmarshalIdentify(d, &a.Identify)
	case "rail":
		rail, err := unmarshalGuest[gateway.Rail](d, "rail", railKey, "a payment rail")
		a.RailsRaw = append(a.RailsRaw, rail)
		return err
	case "cashier":
		cashier, err := unmarshalGuest[cashier.Service](d, "cashier", cashierKey, "a cashier")
		a.CashierRaw = cashier
		return err
	case "tariff":
		return a.unmarshalTariff(d)
	default:
		return d.Errf("unrecognized subdirective %q of tallygate: expected one of %s", word, appWords)
	}
}

func (a *App) unmarshalCommission(d *caddyfile.Dispenser) error {
	if err := oneArg(d, &a.Commission, "a percentage such as 1%"); err != nil {
		return err
	}
	if !strings.HasSuffix(a.Commission, "%") {
		slip(d, "commission is in percent: write 'commission "+a.Commission+"%'")
	}
	a.Commission = strings.TrimSuffix(a.Commission, "%")
	if _, err := escrow.ParsePercent(a.Commission); err != nil {
		return d.Errf("commission: %v", err)
	}
	return nil
}

func (a *App) unmarshalProblemTypes(d *caddyfile.Dispenser) error {
	if err := oneArg(d, &a.ProblemTypes, "a URL such as https://docs.example/problems/"); err != nil {
		return err
	}
	if err := a.checkProblemTypes(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (a *App) unmarshalLedger(d *caddyfile.Dispenser) (err error) {
	if !d.NextArg() {
		return d.Err("'ledger' needs a store: expected 'ledger bolt [PATH]' or 'ledger postgres DSN'")
	}
	if d.Val() == "postgres" && !isGuest(storeKey, "postgres") {
		return d.Err("this build has no store \"postgres\": add it with 'xcaddy build --with github.com/tallygate/tallygate/caddymodule/postgres'")
	}
	if store := d.Val(); !isGuest(storeKey, store) {
		switch {
		case strings.HasPrefix(store, "postgres://") || strings.HasPrefix(store, "postgresql://"):
			return d.Errf("'ledger' needs the name of a store first: write 'ledger postgres DSN', best with a placeholder such as {env.DATABASE_URL} for the DSN")
		case strings.ContainsAny(store, "/\\.{"):
			return d.Errf("'ledger %s' names no store: write 'ledger bolt %[1]s'", store)
		}
	}
	d.Prev()
	a.StoreRaw, err = unmarshalGuest[StoreModule](d, "store", storeKey, "a store for a ledger")
	return err
}

func (a *App) unmarshalFaucet(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	f := new(Faucet)
	switch {
	case len(args) == 1:
		f.Amount = args[0]
	case len(args) == 5 && args[1] == "budget" && args[3] == "per":
		f.Amount, f.Budget = args[0], args[2]
		per, err := caddy.ParseDuration(args[4])
		if err != nil || per <= 0 {
			return d.Errf("unexpected %q: expected a duration such as 24h", args[4])
		}
		f.Per = caddy.Duration(per)
	default:
		return d.Errf("unexpected 'faucet %s': expected 'faucet A [budget B per D]'", strings.Join(args, " "))
	}
	for _, amount := range []string{f.Amount, f.Budget} {
		if err := checkAmount(d, amount); err != nil {
			return err
		}
	}
	a.Faucet = f
	return nil
}

func (a *App) unmarshalDefaultLimit(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 3 || args[1] != "per" {
		return d.Errf("unexpected 'default_limit %s': expected 'default_limit A per D', such as 'default_limit 10.00 per 24h'", strings.Join(args, " "))
	}
	per, err := caddy.ParseDuration(args[2])
	if err != nil {
		return d.Errf("unexpected %q: expected a duration such as 24h", args[2])
	}
	limit := DefaultLimit{Amount: args[0], Per: caddy.Duration(per)}
	if _, err := limit.compile(); err != nil {
		return d.Errf("default_limit: %v", err)
	}
	a.DefaultLimits = append(a.DefaultLimits, limit)
	return nil
}

// unmarshalInvoice reads how invoices name the operator.
func (a *App) unmarshalInvoice(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("unexpected %q: invoice takes a block only", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		lines := d.RemainingArgs()
		if len(lines) == 0 {
			return d.Errf("%s needs a text, in quotes if it has spaces", word)
		}
		switch word {
		case "name":
			if len(lines) > 1 || a.Invoice.Name != "" {
				return d.Errf("name takes one text: put it into quotes, such as name \"Acme GmbH\"")
			}
			a.Invoice.Name = lines[0]
		case "address":
			a.Invoice.Address = append(a.Invoice.Address, lines...)
		case "tax":
			a.Invoice.Tax = append(a.Invoice.Tax, lines...)
		default:
			return d.Errf("unrecognized subdirective %q of invoice: expected one of name, address, tax", word)
		}
	}
	if a.Invoice.Name == "" {
		return d.Err("invoice needs the name of the operator: write 'name NAME'")
	}
	return nil
}

func (a *App) unmarshalTariff(d *caddyfile.Dispenser) error {
	var name string
	if err := oneArg(d, &name, "a name, then a block"); err != nil {
		return err
	}
	if _, ok := a.Tariffs[name]; ok {
		return d.Errf("tariff %s is given twice", name)
	}
	tariff, err := unmarshalTariff(d)
	if err != nil {
		return err
	}
	if a.Tariffs == nil {
		a.Tariffs = make(map[string]*pricing.Tariff)
	}
	a.Tariffs[name] = tariff
	return nil
}

// slip warns of a line that is allowed but is probably a mistake.
func slip(d *caddyfile.Dispenser, text string) {
	caddy.Log().Named("caddyfile.tallygate").Warn(text, zap.String("file", d.File()), zap.Int("line", d.Line()))
}

// oneArg reads the only argument of a subdirective.
func oneArg(d *caddyfile.Dispenser, into *string, expected string) error {
	word := d.Val()
	if !d.NextArg() {
		return d.Errf("%s needs a value: expected %s", word, expected)
	}
	*into = d.Val()
	if d.NextArg() {
		return d.Errf("unexpected %q after '%s %s': expected %s", d.Val(), word, *into, expected)
	}
	return nil
}

func oneAmount(d *caddyfile.Dispenser, into *string) error {
	if err := oneArg(d, into, "an amount such as 1.00"); err != nil {
		return err
	}
	return checkAmount(d, *into)
}

func oneDuration(d *caddyfile.Dispenser, into *caddy.Duration) error {
	var word string
	if err := oneArg(d, &word, "a duration such as 72h"); err != nil {
		return err
	}
	value, err := caddy.ParseDuration(word)
	if err != nil || value <= 0 {
		return d.Errf("unexpected %q: expected a duration such as 72h", word)
	}
	*into = caddy.Duration(value)
	return nil
}

// oneCount reads a whole number above zero.
func oneCount(d *caddyfile.Dispenser, into *int) error {
	var word string
	if err := oneArg(d, &word, "a number such as 100"); err != nil {
		return err
	}
	n, err := strconv.Atoi(word)
	if err != nil || n <= 0 {
		return d.Errf("unexpected %q: expected a number such as 100", word)
	}
	*into = n
	return nil
}

// oneSize reads a size in bytes.
func oneSize(d *caddyfile.Dispenser, into *int64) error {
	var word string
	if err := oneArg(d, &word, "a size such as 32MiB"); err != nil {
		return err
	}
	size, err := parseSize(d, word)
	*into = size
	return err
}

// parseSize reads a size as Caddy's own options do: a number of bytes, or a number with a unit. MB is 1000*1000 bytes, MiB is 1024*1024.
func parseSize(d *caddyfile.Dispenser, word string) (int64, error) {
	size, err := humanize.ParseBytes(word)
	if err != nil || size > math.MaxInt64 {
		return 0, d.Errf("unexpected %q: expected a size such as 32MiB", word)
	}
	return int64(size), nil
}

// checkAmount returns an error with the line if word is not an amount. An empty word is accepted: the amount is absent.
func checkAmount(d *caddyfile.Dispenser, word string) error {
	if word == "" {
		return nil
	}
	if _, err := positive(word, word); err != nil {
		return d.Errf("unexpected %q: expected an amount such as 1.00", word)
	}
	return nil
}
