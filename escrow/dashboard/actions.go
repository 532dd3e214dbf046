package dashboard

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// kind says how the text of a form's field is written in the API's JSON.
type kind int

const (
	plain  kind = iota
	number      // such as 60
	list        // with commas or spaces between its values
	tick        // of a checkbox
	when        // a day and a time, in UTC
)

// field is a field of a form, and where its value is in the API's JSON. A field that is left empty is not sent.
type field struct {
	name string
	kind kind
	at   string // the object that it is in; empty: the body
}

// action is an operation of the API that a form asks for.
type action struct {
	method, path string
	fields       []field
	done         string                            // what the reader is told then
	shows        bool                              // the answer has a secret, which is shown once
	whole        func(v *visit, body object) error // completes the body, if the API wants more than the form has
}

func texts(names ...string) (fields []field) {
	for _, name := range names {
		fields = append(fields, field{name: name})
	}
	return fields
}

var keyFields = append(texts("agent_id", "name"), field{"read_only", tick, ""}, field{"payees", list, ""}, field{"models", list, ""},
	field{"routes", list, ""}, field{"requests_per_minute", number, "rate"}, field{"tokens_per_minute", number, "rate"}, field{"expires_at", when, ""})

// actions are what the pages' forms can ask for, by their names.
var actions = map[string]action{
	"create-escrow":   {method: "POST", path: "/escrow", fields: texts("to_agent_id", "amount", "memo", "auto_release_hours", "on_expiry"), done: "The money is locked in an escrow."},
	"release":         {method: "POST", path: "/escrow/{id}/release", fields: texts("memo"), done: "What remained was released."},
	"release-part":    {method: "POST", path: "/escrow/{id}/release-partial", fields: texts("amount", "milestone", "memo"), done: "A part was released."},
	"refund":          {method: "POST", path: "/escrow/{id}/refund", fields: texts("amount", "reason"), done: "The refund is made, or asked for."},
	"withdraw-refund": {method: "DELETE", path: "/escrow/{id}/refund", done: "The request was withdrawn."},
	"dispute":         {method: "POST", path: "/escrow/{id}/dispute", fields: texts("reason"), done: "The escrow is disputed; the operator decides."},
	"resolve":         {method: "POST", path: "/escrow/{id}/resolve", fields: texts("to_payee", "to_payer", "note"), done: "The dispute is resolved."},
	"deliver":         {method: "POST", path: "/escrow/{id}/milestones/{milestone}/deliver", fields: texts("note"), done: "The milestone is delivered."},

	"dispute-charge": {method: "POST", path: "/charges/{id}/dispute", fields: texts("reason"), done: "The charge is disputed; the operator decides."},
	"undispute":      {method: "DELETE", path: "/charges/{id}/dispute", done: "The dispute was taken back."},
	"refund-charge":  {method: "POST", path: "/charges/{id}/refund", fields: texts("amount", "reason"), done: "The charge was refunded."},
	"resolve-charge": {method: "POST", path: "/charges/{id}/resolve", fields: texts("to_payer", "note"), done: "The dispute is resolved."},

	"subscribe":           {method: "POST", path: "/subscriptions", fields: texts("payee", "plan", "to_agent_id", "amount", "period", "memo"), done: "The subscription has begun."},
	"end-subscription":    {method: "DELETE", path: "/subscriptions/{id}", done: "The subscription ends with its period."},
	"cancel-subscription": {method: "POST", path: "/subscriptions/{id}/cancel", done: "The subscription has ended."},
	"resume-subscription": {method: "POST", path: "/subscriptions/{id}/resume", done: "The subscription goes on."},

	"create-key": {method: "POST", path: "/agents/me/keys", fields: keyFields, done: "The key is made.", shows: true},
	"rotate-key": {method: "POST", path: "/agents/me/keys/{id}/rotate", fields: texts("agent_id", "overlap_hours"), done: "The key has a new secret.", shows: true},
	"revoke-key": {method: "DELETE", path: "/agents/me/keys/{id}", done: "The key is revoked."},

	"add-limit":    {method: "PUT", path: "/limits", fields: texts("key_id", "payee", "amount", "window_hours"), done: "The limit is set.", whole: withLimit},
	"drop-limit":   {method: "PUT", path: "/limits", fields: texts("key_id", "payee", "window_hours"), done: "The limit is gone.", whole: withoutLimit},
	"allow":        {method: "PUT", path: "/wallet/allowances/{payee}", fields: texts("amount"), done: "The allowance is set."},
	"disallow":     {method: "DELETE", path: "/wallet/allowances/{payee}", done: "The allowance is gone."},
	"faucet":       {method: "POST", path: "/faucet", done: "The faucet has paid."},
	"transfer":     {method: "POST", path: "/wallet/transfer", fields: texts("to_agent_id", "amount", "memo"), done: "The money is sent."},
	"redeem":       {method: "POST", path: "/coupons/redeem", fields: texts("code"), done: "The coupon is redeemed."},
	"add-webhook":  {method: "POST", path: "/webhooks", fields: append(texts("url", "balance_below"), field{"events", list, ""}), done: "The webhook is registered.", shows: true},
	"drop-webhook": {method: "DELETE", path: "/webhooks/{id}", done: "The webhook is deleted."},
	"test-webhook": {method: "POST", path: "/webhooks/{id}/test", done: "A test message is on its way."},
	"resend":       {method: "POST", path: "/webhooks/{id}/resend", fields: texts("message_id"), done: "The message is sent again."},

	"checkout":       {method: "POST", path: "/checkout", fields: append(texts("amount"), field{"save", tick, ""}), done: "The page for the payment is made.", shows: true},
	"set-top-up":     {method: "PUT", path: "/wallet/top-up", fields: texts("below", "amount", "per_day"), done: "The wallet is topped up by itself."},
	"end-top-up":     {method: "DELETE", path: "/wallet/top-up", done: "The card is forgotten."},
	"refund-deposit": {method: "POST", path: "/deposits/{id}/refund", fields: texts("amount"), done: "The money is set aside, and goes back."},
	"send-payout":    {method: "POST", path: "/payouts/{id}/send", done: "The payout is sent."},
	"ask-payout":     {method: "POST", path: "/payouts", fields: texts("amount", "to", "memo"), done: "The payout is asked for, and its money set aside."},
	"book-payout":    {method: "POST", path: "/payouts/{id}/book", fields: texts("reference"), done: "The payout is booked."},
	"refuse-payout":  {method: "POST", path: "/payouts/{id}/refuse", fields: texts("reason"), done: "The payout is refused."},

	"create-agent": {method: "POST", path: "/agents", fields: texts("agent_id", "name"), done: "The agent is made.", shows: true},
	"suspend":      {method: "POST", path: "/agents/{id}/suspend", fields: texts("reason"), done: "The agent is suspended."},
	"resume":       {method: "POST", path: "/agents/{id}/resume", done: "The agent is active again."},
	"limit-agent":  {method: "PUT", path: "/agents/{id}/limits", fields: append(texts("amount", "window_hours"), field{"requests_per_minute", number, "rate"}, field{"tokens_per_minute", number, "rate"}), done: "The limits are set.", whole: withAgentLimit},
	"deposit":      {method: "POST", path: "/wallet/deposit", fields: texts("agent_id", "amount", "reference", "memo"), done: "The deposit is booked."},
	"withdraw":     {method: "POST", path: "/wallet/withdraw", fields: texts("agent_id", "amount", "reference", "memo"), done: "The withdrawal is booked."},
}

// act does what a form asks for, and leads back to the form's page. What the API refuses is shown there.
func (p *pages) act(w http.ResponseWriter, r *http.Request) {
	v := p.begin(w, r)
	if v == nil {
		return
	}
	a, found := actions[r.PathValue("action")]
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil || !found {
		p.fail(w, r, http.StatusBadRequest, "This form is not one of this server's.")
		return
	}
	back := p.within(r.PostForm.Get("back"))
	answered, err := v.perform(a, r.PostForm)
	if err == nil && !a.shows {
		http.Redirect(w, r, p.base+withNotice(back, r.PathValue("action")), http.StatusSeeOther)
		return
	}
	if err != nil {
		v.fails(err)
	} else {
		v.secret = answered
	}
	p.again(w, v, back)
}

// again shows the page of a form with what came of it.
func (p *pages) again(w http.ResponseWriter, v *visit, back string) {
	at, err := url.Parse(back)
	if err != nil {
		at = &url.URL{Path: "/"}
	}
	shown := v.r.Clone(v.r.Context())
	shown.Method, shown.URL = http.MethodGet, &url.URL{Path: p.base + at.Path, RawQuery: at.RawQuery}
	_, id, _ := strings.Cut(strings.TrimPrefix(at.Path, "/"), "/")
	shown.SetPathValue("id", id)
	v.r, v.page = shown, findPage(at.Path)
	if v.page == agentHome && v.operator() {
		v.page = operatorHome
	}
	status := http.StatusOK
	if v.problem != nil {
		status = v.problem.Status
	}
	p.display(w, v, status)
}

// perform makes the request to the API that a form stands for.
func (v *visit) perform(a action, form url.Values) (object, error) {
	for _, part := range strings.Split(a.path, "/") {
		if name, is := strings.CutPrefix(part, "{"); is {
			if value := form.Get(strings.TrimSuffix(name, "}")); strings.Trim(value, ".") == "" {
				return nil, &problem{Status: http.StatusNotFound, Code: "not_found", Title: "Not found.", Detail: "the form does not say which"}
			}
		}
	}
	body, err := a.body(form)
	if err == nil && a.whole != nil {
		err = a.whole(v, body)
	}
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	if a.method == http.MethodDelete {
		if body = nil; v.operator() && form.Get("agent_id") != "" {
			query.Set("agent_id", form.Get("agent_id"))
		}
	}
	return v.call(a.method, escapePath(a.path, form), query, body, "Idempotency-Key", form.Get("nonce"))
}

// body returns the API's JSON for a form.
func (a action) body(form url.Values) (object, error) {
	body := make(object)
	for _, f := range a.fields {
		given := strings.TrimSpace(form.Get(f.name))
		if given == "" {
			continue
		}
		var value any = given
		switch f.kind {
		case number:
			if strings.Trim(given, "0123456789") != "" || len(given) > 18 {
				return nil, &problem{Status: http.StatusUnprocessableEntity, Code: "invalid_request", Title: "The request is not valid.", Detail: f.name + " is a whole number"}
			}
			value = json.Number(strings.TrimLeft(given[:len(given)-1], "0") + given[len(given)-1:])
		case list:
			value = strings.FieldsFunc(given, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' || c == '\r' })
		case tick:
			value = true
		case when:
			value = given + ":00Z" // a form has no seconds and no zone
		}
		into := body
		if f.at != "" {
			if body[f.at] == nil {
				body[f.at] = make(object)
			}
			into = body[f.at].(object)
		}
		into[f.name] = value
	}
	return body, nil
}

// ownLimits returns the reader's own limits but for the one in the body, which is moved there. The API replaces all of them at once.
func ownLimits(v *visit, body object) (limits []any, one object, err error) {
	found, err := v.call(http.MethodGet, "/limits", nil, nil)
	if err != nil {
		return nil, nil, err
	}
	one = make(object)
	for name, value := range body {
		one[name] = value
		delete(body, name)
	}
	limits = []any{}
	all, _ := found["limits"].([]any)
	for _, l := range all {
		l := l.(object)
		if l["set_by"] == "operator" || orEmpty(l["key_id"]) == orEmpty(one["key_id"]) && orEmpty(l["payee"]) == orEmpty(one["payee"]) && sameHours(l["window_hours"], one["window_hours"]) {
			continue
		}
		for name, value := range l {
			if value == nil {
				delete(l, name)
			}
		}
		limits = append(limits, l)
	}
	return limits, one, nil
}

func orEmpty(value any) string {
	text, _ := value.(string)
	return text
}

func sameHours(stored, given any) bool {
	number, _ := stored.(json.Number)
	return number.String() == orEmpty(given)
}

func withLimit(v *visit, body object) error {
	limits, one, err := ownLimits(v, body)
	body["limits"] = append(limits, one)
	return err
}

func withoutLimit(v *visit, body object) error {
	limits, _, err := ownLimits(v, body)
	body["limits"] = limits
	return err
}

// withAgentLimit makes the operator's limit of an agent the only one that the operator has set.
func withAgentLimit(_ *visit, body object) error {
	if body["amount"] != nil {
		body["limits"] = []any{object{"amount": body["amount"], "window_hours": body["window_hours"]}}
	}
	delete(body, "amount")
	delete(body, "window_hours")
	return nil
}

// withNotice adds to a path which action has been done, for the page to tell.
func withNotice(path, action string) string {
	at, err := url.Parse(path)
	if err != nil {
		return "/"
	}
	query := at.Query()
	query.Set("done", action)
	at.RawQuery = query.Encode()
	return at.RequestURI()
}
