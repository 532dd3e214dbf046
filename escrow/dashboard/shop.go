// Package dashboard serves the pages that people see. They are embedded, need no JavaScript, and load nothing from elsewhere.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tallygate/tallygate/escrow/api"
)

// Shop is what a gateway sells, and how one becomes its customer.
type Shop struct {
	Origin   string       // scheme and host by which the reader reached the gateway, such as "https://gate.example"
	Prefix   string       // the path under which the API is mounted
	Currency string       // the label of the ledger's money
	Open     bool         // anybody may register
	Faucet   string       // what each new agent may claim; empty: there is no faucet
	Cards    bool         // people pay by card
	Tariffs  []api.Tariff // what is sold, in the order of the configuration
	More     bool         // there are more tariffs than these
	Pages    bool         // the gateway has pages, see [New]
}

//go:embed shop.css
var style string

//go:embed shop.html
var shopText string

// snippets are templates of programs that call what is sold.
//
//go:embed snippets.html
var snippets string

var shopPage = template.Must(template.Must(template.New("shop").Parse(snippets)).Parse(shopText))

// policy lets a page have its own style and pictures of this server, and nothing else.
var policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// Write answers with the shop's page.
func (s Shop) Write(w http.ResponseWriter) error {
	var text bytes.Buffer
	if err := shopPage.Execute(&text, map[string]any{"Shop": s, "Style": template.CSS(style), "Goods": s.goods(), "Try": s.example()}); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	_, err := w.Write(text.Bytes())
	return err
}

// API returns the address of the API.
func (s Shop) API() string { return s.Origin + s.Prefix + "/api/v1" }

// MCP returns the address of the tools for agents.
func (s Shop) MCP() string { return s.Origin + s.Prefix + "/mcp" }

// goods is what one route sells.
type goods struct {
	Paths  []string
	Payee  string
	Pays   string // what pays for a call
	Prices []string

	host   string // the hosts that the route is for; empty: all
	tokens bool   // it is a language model's API
	model  string // one of its models
	tool   bool   // it is an MCP server's
}

// goods joins the tariffs of each route.
func (s Shop) goods() (all []goods) {
	for i, t := range s.Tariffs {
		if i == 0 || t.Route != s.Tariffs[i-1].Route || t.Payee != s.Tariffs[i-1].Payee {
			paths := strings.Fields(t.Route)
			if len(paths) == 0 {
				paths = []string{"/*"}
			}
			all = append(all, goods{Paths: paths, Payee: t.Payee, Pays: t.Charge, host: t.Host})
		}
		last := &all[len(all)-1]
		if t.Pattern == "per_token" && !last.tokens { // other models of the route may be free
			last.tokens, last.model = true, modelOf(t)
		}
		last.tool = last.tool || slices.ContainsFunc(t.Prices, func(p api.TariffPrice) bool { return p.Tool != "" })
		last.Prices = append(last.Prices, s.prices(t)...)
	}
	return all
}

// soldPlan is a plan that a page offers.
type soldPlan struct{ Payee, Name, Price string }

// plans returns the plans that are sold, each once.
func (s Shop) plans() (list []soldPlan) {
	for _, t := range s.Tariffs {
		if t.Plan == nil {
			continue
		}
		plan := soldPlan{t.Payee, t.Plan.Name, s.planPrice(t.Plan)}
		if !slices.Contains(list, plan) {
			list = append(list, plan)
		}
	}
	return list
}

// planPrice says in words what a plan costs.
func (s Shop) planPrice(p *api.TariffPlan) string {
	hours, _ := p.PeriodHours.MarshalJSON() // no error: it is a number
	price := p.Amount.String() + " " + s.Currency + " for " + string(hours) + " hours"
	if p.Included != "" {
		price += " with " + p.Included + " " + api.Several(p.Unit)
	}
	return price
}

// prices returns the prices of a tariff in words.
func (s Shop) prices(t api.Tariff) (lines []string) {
	about := ""
	if t.Model != "" {
		about = "model " + t.Model + ": "
	}
	if len(t.When) > 0 {
		about += strings.Join(t.When, ", ") + ": "
	}
	if p := t.Plan; p != nil {
		lines = append(lines, "plan "+p.Name+": "+s.planPrice(p))
		about = "beyond them: "
	}
	if t.Cost != "" {
		lines = append(lines, about+"what the provider states ("+t.Cost+"), or")
	}
	for _, p := range t.Prices {
		lines = append(lines, about+s.price(p))
	}
	if len(lines) == 0 {
		lines = append(lines, about+"free")
	}
	return lines
}

func (s Shop) price(p api.TariffPrice) string {
	unit := strings.ReplaceAll(p.Unit, "_", " ")
	switch p.Unit {
	case "input", "cached", "cache_write", "cache_write_1h", "output", "reasoning", "audio_input", "audio_output", "image_input", "image_output":
		unit += " token"
	}
	line := p.Amount.String() + " " + s.Currency + " per "
	if p.Per > 1 {
		line += count(p.Per) + " " + api.Several(unit)
	} else {
		line += unit
	}
	for _, more := range []struct{ word, value string }{{"service", p.Service}, {"tool", p.Tool}, {"each", p.Each}} {
		if more.value != "" {
			line += ", " + more.word + " " + more.value
		}
	}
	if p.Above > 0 {
		line += ", above " + count(p.Above) + " tokens"
	}
	if p.After > 0 {
		line += ", after " + count(p.After)
	}
	return line
}

// count is a number as configurations write it: 1M, 1k.
func count(n int64) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return strconv.FormatInt(n/1_000_000, 10) + "M"
	case n >= 1000 && n%1000 == 0:
		return strconv.FormatInt(n/1000, 10) + "k"
	default:
		return strconv.FormatInt(n, 10)
	}
}
