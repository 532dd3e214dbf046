package demo

import (
	"strings"
	"testing"
)

func TestFeed(t *testing.T) {
	var got struct{ Items []struct{ Title, URL string } }
	get(t, open(t, "feed")+"/feed").decode(t, &got)
	if len(got.Items) != len(corpus) || got.Items[0].Title != corpus[0].Title {
		t.Errorf("got %+v", got.Items)
	}
}

func TestLive(t *testing.T) {
	url := open(t, "live") + "/live"
	r := get(t, url+"?events=3")
	if kind := r.header.Get("Content-Type"); kind != "text/event-stream; charset=utf-8" {
		t.Errorf("content type %q", kind)
	}
	want := `event: tick
data: {"seq":1,"good":"tulips","price":"11.37"}

event: tick
data: {"seq":2,"good":"tulips","price":"12.74"}

event: tick
data: {"seq":3,"good":"tulips","price":"13.11"}

data: [DONE]

`
	if r.body != want {
		t.Errorf("got %q, want %q", r.body, want)
	}
	if n := strings.Count(get(t, url).body, "event: tick\n"); n != 20 {
		t.Errorf("%d events by default, want 20", n)
	}
	if r := get(t, url+"?events=-1"); r.status != 400 {
		t.Errorf("events=-1: status %d, want 400", r.status)
	}
}

func TestPredict(t *testing.T) {
	url := open(t, "predict") + "/predict"
	tests := []struct {
		query, score string
		status       int
	}{
		{"?symbol=TULIP&score=0.72", "0.72", 200},
		{"?symbol=TULIP&score=0.7", "0.70", 200},
		{"?symbol=TULIP&score=1", "1.00", 200},
		{"?symbol=TULIP&score=0", "0.00", 200},
		{"?symbol=TULIP&score=1.01", "", 400},
		{"?symbol=TULIP&score=-0.5", "", 400},
		{"?symbol=TULIP&score=0.125", "", 400},
		{"?score=0.5", "", 400},
	}
	for _, test := range tests {
		r := get(t, url+test.query)
		if r.status != test.status || r.header.Get("X-Score") != test.score {
			t.Errorf("%s: status %d, score %q", test.query, r.status, r.header.Get("X-Score"))
			continue
		}
		var got struct{ Score string }
		r.decode(t, &got)
		if got.Score != test.score {
			t.Errorf("%s: the body's score is %q, want %q", test.query, got.Score, test.score)
		}
	}
	first, again := get(t, url+"?symbol=ROSE"), get(t, url+"?symbol=ROSE")
	if first.body != again.body || first.header.Get("X-Score") == "" {
		t.Errorf("the same symbol: %q, then %q, score %q", first.body, again.body, first.header.Get("X-Score"))
	}
}

func TestJudgeTakesTheAnswersOwnScore(t *testing.T) {
	url := open(t, "judge") + "/judge"
	tests := []struct{ body, want string }{
		{get(t, open(t, "predict")+"/predict?symbol=TULIP&score=0.72").body, `{"score":0.72}`},
		{`{"response":"{\"score\":\"0.91\"}"}`, `{"score":0.91}`},
		{`{"score": 1}`, `{"score":1}`},
		{`{"request":{"query":"x=\"score\":1"},"response":{"body":"{\"score\":\"0.3\"}"}}`, `{"score":0.3}`},
		{`no score at all`, `{"score":0}`},
	}
	for _, test := range tests {
		if r := post(t, url, test.body); r.status != 200 || strings.TrimSpace(r.body) != test.want {
			t.Errorf("%s: %d %q, want %q", test.body, r.status, r.body, test.want)
		}
	}
	if r := post(t, url, strings.Repeat(" ", mostJudged+1)); r.status != 413 {
		t.Errorf("too long: status %d, want 413", r.status)
	}
}

func TestSaas(t *testing.T) {
	r := get(t, open(t, "saas")+"/saas?text=zwei+%C3%96fen")
	if want := `{"text":"zwei Öfen","words":2,"characters":9}`; strings.TrimSpace(r.body) != want {
		t.Errorf("got %q, want %q", r.body, want)
	}
}

func TestRows(t *testing.T) {
	url := open(t, "rows") + "/rows"
	for query, want := range map[string]string{"": "250", "?limit=1": "1", "?limit=10000": "10000"} {
		r := get(t, url+query)
		if got := r.header.Get("X-Row-Count"); got != want {
			t.Errorf("%q: X-Row-Count %q, want %q", query, got, want)
		}
		if !strings.HasPrefix(r.body, "day,station,rain_mm\n1,demo-1,0\n") {
			t.Errorf("%q: the body begins %.40q", query, r.body)
		}
	}
	if lines := strings.Count(get(t, url+"?limit=7").body, "\n"); lines != 8 {
		t.Errorf("limit=7: %d lines, want a heading and 7", lines)
	}
	if r := get(t, url+"?limit=10001"); r.status != 400 {
		t.Errorf("limit=10001: status %d, want 400", r.status)
	}
}
