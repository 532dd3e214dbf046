package caddymodule_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestUnitsOfAllKinds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, meter, path, body string
		upstream                http.HandlerFunc
		charge, units           string
	}{
		{
			"rows by header", "price 0.02 per 1k rows\n\t\t\tcount rows header X-Row-Count", "/rows", "",
			func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Row-Count", "1250")
				_, _ = io.WriteString(w, "a,b\n")
			}, "0.025", "rows=1250",
		},
		{
			"hours by JSON path", "count gpu_hours json $.usage.gpu_hours\n\t\t\tprice 2 per gpu_hours", "/jobs", "",
			func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"id":7,"usage":{"gpu_hours":0.125}}`)
			}, "0.25", "gpu_hours=0.125",
		},
		{"bytes", "price 1 per MB", "/file", "", text(strings.Repeat("x", 250_000)), "0.25", "byte=250000"},
		{"call and bytes", "price 0.5 per call\n\t\t\tprice 1 per MB", "/file", "", text("1234"), "0.500004", "byte=4,call=1"},
		{
			"tool call", "tariff {\n\t\t\t\ttool search* 0.01 per call\n\t\t\t\ttool * 0.05 per call\n\t\t\t}", "/tools",
			`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_web","arguments":{}}}`,
			func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"content":[]}}`)
			}, "0.01", "",
		},
		{
			"failed tool call", "tariff {\n\t\t\t\ttool * 0.05 per call\n\t\t\t}", "/tools",
			`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_web","arguments":{}}}`,
			func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[]}}`)
			}, "0", "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openShop(t, "", fmt.Sprintf("handle {\n\t\tmeter acme {\n\t\t\t%s\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}", test.meter), test.upstream)
			key := s.agent("alice", "10")
			method := "GET"
			if test.body != "" {
				method = "POST"
			}
			a := s.do(method, test.path, key, test.body)
			if a.status != 200 || a.err != nil {
				t.Fatalf("%d %s %v", a.status, a.body, a.err)
			}
			charge := s.charges(key)[0]
			want(t, "charge", charge["amount"].(string), test.charge)
			stated := a.header.Get("Tallygate-Units") + a.trailer.Get("Tallygate-Units")
			if test.units != "" {
				want(t, "units", stated, test.units)
			}
		})
	}
}

func TestToolWithoutAPriceIsRefused(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", "handle {\n\t\tmeter acme {\n\t\t\ttariff {\n\t\t\t\ttool search* 0.01 per call\n\t\t\t}\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}", text("never"))
	key := s.agent("alice", "10")
	wantProblem(t, s.do("POST", "/tools", key, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_all","arguments":{}}}`), 422, "no_price")
	want(t, "listing the tools", fmt.Sprint(s.do("POST", "/tools", key, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`).status), "200")
}
