package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// jobRoute has one price for every model.
func jobRoute(t *testing.T, prices ...string) gateway.Route {
	var parsed []pricing.Price
	for _, price := range prices {
		words := strings.Fields(price)
		p, err := pricing.ParseClassPrice(words[0], words[1:])
		must(t, err)
		parsed = append(parsed, p)
	}
	tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: parsed}}}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff}
}

// job is work that a provider does in the background. The shapes are those of https://replicate.com/docs/topics/predictions,
// https://www.alibabacloud.com/help/en/model-studio/manage-asynchronous-tasks and https://docs.fal.ai/model-apis/model-endpoints/queue.
type job struct {
	name, price          string
	ask, request         string
	header               []string
	ticket, shown        string // shown: the ticket as it goes out, where that differs
	asked                string // what the asking costs
	fetch                string // method and path
	running, done, costs string
}

var jobs = []job{
	{name: "Replicate, by time", price: "second 0.01 per second", ask: "/v1/predictions", request: `{"version":"5c7d5dc6","input":{"prompt":"a"}}`,
		ticket: `{"id":"gm3q","model":"owner/name","version":"5c7d","input":{"prompt":"a"},"output":null,"status":"starting","urls":{"cancel":"https://r.example/v1/predictions/gm3q/cancel","get":"https://r.example/v1/predictions/gm3q"}}`, asked: "0",
		fetch: "GET /v1/predictions/gm3q", running: `{"id":"gm3q","model":"owner/name","output":null,"status":"processing","urls":{}}`,
		done: `{"id":"gm3q","model":"owner/name","output":"hello","status":"succeeded","error":null,"metrics":{"predict_time":2.5,"total_time":9.1}}`, costs: "0.025"},
	{name: "Replicate, its stream is elsewhere", price: "second 0.01 per second", ask: "/v1/models/owner/name/predictions", request: `{"input":{"prompt":"a"}}`,
		ticket: `{"id":"p2","model":"owner/name","output":null,"status":"starting","urls":{"get":"g","stream":"https://stream.example/p2"}}`,
		shown:  `{"id":"p2","model":"owner/name","output":null,"status":"starting","urls":{"get":"g"}}`, asked: "0",
		fetch: "GET /v1/predictions/p2", running: `{"id":"p2","output":[],"status":"processing"}`,
		done: `{"id":"p2","model":"owner/name","output":["a"],"status":"succeeded","metrics":{"predict_time":1}}`, costs: "0.01"},
	{name: "Replicate, by tokens", price: "output 0.0001 per token", ask: "/v1/deployments/owner/name/predictions", request: `{"input":{}}`,
		ticket: `{"id":"p3","output":null,"status":"starting","urls":{}}`, asked: "0",
		fetch: "GET /v1/predictions/p3", running: `{"id":"p3","output":null,"status":"starting"}`,
		done: `{"id":"p3","output":["a","b"],"status":"succeeded","metrics":{"input_token_count":12,"output_token_count":4,"predict_time":0.53}}`, costs: "0.0004"},
	{name: "Replicate, cancelled when it was finished", price: "second 0.01 per second", ask: "/v1/predictions", request: `{"version":"owner/name","input":{}}`,
		ticket: `{"id":"p4","output":null,"status":"starting","urls":{}}`, asked: "0",
		fetch: "POST /v1/predictions/p4/cancel", running: `{"id":"p4","output":null,"status":"processing"}`,
		done: `{"id":"p4","output":"a","status":"succeeded","metrics":{"predict_time":3}}`, costs: "0.03"},
	{name: "Replicate, cancelled in time", price: "second 0.01 per second", ask: "/v1/predictions", request: `{"version":"owner/name","input":{}}`,
		ticket: `{"id":"p5","output":null,"status":"starting","urls":{}}`, asked: "0",
		fetch: "GET /v1/predictions/p5", running: `{"id":"p5","output":null,"status":"processing"}`,
		done: `{"id":"p5","output":null,"status":"canceled","metrics":{"predict_time":0.5}}`, costs: "0.005"},
	{name: "Replicate, failed before it began", price: "second 0.01 per second", ask: "/v1/predictions", request: `{"version":"owner/name","input":{}}`,
		ticket: `{"id":"p6","output":null,"status":"starting","urls":{}}`, asked: "0",
		fetch: "GET /v1/predictions/p6", running: `{"id":"p6","output":null,"status":"starting"}`,
		done: `{"id":"p6","output":null,"status":"failed","error":"no"}`, costs: "0"},
	{name: "Replicate, by images", price: "asked_image 0.02 per image", ask: "/v1/models/owner/name/predictions", request: `{"input":{}}`,
		ticket: `{"id":"p8","output":null,"status":"starting"}`, asked: "0",
		fetch: "GET /v1/predictions/p8", running: `{"id":"p8","output":null,"status":"starting"}`,
		done: `{"id":"p8","output":["a"],"status":"succeeded","metrics":{"image_output_count":3,"predict_time":0.5}}`, costs: "0.06"},
	{name: "Replicate, by seconds of video", price: "asked_second 0.02 per second", ask: "/v1/models/owner/name/predictions", request: `{"input":{}}`,
		ticket: `{"id":"p9","output":null,"status":"starting"}`, asked: "0",
		fetch: "GET /v1/predictions/p9", running: `{"id":"p9","output":null,"status":"starting"}`,
		done: `{"id":"p9","output":"u","status":"succeeded","metrics":{"video_output_duration_seconds":8.0,"predict_time":210}}`, costs: "0.16"},
	{name: "DashScope, images", price: "asked_image 0.02 per image", ask: "/api/v1/services/aigc/text2image/image-synthesis", header: []string{"X-DashScope-Async", "enable"},
		request: `{"model":"wanx-v1","input":{"prompt":"a"},"parameters":{"n":4}}`,
		ticket:  `{"output":{"task_id":"86ecf553","task_status":"PENDING"},"request_id":"r"}`, asked: "0",
		fetch: "GET /api/v1/tasks/86ecf553", running: `{"request_id":"r","output":{"task_id":"86ecf553","task_status":"RUNNING","task_metrics":{"TOTAL":4,"SUCCEEDED":1,"FAILED":0}}}`,
		done: `{"request_id":"r","output":{"task_id":"86ecf553","task_status":"SUCCEEDED","results":[{"url":"u"},{"url":"v"}]},"usage":{"image_count":2}}`, costs: "0.04"},
	{name: "DashScope, a video", price: "asked_second 0.01 per second", ask: "/api/v1/services/aigc/video-generation/video-synthesis", header: []string{"X-DashScope-Async", "enable"},
		request: `{"model":"wan2.2-t2v-plus","input":{"prompt":"a"}}`,
		ticket:  `{"output":{"task_id":"v1","task_status":"PENDING"},"request_id":"r"}`, asked: "0",
		fetch: "GET /api/v1/tasks/v1", running: `{"output":{"task_id":"v1","task_status":"RUNNING"}}`,
		done: `{"output":{"task_id":"v1","task_status":"SUCCEEDED","video_url":"u"},"usage":{"video_duration":5,"video_ratio":"1280*720","video_count":1}}`, costs: "0.05"},
	{name: "DashScope, speech", price: "second 0.01 per second", ask: "/api/v1/services/audio/asr/transcription", header: []string{"X-DashScope-Async", "enable"},
		request: `{"model":"paraformer-v2","input":{"file_urls":["https://a.example/a.mp3"]}}`,
		ticket:  `{"output":{"task_id":"s1","task_status":"PENDING"},"request_id":"r"}`, asked: "0",
		fetch: "GET /api/v1/tasks/s1", running: `{"output":{"task_id":"s1","task_status":"RUNNING"}}`,
		done: `{"output":{"task_id":"s1","task_status":"SUCCEEDED","results":[{"transcription_url":"u"}]},"usage":"{\"duration\":62.5}"}`, costs: "0.625"},
	{name: "DashScope, failed", price: "asked_image 0.02 per image", ask: "/api/v1/services/aigc/text2image/image-synthesis", header: []string{"X-DashScope-Async", "enable"},
		request: `{"model":"wanx-v1","input":{"prompt":"a"}}`,
		ticket:  `{"output":{"task_id":"f1","task_status":"PENDING"},"request_id":"r"}`, asked: "0",
		fetch: "GET /api/v1/tasks/f1", running: `{"output":{"task_id":"f1","task_status":"RUNNING"}}`,
		done: `{"output":{"task_id":"f1","task_status":"FAILED","code":"x","message":"no"}}`, costs: "0"},
	{name: "fal, images", price: "asked_image 0.02 per image", ask: "/fal-ai/flux/dev", request: `{"prompt":"a","num_images":3}`,
		ticket: `{"status":"IN_QUEUE","request_id":"764cabcf","response_url":"u","status_url":"s","cancel_url":"c","queue_position":0}`, asked: "0.06",
		fetch: "GET /fal-ai/flux/requests/764cabcf", running: `{"detail":"Request is still in progress"}`, done: `{"images":[{"url":"u"}]}`, costs: "0"},
	{name: "fal, a video", price: "asked_second 0.1 per second", ask: "/fal-ai/kling-video/v2/master/text-to-video", request: `{"prompt":"a","duration":"5s"}`,
		ticket: `{"status":"IN_QUEUE","request_id":"v2","response_url":"u"}`, asked: "0.5",
		fetch: "GET /fal-ai/kling-video/requests/v2/status", running: `{"status":"IN_PROGRESS"}`, done: `{"status":"COMPLETED","metrics":{"inference_time":3.7}}`, costs: "0"},
	{name: "a price for the call alone", price: "call 0.3 per call", ask: "/v1/predictions", request: `{"version":"owner/name","input":{}}`,
		ticket: `{"id":"p7","output":null,"status":"starting","urls":{"stream":"https://stream.example"}}`, asked: "0.3",
		fetch: "GET /v1/predictions/p7", running: `{"id":"p7","output":null,"status":"processing"}`,
		done: `{"id":"p7","output":"a","status":"succeeded"}`, costs: "0"},
}

// TestJobs asks for work, looks whether it is done, and fetches what came of it. It is charged once, to who asked for it, and others don't
// see it.
func TestJobs(t *testing.T) {
	t.Parallel()
	for _, j := range jobs {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			var p shelf
			s := openShop(t, escrow.Rules{}, gateway.Options{}, jobRoute(t, j.price), p.ServeHTTP)
			bob := s.another("bob")
			p.put(j.ask, "application/json", j.ticket)
			answer, got := s.call(s.key, "POST", j.ask, j.request, j.header...)
			want(t, "asked: status", answer.StatusCode, 200)
			shown := j.shown
			if shown == "" {
				shown = j.ticket
			}
			want(t, "asked: body", got, shown)
			want(t, "asked: charge", answer.Header.Get("Tallygate-Charge"), j.asked)
			method, path, _ := strings.Cut(j.fetch, " ")
			for _, step := range []struct{ body, charge string }{{j.running, "0"}, {j.done, j.costs}, {j.done, "0"}} {
				p.put(path, "application/json", step.body)
				answer, _ = s.call(bob, method, path, "")
				want(t, "another agent", answer.StatusCode, 404)
				answer, got = s.call(s.key, method, path, "")
				want(t, "fetched: status", answer.StatusCode, 200)
				want(t, "fetched: body", got, step.body)
				want(t, "fetched: charge", answer.Header.Get("Tallygate-Charge"), step.charge)
			}
			want(t, "paid", amount(s.balance("acme")), amount(j.asked)+amount(j.costs))
			want(t, "another agent's balance", s.balance("bob"), "1")
		})
	}
}

// TestJobsThatAreWithheld: what came of a job does not go out if its price is not known, or not paid.
func TestJobsThatAreWithheld(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, price, ask, ticket, path, body, code string
		status                                     int
	}{
		{"no time is stated", "second 0.01 per second", "/v1/predictions", `{"id":"a","status":"starting","output":null}`, "/v1/predictions/a", `{"id":"a","status":"succeeded","output":"x"}`, "usage_unknown", 502},
		{"another unit is stated", "output 0.0001 per token", "/v1/predictions", `{"id":"a","status":"starting","output":null}`, "/v1/predictions/a", `{"id":"a","status":"succeeded","output":"x","metrics":{"predict_time":1}}`, "usage_unknown", 502},
		{"output before the end", "second 0.01 per second", "/v1/predictions", `{"id":"a","status":"starting","output":null}`, "/v1/predictions/a", `{"id":"a","status":"processing","output":["x"]}`, "usage_unknown", 502},
		{"output in the ticket", "second 0.01 per second", "/v1/predictions", `{"id":"a","status":"processing","output":"x"}`, "", "", "usage_unknown", 502},
		{"too little money", "second 1 per second", "/v1/predictions", `{"id":"a","status":"starting","output":null}`, "/v1/predictions/a", `{"id":"a","status":"succeeded","output":"x","metrics":{"predict_time":7}}`, "insufficient_funds", 402},
		{"a task without usage", "second 1 per second", "/api/v1/services/audio/asr/transcription", `{"output":{"task_id":"a","task_status":"PENDING"}}`, "/api/v1/tasks/a", `{"output":{"task_id":"a","task_status":"SUCCEEDED","results":[{"transcription_url":"u"}]}}`, "usage_unknown", 502},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var p shelf
			s := openShop(t, escrow.Rules{}, gateway.Options{}, jobRoute(t, test.price), p.ServeHTTP)
			p.put(test.ask, "application/json", test.ticket)
			header := []string{}
			if strings.Contains(test.ask, "/services/") {
				header = []string{"X-DashScope-Async", "enable"}
			}
			answer, got := s.call(s.key, "POST", test.ask, `{"model":"m","input":{}}`, header...)
			if test.path != "" {
				want(t, "asked", answer.StatusCode, 200)
				p.put(test.path, "application/json", test.body)
				answer, got = s.call(s.key, "GET", test.path, "")
			}
			if answer.StatusCode != test.status || !strings.Contains(got, test.code) || strings.Contains(got, `"output"`) {
				t.Errorf("%s %s", answer.Status, got)
			}
			want(t, "balance", s.balance("alice"), "1")
		})
	}
}

// TestJobsAreNotWaitedFor: where the price depends on the answer, a provider is not asked to wait for it, since what it answers then does not
// state the price. A job whose answer goes elsewhere is refused.
func TestJobsAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	for price, prefer := range map[string]string{"second 0.01 per second": "", "call 0.01 per call": "wait=5"} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, jobRoute(t, price), func(w http.ResponseWriter, r *http.Request) {
			want(t, "Prefer", r.Header.Get("Prefer"), prefer)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"id":"a","status":"starting","output":null}`))
		})
		answer, _ := s.call(s.key, "POST", "/v1/predictions", `{"version":"a/b","input":{}}`, "Prefer", "wait=5")
		want(t, "status", answer.StatusCode, 200)
	}
	s := openShop(t, escrow.Rules{}, gateway.Options{}, jobRoute(t, "second 0.01 per second"), func(http.ResponseWriter, *http.Request) { t.Error("it was asked") })
	for _, test := range []struct{ path, body string }{
		{"/v1/predictions", `{"version":"a/b","input":{},"webhook":"https://a.example"}`},
		{"/v1/predictions", `{"version":"a/b","input":{},"webhook":"https://a.example","webhook_events_filter":["completed"]}`},
		{"/fal-ai/flux?fal_webhook=https://a.example", `{"prompt":"a"}`},
	} {
		if answer, got := s.call(s.key, "POST", test.path, test.body); answer.StatusCode != 422 {
			t.Errorf("%s %s: %s %s", test.path, test.body, answer.Status, got)
		}
	}
	if answer, got := s.call(s.key, "GET", "/v1/predictions", ""); answer.StatusCode != 422 { // a list shows the output of each
		t.Errorf("%s %s", answer.Status, got)
	}
}
