package gateway_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
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

// TestMinutesOfAContainer: a container is charged from its first use to its last, and for five minutes at the least, for each gigabyte.
func TestMinutesOfAContainer(t *testing.T) {
	t.Parallel()
	type use struct {
		at        time.Duration
		container string
		charge    string
	}
	for _, test := range []struct {
		name, memory string // made before with this memory
		uses         []use
	}{
		{"at once", "", []use{{0, "c", "0.05"}, {time.Minute, "c", "0"}, {4*time.Minute + 59*time.Second, "c", "0"}}},
		{"a little longer", "", []use{{0, "c", "0.05"}, {5 * time.Minute, "c", "0.01"}, {5*time.Minute + 30*time.Second, "c", "0"}}},
		{"after a pause", "", []use{{0, "c", "0.05"}, {15 * time.Minute, "c", "0.11"}}},
		{"gone by then", "", []use{{0, "c", "0.05"}, {25 * time.Minute, "c", "0.05"}}},
		{"two", "", []use{{0, "c", "0.05"}, {0, "d", "0.05"}}},
		{"a large one", "4g", []use{{0, "c", "0"}, {7 * time.Minute, "c", "0.12"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var since atomic.Int64
			begin := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
			container := ""
			s := openShopAt(t, func() time.Time { return begin.Add(time.Duration(since.Load())) }, escrow.Rules{}, gateway.Options{},
				gateway.Route{Rates: rates(t, "0.01 per container_minute")}, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					answer := `{"id":"` + container + `","object":"container"}`
					if r.URL.Path == responses {
						answer = `{"id":"resp_1","model":"m","status":"completed","output":[{"type":"code_interpreter_call","container_id":"` + container + `"}],"usage":{"input_tokens":0,"output_tokens":1}}`
					}
					_, _ = io.WriteString(w, answer)
				})
			if test.memory != "" {
				container = "c"
				status, body := s.post("/v1/containers", strings.NewReader(`{"memory_limit":"`+test.memory+`"}`))
				want(t, "made: "+body, status, http.StatusOK)
				want(t, "made", s.charges()[0].Amount, "0.2")
			}
			for i, use := range test.uses {
				since.Store(int64(use.at))
				container = use.container
				if status, body := s.post(responses, strings.NewReader(`{"model":"m","input":"","tools":[{"type":"code_interpreter","container":"c"}]}`)); status != http.StatusOK {
					t.Fatalf("use %d: %d %s", i, status, body)
				}
				sum := amount("0")
				for _, u := range test.uses[:i+1] {
					sum += amount(u.charge)
				}
				if test.memory != "" {
					sum += amount("0.2")
				}
				want(t, "paid after use "+strconv.Itoa(i), amount(s.balance("acme")), sum)
			}
		})
	}
}

// TestMinutesThatAreNotedAreCharged: the clock goes on while a call is settled, and no minute is noted as paid that no call was charged for.
func TestMinutesThatAreNotedAreCharged(t *testing.T) {
	t.Parallel()
	var readings atomic.Int64
	begin := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	s := openShopAt(t, func() time.Time { return begin.Add(time.Duration(readings.Add(1)) * time.Second) }, escrow.Rules{}, gateway.Options{},
		gateway.Route{Rates: rates(t, "0.001 per container_minute")}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":"resp_1","model":"m","status":"completed","output":[{"type":"code_interpreter_call","container_id":"c"}],"usage":{"input_tokens":0,"output_tokens":1}}`)
		})
	use := func() (paid time.Time, charged ledger.Amount) {
		status, body := s.post(responses, strings.NewReader(`{"model":"m","input":"","tools":[{"type":"code_interpreter","container":"c"}]}`))
		want(t, "used: "+body, status, http.StatusOK)
		return s.book.Claims().Paid(escrow.Thing{Kind: escrow.CodeContainer, Owner: "alice", Name: "acme/c"}).Minutes, amount(s.balance("acme"))
	}
	first, charged := use()
	for range 300 {
		until, sum := use()
		if noted := ledger.Amount(until.Sub(first)/time.Minute) * amount("0.001"); sum-charged != noted {
			t.Fatalf("after the first use %s was charged, and minutes for %s are noted as paid", sum-charged, noted)
		}
	}
}
