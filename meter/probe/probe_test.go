package probe_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/meter/wire"
)

func TestJSON(t *testing.T) {
	many := strings.Repeat(`{"qty":1.25,"text":"`+strings.Repeat("x", 100)+`"},`, 5000)
	large := `{"items":[` + strings.TrimSuffix(many, ",") + `],"meta":{"rows":12}}`
	ndjson := `{"n":1}` + "\n" + `{"n":2}` + "\n" + `{"x":3}`
	tests := []struct {
		path, contentType, body string
		want                    string // "" for none, "~" before what is no exact count
	}{
		{"count", "application/json", `{"count":34}`, "34"},
		{"$.count", "application/json", `{"count":1.25}`, "1.25"},
		{"count", "application/json", `{"count":"7"}`, "7"},
		{"count", "application/json", `{"count":null}`, ""},
		{"count", "application/json", `{"other":1}`, ""},
		{"count", "application/json", `{"count":-3}`, "~0"},
		{"count", "application/json", `{"count":1e30}`, "~1000000000000"},
		{"count", "application/json", `{"count":0.0000001}`, "0.000001"},
		{"count", "application/json", `{"count":{"a":1}}`, "~0"},
		{"meta.rows", "application/json", large, "12"},
		{"items.#", "application/json", large, "5000"},
		{"items.#.qty", "application/json", large, "6250"},
		{"#", "application/json", `[1,[2,3],{"a":4}]`, "3"},
		{"a.#.b", "application/json", `{"a":[{"b":1},{"c":9},{"b":2.5}]}`, "3.5"},
		{"a.1.b", "application/json", `{"a":[{"b":1},{"b":2}]}`, "2"},
		{"a.#(c==2).b", "application/json", `{"a":[{"b":1,"c":1},{"b":7,"c":2}]}`, "7"},
		{"a.@this.#", "application/json", `{"a":[1,2,3]}`, "3"},
		{"list", "application/json", `{"list":[1,2,3]}`, "6"},
		{"n", "application/x-ndjson", ndjson, "2"},
		{"n", "text/event-stream", "data: {\"n\":1}\n\ndata: {\"n\":5}\n\ndata: [DONE]\n\n", "5"},
		{"n", "text/html", "<html>", ""},
	}
	for _, tt := range tests {
		p, err := probe.JSON(tt.path)
		if err != nil {
			t.Fatalf("%s: %v", tt.path, err)
		}
		h := http.Header{"Content-Type": {tt.contentType}}
		r := p.Reader(&meter.Call{}, 200, h)
		for rest := tt.body; rest != ""; {
			n := min(7, len(rest))
			r.Feed([]byte(rest[:n]))
			rest = rest[n:]
		}
		r.End()
		got := ""
		if q, exact, ok := r.Quantity(); ok {
			got = q.String()
			if !exact {
				got = "~" + got
			}
		}
		if got != tt.want {
			t.Errorf("%s of %.60s: got %q, want %q", tt.path, tt.body, got, tt.want)
		}
	}
	for _, bad := range []string{"a..b", "a.", "a.#.b.@reverse"} {
		if _, err := probe.JSON(bad); err == nil {
			t.Errorf("path %q was taken", bad)
		}
	}
}

func TestAdd(t *testing.T) {
	rows, err := probe.Header("X-Row-Count")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := probe.JSON("pages")
	if err != nil {
		t.Fatal(err)
	}
	counts := []probe.Count{{Class: "rows", Probe: rows}, {Class: meter.Page, Probe: pages}}
	call := &meter.Call{Format: wire.Generic}
	h := http.Header{"Content-Type": {"application/json"}, "X-Row-Count": {"1200"}}
	for _, tt := range []struct {
		status   int
		body     string
		complete bool
		want     string
	}{
		{200, `{"pages":2}`, true, "byte=11,call=1,page=2,rows=1200"},
		{200, `{"pages":2}`, false, "byte=10,page=2,rows=1200"}, // the last byte was held back
		{500, `{"pages":2}`, true, "byte=11,call=1"},
		{200, ``, false, ""},
	} {
		c := probe.Add(call.Counter(tt.status, h), counts, nil, call, tt.status, h)
		c.Feed(nil, []byte(tt.body))
		if tt.complete {
			c.Tail()
		}
		if got := c.Usage(tt.complete).Units.String(); got != tt.want {
			t.Errorf("status %d, %q, complete %v: counted %s, want %s", tt.status, tt.body, tt.complete, got, tt.want)
		}
	}
	if _, err := probe.Header("X Row"); err == nil {
		t.Error("a header with a space was taken")
	}
}

// A cost is what the response states, digit by digit, at the first probe that it has; and not what the format has found.
func TestAddCosts(t *testing.T) {
	var costs []*probe.Probe
	for _, path := range []string{"usage.cost", "cost"} {
		p, err := probe.JSON(path)
		if err != nil {
			t.Fatal(err)
		}
		costs = append(costs, p)
	}
	call, err := formats.Inspect(meter.Head{Method: "POST", Path: "/v1/chat/completions"}, []byte(`{"model":"m","messages":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{"Content-Type": {"application/json"}}
	for _, tt := range []struct{ body, want string }{
		{`{"usage":{"cost":0.123456789012345678901}}`, "0.123456789012345678901"},
		{`{"usage":{"cost":1.2e-05}}`, "1.2e-05"},
		{`{"usage":{"cost":"0.10"}}`, "0.10"},
		{`{"cost":2,"usage":{"cost":1}}`, "1"},
		{`{"cost":2}`, "2"},
		{`{"usage":{"cost":[0.1, 0.2]}}`, "[0.1, 0.2]"},
		{`{"usage":{"cost":null}}`, ""},
		{`{"usage":{"cost_in_usd_ticks":5}}`, ""},
	} {
		c := probe.Add(call.Counter(200, h), nil, costs, call, 200, h)
		c.Feed(nil, []byte(tt.body))
		if got := c.Usage(true).Cost; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.body, got, tt.want)
		}
	}
	if sum, err := probe.JSON("steps.#.cost"); err != nil || !sum.Sums() || costs[0].Sums() {
		t.Errorf("what is added up is not told apart: %v", err)
	}
}

// TestSum adds up exactly what stands at several places.
func TestSum(t *testing.T) {
	var parts []*probe.Probe
	for _, path := range []string{"usage.model_cost", "usage.tool_cost"} {
		p, err := probe.JSON(path)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	for _, tt := range []struct{ body, want string }{
		{`{"usage":{"model_cost":0.1234567890123456789,"tool_cost":1e-7}}`, "0.1234568890123456789"},
		{`{"usage":{"model_cost":"0.5","tool_cost":2}}`, "2.5"},
		{`{"usage":{"tool_cost":0.01}}`, "0.01"},
		{`{"usage":{"model_cost":0,"tool_cost":0}}`, "0"},
		{`{"usage":{"model_cost":0.5,"tool_cost":"free"}}`, "free"},
		{`{"usage":{"model_cost":0.5,"tool_cost":-1}}`, "-1"},
		{`{"usage":{"model_cost":0.5,"tool_cost":1e900000}}`, "1e900000"},
		{`{"usage":{}}`, ""},
	} {
		r := probe.Sum(parts).Reader(&meter.Call{}, 200, http.Header{"Content-Type": {"application/json"}})
		r.Feed([]byte(tt.body))
		r.End()
		if got, ok := r.Text(); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, want %q", tt.body, got, tt.want)
		}
	}
}

// TestTrailer reads a header that comes after the body.
func TestTrailer(t *testing.T) {
	p, err := probe.Header("X-Cost")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"X-Cost", http.TrailerPrefix + "X-Cost"} {
		h := http.Header{}
		r := p.Reader(&meter.Call{}, 200, h)
		r.Feed([]byte("body"))
		h[name] = []string{"0.25"}
		r.End()
		if got, ok := r.Text(); got != "0.25" || !ok {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func FuzzProbe(f *testing.F) {
	f.Add("a.#.b", `{"a":[{"b":1}]}`)
	f.Add("a.0.@reverse|b", `{"a":[[{"b":"x"}]]}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		p, err := probe.JSON(path)
		if err != nil {
			return
		}
		for _, kind := range []string{"application/json", "text/event-stream"} {
			r := p.Reader(&meter.Call{}, 200, http.Header{"Content-Type": {kind}})
			r.Feed([]byte(body))
			r.End()
			if q, _, _ := r.Quantity(); q < 0 || q > meter.MaxQuantity {
				t.Errorf("%s", fmt.Sprint("quantity ", q))
			}
		}
	})
}

// TestUnread tells numbers from what is none: only a number can be charged.
func TestUnread(t *testing.T) {
	for _, test := range []struct {
		path, body string
		unread     bool
	}{
		{"n", `{"n":5000}`, false}, {"n", `{"n":"5000"}`, false}, {"n", `{"n":" 5000\n"}`, false}, {"n", `{"n":0}`, false}, {"n", `{"n":1e30}`, false},
		{"n", `{"n":null}`, false}, {"n", `{"m":1}`, false}, {"n.#.m", `{"n":[{"m":1},{"m":null}]}`, false}, {"n.#", `{"n":[true,"x"]}`, false},
		{"n", `{"n":"5,000"}`, true}, {"n", `{"n":"5 000"}`, true}, {"n", `{"n":true}`, true}, {"n", `{"n":false}`, true}, {"n", `{"n":-5}`, true},
		{"n", `{"n":"5 rows"}`, true}, {"n", `{"n":""}`, true}, {"n", `{"n":{"m":5}}`, true}, {"n", `{"n":"NaN"}`, true}, {"n", `{"n":"1e5000"}`, true},
		{"n.#.m", `{"n":[{"m":1},{"m":"2,000"}]}`, true}, {"n", `{"n":[1,"2,000"]}`, true}, {"n.@this", `{"n":"x"}`, true},
	} {
		p, err := probe.JSON(test.path)
		if err != nil {
			t.Fatal(err)
		}
		r := p.Reader(&meter.Call{}, http.StatusOK, http.Header{"Content-Type": {"application/json"}})
		r.Feed([]byte(test.body))
		r.End()
		if r.Unread() != test.unread {
			t.Errorf("%s of %s: unread is %v", test.path, test.body, r.Unread())
		}
	}
}
