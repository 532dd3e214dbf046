// Package jobs reads work that is asked for by one request and fetched by another: Replicate's predictions, the tasks of Alibaba's DashScope,
// and fal's queue. [Inspect] recognises such a request.
package jobs

import (
	"net/http"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// The kinds of names of what is fetched later.
const (
	prediction = "prediction"
	task       = "task"
	queued     = "queue"
)

var (
	predictionsAPI = &wire.API{Name: "predictions", Dialect: wire.New(predictions)}
	tasksAPI       = &wire.API{Name: "tasks", Dialect: wire.New(tasks)}
	queueAPI       = &wire.API{Name: "queue", Dialect: wire.New(queue)}
)

// Inspect recognises a request about a job by its path. It returns nil for any other request.
func Inspect(r *wire.Request) (*meter.Call, error) {
	switch {
	case r.Post("/predictions"):
		return inspectPrediction(r), nil
	case strings.Contains(r.Clean, "/predictions/") && (r.Method == http.MethodGet || r.Post("/cancel")):
		return fetch(r, predictionsAPI, "/predictions/", prediction), nil
	case r.Post("") && strings.Contains(r.Clean, "/services/") && strings.EqualFold(r.Header.Get("X-DashScope-Async"), "enable"):
		c := r.Call(tasksAPI)
		c.Later, c.Tells = task, tells
		if c.Elsewhere == "X-DashScope-Async" { // that is how it is asked for
			c.Elsewhere = ""
		}
		return c, nil
	case strings.Contains(r.Clean, "/api/v1/tasks/") && (r.Method == http.MethodGet || r.Post("/cancel")):
		return fetch(r, tasksAPI, "/tasks/", task), nil
	case (r.Method == http.MethodGet || r.Method == http.MethodPut) && len(r.Body) == 0 && isQueue(r) && strings.Contains(r.Clean, "/requests/"):
		c := fetch(r, queueAPI, "/requests/", queued)
		if c != nil {
			c.Prepaid = true
		}
		return c, nil
	case r.Post("") && isQueue(r):
		return inspectQueued(r), nil
	}
	return nil, nil
}

// tells are the classes that a job's answer may state.
var tells = []meter.Class{meter.Second, meter.Input, meter.Output, meter.AskedImage, meter.AskedSecond}

// fetch reads a request that fetches a job, or cancels it: it may be finished by then.
func fetch(r *wire.Request, api *wire.API, collection, kind string) *meter.Call {
	if len(r.Body) > 0 && !r.Object() {
		return nil
	}
	c := r.Call(api)
	if !r.Fetch(c, collection, kind) || c.Stream {
		return nil
	}
	c.Tells, c.InputOnly, c.Strip = tells, true, streamed
	return c
}

// streamed is where a prediction says at which address its output can be read while it is made, past the meter.
var streamed = []string{"urls.stream"}

// inspectPrediction reads a request for a prediction. Its model is named by the path, or by its version: OWNER/NAME, OWNER/NAME:ID, or an id.
// https://replicate.com/docs/reference/http
func inspectPrediction(r *wire.Request) *meter.Call {
	c := r.Call(predictionsAPI)
	if version := r.Name("version"); version != "" {
		name, _, _ := strings.Cut(version, ":")
		r.Also(c, "version", name)
	}
	for _, before := range []string{"/models/", "/deployments/"} {
		if at := strings.Index(r.Clean, before); at >= 0 {
			r.Named(c, strings.TrimSuffix(r.Path[at+len(before):], r.Path[len(r.Path)-len("/predictions"):]))
		}
	}
	c.Later, c.Tells, c.Strip = prediction, tells, streamed
	if c.Elsewhere == "Prefer" { // respond-async is what a prediction does anyway
		c.Elsewhere = ""
	}
	return c
}

// predictions reads a prediction: https://replicate.com/docs/topics/predictions. Its time is what most models are billed by; some state
// tokens, images or seconds of video: https://replicate.com/docs/topics/billing, https://github.com/replicate/cog (record_billing_metric).
var predictions = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "id"}, {Path: "model"}, {Path: "status"}, {Path: "metrics"}, {Path: "urls.stream"}, {Path: "output"}, {Path: "output", Mark: true},
	},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		t.ID, t.Model = m.Get("id").String(), m.Get("model").String()
		switch m.Get("status").String() {
		case "starting", "processing", "queued":
			t.Pending = true
			t.Unstated = m.Failed("output") || m.Get("urls.stream").String() != "" // it has output already, of which nobody knows the time
		case "failed", "canceled", "aborted":
			t.Failed = true
		}
		metrics := m.Get("metrics")
		s := wire.Stated{HasPrompt: true, HasCompletion: true}
		s.Prompt = max(wire.Number(metrics.Get("input_token_count"), &s.Suspect), wire.Number(metrics.Get("token_input_count"), &s.Suspect))
		s.Completion = max(wire.Number(metrics.Get("output_token_count"), &s.Suspect), wire.Number(metrics.Get("token_output_count"), &s.Suspect))
		for class, name := range map[meter.Class]string{
			meter.Second: "predict_time", meter.AskedImage: "image_output_count", meter.AskedSecond: "video_output_duration_seconds",
		} {
			t.Sums[class] = wire.Decimal(metrics.Get(name), &s.Suspect)
		}
		t.State(s)
		return wire.Pass
	},
}

// tasks reads a task: https://www.alibabacloud.com/help/en/model-studio/manage-asynchronous-tasks. Images state image_count; videos their
// number and length, by several names; transcriptions their length; some state the usage as text.
var tasks = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "output.task_id"}, {Path: "output.task_status"}, {Path: "output.video_url"}, {Path: "usage"}, {Path: "model"},
	},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		t.ID, t.Model = m.Get("output.task_id").String(), m.Get("model").String()
		switch m.Get("output.task_status").String() {
		case "PENDING", "RUNNING", "SUSPENDED", "": // the last: the answer to a request to cancel it
			t.Pending = true
		case "FAILED", "CANCELED", "UNKNOWN":
			t.Failed = true
		}
		u := m.Get("usage")
		if u.Type == gjson.String {
			u = gjson.Parse(u.Str)
		}
		s := wire.ReadUsage(wire.Fields(u))
		s.HasPrompt, s.HasCompletion = true, true
		t.Sums[meter.AskedImage] = wire.Decimal(u.Get("image_count"), &s.Suspect)
		var length meter.Quantity
		for _, name := range []string{"output_video_duration", "video_duration", "duration", "seconds", "audio_duration"} {
			if length = wire.Decimal(u.Get(name), &s.Suspect); length > 0 {
				break
			}
		}
		if m.Get("output.video_url").String() != "" || u.Get("video_count").Exists() || u.Get("video_duration").Exists() {
			videos := min(max(1, wire.Number(u.Get("video_count"), &s.Suspect)), maxVideos)
			t.Sums[meter.AskedSecond] = min(length, meter.MaxQuantity/meter.Quantity(videos)) * meter.Quantity(videos)
		} else {
			t.Sums[meter.Second] = length
		}
		t.State(s)
		return wire.Pass
	},
}

const maxVideos = 1000

// isQueue reports whether a path is one of fal's. Only models of fal's own are recognised, since a path of others looks like any path.
// https://docs.fal.ai/model-apis/model-endpoints/queue
func isQueue(r *wire.Request) bool { return strings.HasPrefix(r.Clean, "/fal-ai/") }

// inspectQueued reads a request for fal's models, by its queue or at once. No answer states what it used, so only the call and what the
// request asks for can have prices.
func inspectQueued(r *wire.Request) *meter.Call {
	c := r.Call(queueAPI)
	r.Named(c, strings.TrimPrefix(r.Path, "/"))
	r.AskImages(c)
	if text := r.Get("duration"); text.Exists() {
		if seconds, ok := meter.DecimalQuantity(strings.TrimSuffix(text.String(), "s")); ok && seconds >= meter.Whole(1) {
			c.Asked[meter.AskedSecond] = meter.Whole(seconds.Ceil() * max(1, c.Choices))
		}
	}
	if c.Asked[meter.AskedSecond] == 0 {
		c.Unsaid = meter.AskedSecond
	}
	c.Later, c.ByAsked = queued, true
	return c
}

// queue reads the ticket of fal's queue.
var queue = wire.Dialect{
	Rules: []wire.Rule{{Path: "request_id"}, {Path: "status"}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		t.ID = m.Get("request_id").String()
		t.Pending = t.ID != "" && strings.HasPrefix(m.Get("status").String(), "IN_")
		t.State(wire.Stated{HasPrompt: true, HasCompletion: true})
		return wire.Pass
	},
}
