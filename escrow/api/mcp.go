package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/escrow"
)

// tool is a route that agents call by name over MCP. Its arguments are the route's parameters and the fields of its body.
type tool struct {
	name, description string
	route             string            // the name of the route
	arguments         map[string]string // from the names of the path's parameters to the names of the arguments
	readOnly          bool
}

var escrowArgument = map[string]string{"id": "escrow_id"}

var holdArgument = map[string]string{"id": "hold_id"}

// tools are all the tools that MCP offers.
var tools = []tool{
	{"escrow_create", "Lock money for a payee. The rest goes to the payee, or back, after auto_release_hours; milestones are parts released as they are accepted.", "createEscrow", nil, false},
	{"escrow_release", "Release what remains of an escrow to its payee; with amount or milestone, only that part.", "releaseEscrow", escrowArgument, false},
	{"escrow_status", "Look at an escrow.", "getEscrow", escrowArgument, true},
	{"escrow_list", "List your escrows, as payer and as payee, newest first. status=active: those that still hold money.", "listEscrows", nil, true},
	{"escrow_refund", "Give an escrow's money back to the payer (as its payee), or ask for it back (as its payer).", "refundEscrow", escrowArgument, false},
	{"escrow_dispute", "Freeze an escrow until the operator resolves it.", "disputeEscrow", escrowArgument, false},
	{"escrow_resolve", "Divide what remains of a disputed escrow. Only for the operator.", "resolveEscrow", escrowArgument, false},
	{"hold_open", "Set money aside for a payee, which captures it in parts as its work is done; or, as the payee, do so under an allowance of the payer (from_agent_id).", "openHold", nil, false},
	{"hold_status", "Look at a hold.", "getHold", holdArgument, true},
	{"hold_list", "List your holds, as payer and as payee, newest first.", "listHolds", nil, true},
	{"hold_capture", "Charge a part of a hold (as its payee). final=true: the rest goes back to the payer.", "captureHold", holdArgument, false},
	{"hold_void", "Give what remains of a hold back to its payer (as its payee).", "voidHold", holdArgument, false},
	{"charge_report", "Charge a payer for work that you did outside of metered routes (as its payee), with its consent: an allowance, a subscription or a hold.", "reportCharge", nil, false},
	{"wallet_balance", "Your wallet: balance, held, available, and the credit that you may use besides it.", "getWallet", nil, true},
	{"wallet_statement", "What moved in your wallet, newest first.", "listEntries", nil, true},
	{"faucet_claim", "Claim play money, once.", "claimFaucet", nil, false},
	{"credit_issue", "Give an agent credit: calls to you that it may make without money. It is no money, and pays you alone.", "issueCredit", nil, false},
	{"credit_list", "List credit that you may use, or have issued, newest first.", "listCredits", nil, true},
	{"credit_revoke", "Take back what is unused of a credit that you have issued.", "revokeCredit", map[string]string{"id": "credit_id"}, false},
	{"coupon_issue", "Make a code that agents redeem for credit, each once.", "issueCoupon", nil, false},
	{"coupon_list", "List the coupons that you have issued, newest first.", "listCoupons", nil, true},
	{"coupon_revoke", "End a coupon that you have issued: nobody redeems it any more.", "revokeCoupon", map[string]string{"id": "coupon_id"}, false},
	{"coupon_redeem", "Redeem a coupon's code for credit, once.", "redeemCoupon", nil, false},
	{"agent_register", "Become an agent: the answer has the key, shown this once. It goes into the client's configuration. Needs no key, unless only the operator registers agents.", "createAgent", nil, false},
	{"checkout", "A page on which a person pays by card into your wallet: give its url to them. save=true keeps the payment method for top_up_set.", "createCheckout", nil, false},
	{"top_up_status", "How your wallet is filled by itself.", "getTopUp", nil, true},
	{"top_up_set", "Fill your wallet by itself when it falls below an amount, with the payment method that a checkout has saved.", "setTopUp", nil, false},
	{"top_up_end", "Stop filling your wallet by itself, and forget the payment method.", "deleteTopUp", nil, false},
	{"deposit_list", "List your deposits that came in by payment rails, newest first, with what of each can go back.", "listDeposits", nil, true},
	{"deposit_refund", "Have unspent money of a deposit back, the way it came; without an amount, as much as can go back. The answer is a payout, and its money is set aside at once.", "refundDeposit", map[string]string{"id": "deposit_id"}, false},
	{"payout_request", "Ask for money to be paid out to you; it is set aside at once, and the operator pays it.", "createPayout", nil, false},
	{"payout_list", "List your payouts, newest first.", "listPayouts", nil, true},
	{"wallet_transfer", "Pay another agent from your wallet.", "transfer", nil, false},
	{"subscribe", "Subscribe to a payee's plan (payee, plan), or pay an agent an amount each period (to_agent_id, amount, period_hours).", "createSubscription", nil, false},
	{"subscription_list", "List your subscriptions, as payer and as payee, with what is left of their quotas.", "listSubscriptions", nil, true},
	{"subscription_end", "End a subscription at the end of its period.", "endSubscription", map[string]string{"id": "subscription_id"}, false},
	{"tariffs", "What each metered route costs. Needs no key.", "listTariffs", nil, true},
	{"charges", "What calls have cost, newest first.", "listCharges", nil, true},
	{"limits", "What you may spend, as set by yourself and by the operator.", "getLimits", nil, true},
	{"limits_set", "Limit what you may spend: per key, per payee, or in all. Replaces the limits that you have set before.", "setLimits", nil, false},
	{"quote", "What a request to a metered route would cost, and whether you can afford it.", "quote", nil, true},
}

const idempotencyArgument = "idempotency_key"

// mcpHandler serves the tools over streamable HTTP. It has no sessions, so that any gateway can answer any request.
func (s *server) mcpHandler() http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "tallygate", Title: "Tallygate", Version: s.o.Version}, &mcp.ServerOptions{
		Instructions: "Wallets and escrows of agents that pay each other. Amounts are decimal strings. A call that fails returns a problem with a stable code.",
	})
	for _, t := range tools {
		rt := s.routeNamed(t.route)
		server.AddTool(&mcp.Tool{
			Name: t.name, Description: t.description, InputSchema: t.schema(s), Annotations: &mcp.ToolAnnotations{ReadOnlyHint: t.readOnly},
		}, func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return s.callTool(ctx, t, rt, req)
		})
	}
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{
		Stateless: true, JSONResponse: true, Logger: s.o.Logger,
		DisableLocalhostProtection: true, // isRebound does this, and also knows trusted proxies
	})
}

// isRebound reports whether a request to an address of this machine names a host or an origin that is not this machine. Such a request may
// come from a web page whose host name resolves to this machine, in order to reach servers that others can't reach (DNS rebinding).
// https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#security-warning
func (s *server) isRebound(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !isThisMachine(local.String()) || s.o.Proxied(r) {
		return false
	}
	if !isThisMachine(r.Host) {
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	page, err := url.Parse(origin)
	return err != nil || !isThisMachine(page.Host)
}

// isThisMachine reports whether a host, with or without a port, is localhost or a loopback address.
func isThisMachine(hostport string) bool {
	host := hostport
	if name, _, err := net.SplitHostPort(hostport); err == nil {
		host = name
	}
	if address, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return address.Unmap().IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// mcpAnswer converts the errors of the MCP server into problems. The server answers requests that are not MCP's with plain text.
type mcpAnswer struct {
	http.ResponseWriter
	refused int // the status of the error; 0: there was none
	said    bytes.Buffer
}

func (a *mcpAnswer) WriteHeader(status int) {
	if status >= 400 && strings.HasPrefix(a.Header().Get("Content-Type"), "text/plain") {
		a.refused = status
		return
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *mcpAnswer) Write(p []byte) (int, error) {
	if a.refused != 0 {
		return a.said.Write(p)
	}
	return a.ResponseWriter.Write(p)
}

func (a *mcpAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// refusal returns the error as a refusal, or nil if there was none.
func (a *mcpAnswer) refusal() *escrow.Refusal {
	outcomes := map[int]escrow.Outcome{
		http.StatusMethodNotAllowed: MethodNotAllowed, http.StatusRequestEntityTooLarge: RequestTooLarge, http.StatusUnsupportedMediaType: UnsupportedMedia,
		http.StatusForbidden: escrow.Forbidden, http.StatusNotFound: escrow.NotFound, http.StatusInternalServerError: InternalError,
	}
	if a.refused == 0 {
		return nil
	}
	outcome, ok := outcomes[a.refused]
	if !ok {
		outcome = MalformedRequest
	}
	return &escrow.Refusal{Outcome: outcome, Detail: strings.TrimSpace(a.said.String())}
}

// withKeyOfQuery returns the request with the key in its URL as bearer token, for clients that are given a URL and nothing else. A key in
// the header counts before it.
func withKeyOfQuery(req *http.Request) *http.Request {
	query := req.URL.Query()
	key := query.Get("key")
	if key == "" {
		return req
	}
	query.Del("key")
	req = req.Clone(req.Context())
	req.URL.RawQuery = query.Encode()
	if req.Header.Get("Authorization") == "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	return req
}

// serveMCP lets a client without a key list the tools. It refuses a wrong key at once.
func (s *server) serveMCP(w http.ResponseWriter, req *http.Request) {
	req = withKeyOfQuery(req)
	if _, err := s.request(req, anyone); err != nil {
		if asRefusal(err).Outcome == escrow.Unauthorized {
			w.Header().Set("WWW-Authenticate", bearerChallenge+`, resource_metadata="`+Origin(req, s.o.Proxied(req))+ResourceMetadataPath(s.o.Prefix)+`"`)
		}
		s.fail(w, req, err)
		return
	}
	if s.isRebound(req) {
		s.fail(w, req, &escrow.Refusal{Outcome: escrow.Forbidden, Detail: "this address belongs to the machine itself, but the request names another host or origin: " +
			"call localhost; or if a proxy on this machine sent the request, the operator must name it in trusted_proxies"})
		return
	}
	client := (&request{Request: req, server: s}).client()
	req = req.WithContext(context.WithValue(req.Context(), clientKey{}, client)) // for the requests that are made of calls of tools
	req.Body = http.MaxBytesReader(w, req.Body, maxBody)
	answer := &mcpAnswer{ResponseWriter: w}
	s.mcp().ServeHTTP(answer, req)
	if refusal := answer.refusal(); refusal != nil {
		w.Header().Del("X-Content-Type-Options")
		s.fail(w, req, refusal)
	}
}

func (s *server) routeNamed(name string) route {
	for _, rt := range s.routes {
		if rt.name == name {
			return rt
		}
	}
	panic("no route is named " + name) // the table of tools is wrong
}

// schema returns the schema of the tool's arguments, which are the route's parameters and the fields of its body.
func (t tool) schema(s *server) *jsonschema.Schema {
	rt := s.routeNamed(t.route)
	schema := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}, AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}}
	take := func(rt route) {
		if body := question(rt.in); body != nil && rt.method != http.MethodGet && rt.method != http.MethodDelete {
			maps.Copy(schema.Properties, body.Properties)
			schema.Required = append(schema.Required, body.Required...)
		}
	}
	take(rt)
	if t.name == "escrow_release" {
		take(s.routeNamed("releasePartial"))
	}
	for _, parameter := range parameters(rt) {
		name := parameter["name"].(string)
		switch parameter["in"] {
		case "path":
			name = t.arguments[name]
			schema.Required = append(schema.Required, name)
			schema.Properties[name] = &jsonschema.Schema{Type: "string"}
		case "query":
			schema.Properties[name] = &jsonschema.Schema{Type: parameter["schema"].(object)["type"].(string)}
		case "header":
			schema.Properties[idempotencyArgument] = &jsonschema.Schema{Type: "string", Description: "if the call is repeated with the same key, it gets the first answer and moves nothing"}
		}
	}
	return schema
}

// callTool runs a tool as a request to its route, so that MCP has the same rules, fields and errors as REST.
func (s *server) callTool(ctx context.Context, t tool, rt route, call *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	arguments := map[string]json.RawMessage{}
	if len(call.Params.Arguments) > 0 {
		if err := json.Unmarshal(call.Params.Arguments, &arguments); err != nil {
			return nil, fmt.Errorf("the arguments of %s are not an object: %w", t.name, err)
		}
	}
	if t.name == "escrow_release" && (arguments["amount"] != nil || arguments["milestone"] != nil) {
		rt = s.routeNamed("releasePartial")
	}
	var key string
	if rt.write != nil && json.Unmarshal(arguments[idempotencyArgument], &key) == nil {
		delete(arguments, idempotencyArgument)
	}
	req, err := t.request(ctx, rt, arguments)
	if err != nil {
		return nil, err
	}
	if call.Extra != nil {
		req.Header.Set("Authorization", call.Extra.Header.Get("Authorization"))
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	answer := &recorder{header: http.Header{}}
	s.serve(answer, req, rt)
	return answer.result(s.o.Prefix)
}

// request converts a call of the tool into a request to its route. The arguments that are not in the path are the body, or the query if the
// route reads or deletes.
func (t tool) request(ctx context.Context, rt route, arguments map[string]json.RawMessage) (*http.Request, error) {
	query, path := url.Values{}, rt.path
	values := map[string]string{}
	arguments = maps.Clone(arguments)
	for _, parameter := range parameters(rt) {
		if name := parameter["name"].(string); parameter["in"] == "path" {
			values[name] = text(arguments[t.arguments[name]])
			path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(values[name]))
			delete(arguments, t.arguments[name])
		}
	}
	if rt.method == http.MethodGet || rt.method == http.MethodDelete {
		for name, value := range arguments {
			if value := text(value); value != "" && value != "null" {
				query.Set(name, value)
			}
		}
		arguments = nil
	}
	body, err := json.Marshal(arguments)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, rt.method, base+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range values {
		req.SetPathValue(name, value)
	}
	return req, nil
}

// text returns an argument for a URL: the content of a string, or the JSON of another value.
func text(argument json.RawMessage) string {
	var s string
	if err := json.Unmarshal(argument, &s); err == nil {
		return s
	}
	return string(argument)
}

// recorder records the answer of a route.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// howToGiveKey follows the refusal of a tool for lack of a key.
const howToGiveKey = `. In the configuration of an MCP client: "headers": {"Authorization": "Bearer KEY"}, or ?key=KEY at the end of the URL PREFIX/mcp; the tool agent_register makes an agent and its key`

// result returns the answer as the result of a tool. A refusal becomes a result with isError that contains the problem.
func (r *recorder) result(prefix string) (*mcp.CallToolResult, error) {
	text := bytes.TrimSpace(r.body.Bytes())
	if len(text) == 0 {
		text = []byte("{}")
	}
	if r.status == http.StatusUnauthorized {
		detail := gjson.GetBytes(text, "detail").String() + strings.ReplaceAll(howToGiveKey, "PREFIX", prefix)
		if told, err := sjson.SetBytes(text, "detail", detail); err == nil {
			text = told
		}
	}
	return &mcp.CallToolResult{
		Content: []mcp.Content{&mcp.TextContent{Text: string(text)}}, StructuredContent: json.RawMessage(text), IsError: r.status >= 400,
	}, nil
}
