package dashboard

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// reader says whom a page is for.
type reader int

const (
	both reader = iota
	agentsOnly
	operatorsOnly
	unlisted // reached from other pages: not in the navigation
)

// page is a page behind the login.
type page struct {
	path  string // below /dashboard/, as http.ServeMux writes it
	title string
	name  string // of its template
	who   reader
	live  bool           // it shows what changes by itself. Not for pages that read more the more has happened
	open  bool           // it is also for those without a session
	load  func(v *visit) // gets what the page shows
}

var shopForms = &page{path: "shop", title: "Shop", name: "try", live: true, open: true, load: loadShop}

var loginPage = &page{path: "login", title: "Log in", name: "login", load: func(*visit) {}}

// The two first pages have the same path.
var (
	agentHome    = &page{title: "Overview", name: "overview", who: agentsOnly, live: true, load: loadOverview}
	operatorHome = &page{title: "Books", name: "books", who: operatorsOnly, live: true, load: loadBooks}
)

// allPages are the pages but for the first ones and the login, in the order of the navigation.
var allPages = []*page{
	{path: "spending", title: "Spending", name: "usage", who: agentsOnly, load: loadUsage("payer")},
	{path: "statement", title: "Statement", name: "statement", who: agentsOnly, load: loadStatement},
	{path: "charges", title: "Charges", name: "charges", live: true, load: loadCharges},
	{path: "charges/{id}", title: "Charge", name: "charge", who: unlisted, live: true, load: loadCharge},
	{path: "escrows", title: "Escrows", name: "escrows", live: true, load: loadEscrows},
	{path: "escrows/{id}", title: "Escrow", name: "escrow", who: unlisted, live: true, load: func(v *visit) { v.get("escrow", "/escrow/"+v.id()) }},
	{path: "subscriptions", title: "Subscriptions", name: "subscriptions", who: agentsOnly, live: true, load: loadSubscriptions},
	{path: "earnings", title: "Earnings", name: "earnings", who: agentsOnly, live: true, load: loadEarnings},
	{path: "keys", title: "Keys", name: "keys", who: agentsOnly, load: func(v *visit) { v.get("keys", "/agents/me/keys", v.paging()...) }},
	{path: "limits", title: "Limits and top-up", name: "limits", who: agentsOnly, load: loadLimits},
	{path: "agents", title: "Agents", name: "agents", who: operatorsOnly, load: func(v *visit) { v.get("agents", "/agents", v.paging()...) }},
	{path: "agents/{id}", title: "Agent", name: "agent", who: unlisted, load: loadAgent},
	{path: "disputes", title: "Disputes", name: "disputes", who: operatorsOnly, live: true, load: loadDisputes},
	{path: "withheld", title: "Withheld", name: "withheld", who: operatorsOnly, live: true, load: func(v *visit) { v.get("withheld", "/withheld", v.paging()...) }},
	{path: "bookings", title: "Bookings", name: "bookings", who: operatorsOnly, load: loadBookings},
	{path: "webhooks", title: "Webhooks", name: "webhooks", load: func(v *visit) { v.get("webhooks", "/webhooks", v.paging()...) }},
	{path: "webhooks/{id}", title: "Deliveries", name: "deliveries", who: unlisted, load: func(v *visit) {
		v.get("deliveries", "/webhooks/"+v.id()+"/deliveries", v.paging()...)
	}},
	{path: "audit", title: "Audit log", name: "audit", who: operatorsOnly, load: func(v *visit) { v.get("audit", "/audit", v.paging()...) }},
	shopForms,
}

// findPage returns the page at a path, which begins with /; nil if there is none. The first page is either of the two.
func findPage(path string) *page {
	if path = strings.TrimPrefix(path, "/"); path == "" {
		return agentHome
	}
	for _, p := range allPages {
		if p.path == path {
			return p
		}
		under, id, ok := strings.Cut(path, "/")
		if ok && id != "" && !strings.Contains(id, "/") && p.path == under+"/{id}" {
			return p
		}
	}
	return nil
}

// navigation returns the pages that the reader can choose.
func (v *visit) navigation() (list []*page) {
	list = append(list, agentHome)
	other := operatorsOnly
	if v.operator() {
		list[0], other = operatorHome, agentsOnly
	}
	for _, p := range allPages {
		if p.who != unlisted && p.who != other {
			list = append(list, p)
		}
	}
	return list
}

func (v *visit) id() string { return url.PathEscape(v.r.PathValue("id")) }

// paging are the parameters of a list: where it begins, and more pairs.
func (v *visit) paging(params ...string) []string {
	if cursor := v.param("cursor"); cursor != "" {
		return []string{"limit", "50", "cursor", cursor} // the cursor has the others in it
	}
	return append(params, "limit", "50")
}

// home shows the first page.
func (p *pages) home(w http.ResponseWriter, r *http.Request) {
	if v := p.begin(w, r); v != nil {
		v.page = agentHome
		if v.operator() {
			v.page = operatorHome
		}
		p.display(w, v, http.StatusOK)
	}
}

// show shows another page.
func (p *pages) show(w http.ResponseWriter, r *http.Request, page *page) {
	v := &visit{pages: p, r: r} // of nobody
	if _, _, err := p.visitOf(r); !page.open || !errors.Is(err, errSession) {
		if v = p.begin(w, r); v == nil {
			return
		}
	}
	v.page = page
	p.display(w, v, http.StatusOK)
}

// display gets what a page shows, and answers with it.
func (p *pages) display(w http.ResponseWriter, v *visit, status int) {
	v.data = make(object)
	before := v.problem
	if v.page.who == operatorsOnly && !v.operator() || v.page.who == agentsOnly && v.operator() {
		p.fail(w, v.r, http.StatusNotFound, "There is no such page for this key.")
		return
	}
	if v.isLive() {
		v.mark = p.o.Mark(v.watched())
	}
	v.page.load(v)
	if before == nil && v.problem != nil {
		status = v.problem.Status
	}
	p.render(w, status, v)
}

// isLive reports whether the page renews itself for its reader.
func (v *visit) isLive() bool { return v.page.live && v.Me != nil }

// day is a day as the API's parameters have it, so many days before today.
func day(before int) string {
	return time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -before).Format(time.RFC3339)
}

func loadOverview(v *visit) {
	v.get("wallet", "/wallet")
	v.get("days", "/usage", "group_by", "day", "from", day(30))
	v.largest("payees", "payee", "paid")
	v.get("entries", "/wallet/entries", "limit", "10")
	v.get("escrows", "/escrow", "status", "active", "limit", "10")
}

// top gets the groups with the largest sums of the last 30 days.
func (v *visit) top(name, by, sum string) {
	v.get(name, "/usage", "group_by", by, "from", day(30), "top", "20", "top_of", sum)
}

// largest gets the payers or payees with the largest sums of a month, by default of this one. However many there are, only these are read.
func (v *visit) largest(name, by, sum string) {
	begin, err := time.Parse("2006-01", v.param("month"))
	if err != nil {
		now := time.Now().UTC()
		begin = time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	}
	v.data["month"] = begin.Format("2006-01")
	v.get(name, "/usage", "group_by", by, "from", begin.Format(time.RFC3339), "to", begin.AddDate(0, 1, 0).Format(time.RFC3339), "top", "20", "top_of", sum)
}

// groups are what usage can be grouped by on the pages.
var groups = []string{"day", "month", "payee", "payer", "route", "model", "key", "plan"}

func loadUsage(side string) func(v *visit) {
	return func(v *visit) {
		by := cmp.Or(v.param("by"), "payee")
		if tag := v.param("tag"); tag != "" {
			by = "tag:" + tag
		}
		from, to := cmp.Or(v.param("from"), day(30)[:10]), v.param("to")
		until := ""
		if end, err := time.Parse(time.DateOnly, to); err == nil {
			until = end.AddDate(0, 0, 1).Format(time.RFC3339) // the last day is in it
		}
		v.get("days", "/usage", "group_by", "day", "from", from+"T00:00:00Z", "to", until)
		top, sum := "", "" // days and months are shown in their order
		if by != "day" && by != "month" {
			top, sum = "500", map[string]string{"payer": "paid", "payee": "earned"}[side]
		}
		v.get("usage", "/usage", "group_by", by, "from", from+"T00:00:00Z", "to", until, "top", top, "top_of", sum)
		v.data["groups"], v.data["by"], v.data["from"], v.data["to"], v.data["side"] = groups, by, from, to, side
	}
}

func loadStatement(v *visit) {
	month := cmp.Or(v.param("month"), time.Now().UTC().Format("2006-01"))
	v.get("month", "/statements", "month", month)
	v.get("entries", "/wallet/entries", v.paging()...)
}

// chargeStatuses are those that can be chosen; the API knows which there are.
var chargeStatuses = []string{"", "charged", "held", "disputed", "partly_refunded", "refunded", "shadow"}

func loadCharges(v *visit) {
	v.get("charges", "/charges", v.paging("status", v.param("status"), "suspect", v.param("suspect"), "payee", v.param("payee"), "payer", v.param("payer"), "agent_id", v.param("agent_id"))...)
}

func loadCharge(v *visit) {
	v.get("charge", "/charges/"+v.id())
	if v.problem != nil {
		return
	}
	explained, err := v.pages.o.Explain(v.r.Context(), v.r.PathValue("id"))
	if err == nil {
		v.data["explained"], err = asObject(explained)
	}
	if err != nil {
		v.pages.o.Logger.Warn("a charge can't be explained", "request", v.r.PathValue("id"), "error", err)
	}
}

func loadEscrows(v *visit) {
	status := v.param("status")
	if !v.r.URL.Query().Has("status") {
		status = "active"
	}
	v.data["status"] = status
	v.get("escrows", "/escrow", v.paging("status", status, "agent_id", v.param("agent_id"))...)
}

func loadSubscriptions(v *visit) {
	v.get("subscriptions", "/subscriptions", v.paging()...)
	v.shop()
	shop, _ := v.data["shop"].(Shop)
	v.data["plans"] = shop.plans()
}

func loadEarnings(v *visit) {
	v.get("wallet", "/wallet")
	v.get("by_day", "/usage", "group_by", "day", "from", day(30))
	v.top("by_route", "route", "earned")
	v.top("by_model", "model", "earned")
	v.largest("by_payer", "payer", "earned")
	v.get("refunds", "/escrow", "role", "payee", "status", "refund_requested", "limit", "20")
	v.get("disputed", "/escrow", "role", "payee", "status", "disputed", "limit", "20")
	v.get("released", "/escrow", "role", "payee", "status", "released", "limit", "10")
	v.get("locked", "/escrow", "role", "payee", "status", "active", "limit", "50")
	agent, _ := v.Me["agent_id"].(string)
	v.get("charges", "/charges", "payee", agent, "limit", "20")
	v.shop()
	shop, _ := v.data["shop"].(Shop)
	v.data["trial"] = v.trialForm(shop, agent)
	v.get("heldcharges", "/charges", "payee", agent, "status", "held", "limit", "20")
	v.get("payouts", "/payouts", "limit", "20")
}

func loadLimits(v *visit) {
	v.get("limits", "/limits")
	v.get("keys", "/agents/me/keys", "limit", "100")
	v.get("allowances", "/wallet/allowances", "limit", "50")
	v.get("webhooks", "/webhooks", "limit", "50")
	v.get("wallet", "/wallet")
	v.get("deposits", "/deposits", "limit", "10")
	v.shop()
	if shop, is := v.data["shop"].(Shop); is && shop.Cards {
		v.topUp()
	}
}

// topUp puts into the data how the wallet is filled by itself, if a payment method was saved.
func (v *visit) topUp() {
	if found, err := v.call(http.MethodGet, "/wallet/top-up", nil, nil); err == nil {
		v.data["topup"] = found
	}
}

// shop puts into the data what is sold.
func (v *visit) shop() {
	if shop, err := v.pages.o.Shop(v.r); err == nil {
		v.data["shop"] = shop
	}
}

func loadShop(v *visit) {
	v.shop()
	shop, _ := v.data["shop"].(Shop)
	v.data["goods"], v.data["trial"] = shop.goods(), v.trialForm(shop, "")
	if v.Me != nil {
		v.get("charges", "/charges", "limit", "5")
	}
}

func loadBooks(v *visit) {
	books, err := v.pages.o.Books(v.r.Context())
	if err == nil {
		v.data["books"], err = asObject(books)
	}
	if err != nil {
		v.fails(err)
	}
	v.get("days", "/usage", "group_by", "day", "from", day(30))
	v.largest("payers", "payer", "earned") // of all agents together, everything is earned
	v.largest("payees", "payee", "earned")
	v.get("suspect", "/charges", "suspect", "true", "limit", "10")
	v.get("withheld", "/withheld", "limit", "10")
	v.get("disputed", "/escrow", "status", "disputed", "limit", "5")
	v.get("disputedcharges", "/charges", "status", "disputed", "limit", "5")
	v.get("charges", "/charges", "limit", "10")
}

func loadAgent(v *visit) {
	id := v.r.PathValue("id")
	v.get("agent", "/agents/"+v.id())
	if v.problem != nil {
		return
	}
	v.get("keys", "/agents/me/keys", "agent_id", id, "limit", "50")
	v.get("entries", "/wallet/entries", v.paging("agent_id", id)...)
}

func loadDisputes(v *visit) {
	v.get("escrows", "/escrow", v.paging("status", "disputed")...)
	if v.param("cursor") == "" {
		v.get("charges", "/charges", "status", "disputed", "limit", "50")
	}
}

func loadBookings(v *visit) {
	v.get("commission", "/wallet", "agent_id", "commission")
	v.get("payouts", "/payouts", "status", "requested", "limit", "50")
}

// older returns the address of the next page of a list, or an empty text if there is none.
func (v *visit) older(list any) string {
	found, _ := list.(object)
	next, _ := found["next_cursor"].(string)
	if next == "" {
		return ""
	}
	return fmt.Sprintf("%s?cursor=%s", v.r.URL.Path, url.QueryEscape(next))
}
