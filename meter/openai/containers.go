package openai

import (
	"strconv"
	"strings"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var containersAPI = &wire.API{Name: "containers", Dialect: wire.New(videos.Keeping(wire.Rule{Path: "id", Makes: "containers"}))} // which states no usage either

// inspectContainer reads a request for a container in which code runs. It counts one code session for each gigabyte of memory, because the
// price depends on the memory. https://platform.openai.com/docs/api-reference/containers,
// https://platform.openai.com/docs/pricing#built-in-tools
func inspectContainer(r *wire.Request) *meter.Call {
	c := r.Call(containersAPI)
	c.InputOnly, c.InputTokens, c.AnyModel, c.ByAsked = true, 0, true, true
	size := int64(1)
	if memory := r.Name("memory_limit"); memory != "" {
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.ToLower(memory), "g"), 10, 64)
		if err != nil || n < 1 || n > 1024 {
			r.Refuse("memory_limit", "expected a number of gigabytes, such as 4g")
			return c
		}
		size = n
	}
	c.Asked = meter.Units{meter.CodeSession: meter.Whole(size)}
	return c
}
