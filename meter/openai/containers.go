package openai

import (
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var containersAPI = &wire.API{Name: "containers", Dialect: wire.New(wire.Dialect{
	Rules: []wire.Rule{{Path: "id", Makes: "containers"}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if id := m.Get("id").String(); id != "" && len(id) <= maxContainer {
			t.Containers = []string{id}
		}
		t.State(wire.Stated{HasPrompt: true, HasCompletion: true})
		return wire.Pass
	},
})}

// inspectContainer reads a request for a container in which code runs. It counts one code session, or five minutes, for each gigabyte of
// memory, because the price depends on the memory. https://platform.openai.com/docs/api-reference/containers,
// https://platform.openai.com/docs/pricing#built-in-tools
func inspectContainer(r *wire.Request) *meter.Call {
	c := r.Call(containersAPI)
	c.InputOnly, c.InputTokens, c.AnyModel, c.ByAsked = true, 0, true, true
	c.ContainerGB = gigabytes(r, r.Get("memory_limit"))
	c.Asked = meter.Units{meter.CodeSession: meter.Whole(c.ContainerGB), meter.ContainerMinute: meter.Whole(meter.ContainerLeast * c.ContainerGB)}
	return c
}

// gigabytes reads how much memory a container is to have, such as "4g": 1, unless it is said.
func gigabytes(r *wire.Request, limit gjson.Result) int64 {
	if !present(limit) {
		return 1
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(strings.ToLower(limit.String()), "g"), 10, 64)
	if err != nil || n < 1 || n > 1024 || limit.Type != gjson.String {
		r.Refuse("memory_limit", "expected a number of gigabytes, such as 4g")
		return 1
	}
	return n
}

// containerGB is the memory of the largest container that the tools of a request may make: that of a code interpreter, or the environment of a
// shell. https://platform.openai.com/docs/guides/tools-code-interpreter, https://developers.openai.com/api/docs/guides/tools-shell
func containerGB(r *wire.Request) int64 {
	most := int64(1)
	if r.IsArray("tools") {
		r.Get("tools").ForEach(func(_, tool gjson.Result) bool {
			for _, path := range []string{"container.memory_limit", "environment.memory_limit"} {
				most = max(most, gigabytes(r, tool.Get(path)))
			}
			return true
		})
	}
	return most
}
