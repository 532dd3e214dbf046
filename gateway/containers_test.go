package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// TestASessionOfAContainerIsChargedOnce: whoever has begun a session of a container, by making it or by running code in it, uses it without a
// further charge. The memory that is asked for multiplies its price.
func TestASessionOfAContainerIsChargedOnce(t *testing.T) {
	t.Parallel()
	const run = `{"model":"m","input":"","max_output_tokens":16,"tools":[{"type":"code_interpreter","container":CONTAINER}]}`
	const auto, large = `{"type":"auto"}`, `{"type":"auto","memory_limit":"4g"}`
	type call struct{ path, body, container, charge string } // the container that the provider names
	runs := func(asked, container, charge string) call {
		return call{responses, strings.Replace(run, "CONTAINER", asked, 1), container, charge}
	}
	for _, test := range []struct {
		name  string
		calls []call
	}{
		{"one after another", []call{runs(auto, "cntr_1", "0.03"), runs(auto, "cntr_1", "0"), runs(`"cntr_1"`, "cntr_1", "0"), runs(auto, "cntr_2", "0.03"), runs(auto, "cntr_2", "0")}},
		{"one that was made before", []call{{"/v1/containers", `{"name":"a","memory_limit":"4g"}`, "cntr_1", "0.12"}, runs(`"cntr_1"`, "cntr_1", "0"), {"/v1/containers", `{"name":"a"}`, "cntr_2", "0.03"}}},
		{"a large one", []call{runs(large, "cntr_1", "0.12"), runs(large, "cntr_1", "0")}},
		{"without code", []call{runs(auto, "", "0"), runs(auto, "cntr_1", "0.03")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var now call
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.03 per code_session")}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				answer := `{"id":"resp_1","model":"m","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"w"}]}ALSO],"usage":{"input_tokens":0,"output_tokens":1}}`
				also := ""
				switch {
				case r.URL.Path != responses:
					answer = `{"id":"` + now.container + `","object":"container"}`
				case now.container != "":
					also = `,{"type":"code_interpreter_call","container_id":"` + now.container + `"},{"type":"code_interpreter_call","container_id":"` + now.container + `"}`
				}
				_, _ = io.WriteString(w, strings.Replace(answer, "ALSO", also, 1))
			})
			for i, c := range test.calls {
				now = c
				if status, body := s.post(c.path, strings.NewReader(c.body)); status != http.StatusOK {
					t.Fatalf("call %d: %d %s", i, status, body)
				}
				charges := s.charges()
				want(t, "charge", charges[0].Amount, c.charge)
			}
		})
	}
}
