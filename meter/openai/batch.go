package openai

import (
	"strings"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var batchAPI = &wire.API{Name: "batch.results", Dialect: wire.New(batch)}

// batch reads the results of a batch, which are a line for each request and have the usages. Other files have no such lines.
// https://platform.openai.com/docs/guides/batch
var batch = wire.Dialect{
	Rules: []wire.Rule{{Path: "response.body.model"}, {Path: "response.body.usage"}},
	Lines: true,
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		u := m.Get("response.body.usage")
		if !u.IsObject() {
			return wire.Pass
		}
		s := usage(u)
		if !s.HasCompletion {
			s = inputUsage(u)
		}
		t.Tier = "batch"
		t.AddPass(m.Get("response.body.model").String(), s)
		return wire.Pass
	},
}

// inspectFile reads a GET of /files/ID/content, which may be the results of a batch.
func inspectFile(r *wire.Request) *meter.Call {
	c := r.Call(batchAPI)
	c.Malformed = false
	c.Once = "openai:" + strings.TrimSuffix(r.Clean[strings.LastIndex(r.Clean, "/files/")+len("/files/"):], "/content")
	return c
}
