package formats_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
	"github.com/tallygate/tallygate/meter/wire"
)

// TestNamedResources: however a provider lets a resource be named, it is the same one.
func TestNamedResources(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind, text, id string
		is             bool
	}{
		{"files", "file-1", "file-1", true},
		{"files", "files/a", "a", true},
		{"files", "Files/a:download", "a", true},
		{"files", "https://generativelanguage.googleapis.com/v1beta/files/a", "a", true},
		{"files", "http://x/v1/files/a:download?alt=media#x", "a", true},
		{"files", "https://x/v1beta/fi%6ces/a", "a", true},
		{"files", "https://x/v1beta/y/../files//a", "a", true},
		{"files", "//generativelanguage.googleapis.com/v1beta/files/a", "a", true},
		{"files", "https://x/files/a.pdf", "", false},
		{"files", "gs://bucket/files/a", "", false},
		{"cachedcontents", "projects/p/locations/l/cachedContents/7", "7", true},
		{"operations", "models/veo/operations/o", "o", true},
		{"models", "ft:gpt-4o:me::1", "ft:gpt-4o:me::1", true},
		{"files", "a b", "", true},
		{"files", "a\x00", "", true},
		{"files", strings.Repeat("a", 257), "", true},
	} {
		r, is := meter.NamedResource(test.kind, test.text)
		if is != test.is || r.ID != test.id || r.Kind != test.kind {
			t.Errorf("%s %q: %+v %t, want %q %t", test.kind, test.text, r, is, test.id, test.is)
		}
	}
}

// TestUses: what a request names, in whichever spelling, is found, and nothing else.
func TestUses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ method, path, query, body, want string }{
		{"POST", "/v1/responses", "", `{"previous_response_id":"r"}`, "responses/r"},
		{"POST", "/v1/responses", "", `{"Previous_Response_ID":"r","x":{"FILE_IDS":["a","b","a"]}}`, "files/a files/b responses/r"},
		{"POST", "/v1/responses", "", `{"input":[{"type":"item_reference","id":"i"},{"id":"j"},{"type":"reasoning","id":"k"},{"type":"reasoning","id":"l","encrypted_content":"x"},{"role":"user","id":"m"}]}`,
			"items/i items/j items/k"},
		{"POST", "/v1/responses", "", `{"tools":[{"parameters":{"file_id":"x"}}],"metadata":{"file_id":"y"}}`, ""},
		{"POST", "/v1/responses/r/cancel", "", ``, "responses/r"},
		{"POST", "/v1/threads/t/runs", "", `{"stream":true,"assistant_id":"a"}`, "assistants/a threads/t"},
		{"POST", "/v1/threads/runs", "", `{"stream":true,"assistant_id":"a"}`, "assistants/a"},
		{"GET", "/v1/files/f/content", "", ``, "files/f"},
		{"GET", "//v1//files//f", "", ``, "files/f"},
		{"GET", "/v1/Files/F", "", ``, "files/F"},
		{"GET", "/proxy/files/f", "", ``, "files/f"},
		{"GET", "/v1/projects/p/locations/l/cachedContents/c", "", ``, "cachedcontents/c"},
		{"GET", "/v1beta/models/m/operations/o", "", ``, "operations/o"},
		{"GET", "/v1/models/files", "", ``, ""},
		{"GET", "/v1/models/files/x", "", ``, ""},
		{"POST", "/openai/deployments/files/chat/completions", "", `{"messages":[]}`, ""},
		{"POST", "/v1beta/tunedModels/t:generateContent", "", `{"contents":[]}`, "tunedmodels/t"},
		{"GET", "/v1/generation", "id=gen-1", ``, "generation/gen-1"},
		{"GET", "/v1/files", "after=f", ``, "files/f"},
		{"GET", "/v1/threads/t/messages", "after=m", ``, "threads/t"},
		{"GET", "/search", "file_id=f&after=x", ``, "files/f"},
		{"DELETE", "/v1/files", "", ``, "files/"},
		{"POST", "/v1/chat/completions", "", `{"model":"ft:m:me::1","messages":[]}`, "models/ft:m:me::1"},
		{"POST", "/v1/fine_tuning/jobs", "", `{"model":"FT:m:me::1"}`, "models/FT:m:me::1"},
		{"POST", "/v1beta/cachedContents", "", `{"model":"tunedModels/t"}`, "tunedmodels/t"},
		{"POST", "/v1beta/fileSearchStores/s:importFile", "", `{"fileName":"files/f"}`, "files/f filesearchstores/s"},
		{"POST", "/v1beta/models/m:batchGenerateContent", "", `{"batch":{"inputConfig":{"fileName":"files/f"}}}`, "files/f"},
		{"POST", "/v1/responses", "", `{"input":[{"role":"user","content":[{"type":"input_file","filename":"files/a.pdf","file_data":"x"}]}]}`, ""},
		{"POST", "/v1/vector_stores/v/files", "", `{"file_id":"f","attributes":{"file_id":"mine"}}`, "files/f vector_stores/v"},
		{"POST", "/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"f","arguments":{"file_id":"x"}}}`, ""},
		{"POST", "/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"f","arguments":{"taskId":"x"},"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}}}`, "tasks/t"},
		{"POST", "/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"tasks/result","params":{"ta\u017fkID":"t"}}`, "tasks/t"},
		{"POST", "/mcp", "", `[{"jsonrpc":"2.0","method":"ping","id":1},{"jsonrpc":"2.0","id":2,"method":"tasks/get","params":{"TASKID":"t"}}]`, "tasks/t"},
		{"POST", "/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":7}}`, "tasks/"},
		{"POST", "/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"tasks/cancel"}`, "tasks/"},
		{"POST", "/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"tasks/resubscribe","params":{"id":"t"}}`, "tasks/t"},
		{"POST", "/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"taskIds":["t","u"]}}}`, "tasks/t tasks/u"},
		{"POST", "/mcp", "", `{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"the client's"}}`, ""},
		{"POST", "/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"todo/get","params":{"taskId":"x"}}`, ""},
		{"POST", "/v2/chat", "", `{"model":"m","messages":[],"documents":[{"data":{"file_id":"x"}}]}`, ""},
	} {
		call, err := formats.Inspect(meter.Head{Method: test.method, Path: test.path, Query: test.query}, []byte(test.body))
		if err != nil {
			t.Errorf("%s %s %s: %v", test.method, test.path, test.body, err)
			continue
		}
		var uses []string
		for _, r := range call.Stored.Uses {
			uses = append(uses, r.Kind+"/"+r.ID)
		}
		slices.Sort(uses)
		if got := strings.Join(uses, " "); got != test.want {
			t.Errorf("%s %s %s: names %q, want %q", test.method, test.path, test.body, got, test.want)
		}
	}
	body := `{"file_ids":[` + strings.Repeat(`"x",`, 5) + `"a"`
	for n := range 1001 {
		body += fmt.Sprintf(`,"f%d"`, n)
	}
	if call, err := formats.Inspect(meter.Head{Method: "POST", Path: "/v1/responses"}, []byte(body+`]}`)); err != nil || call.Stored.Unclear == nil {
		t.Errorf("a request with very many ids: %v, %v", err, call)
	}
}

// TestEveryKindOfReferenceIsACollection: what a field can name can be made.
func TestEveryKindOfReferenceIsACollection(t *testing.T) {
	t.Parallel()
	for _, key := range strings.Fields("previous_response_id previous_interaction_id conversation thread_id assistant_id agent_id file_id vector_store_id container " +
		"cachedcontent filesearchstorenames skill_id library_id dataset_id eval_id video_id operationname") {
		if r, ok := wire.Reference(key, "skill_1"); !ok || !slices.Contains(formats.Kinds, r.Kind) {
			t.Errorf("%s names %+v, %t", key, r, ok)
		}
	}
}

// FuzzList cuts any answer down to any of its elements: what comes out is JSON, and has those elements alone.
func FuzzList(f *testing.F) {
	for _, seed := range []string{
		`{"object":"list","data":[{"id":"a"},{"id":"b"},{"id":"a"}],"first_id":"a","last_id":"b","has_more":true,"total":3}`,
		`[{"id":"a"},{"name":"files/b"},3,[{"id":"c"}]]`, `{"data":[{"id":"a"}],"data":[{"id":"b"}],"more":{"data":[{"id":"c"}]}}`, `{}`, `{"files":[]}`, `7`,
	} {
		f.Add([]byte(seed), uint64(0b101))
	}
	f.Fuzz(func(t *testing.T, body []byte, mask uint64) {
		list, err := formats.ReadList("files", body)
		if err != nil {
			return
		}
		kept := make([]bool, len(list.Resources))
		for i := range kept {
			kept[i] = list.Resources[i].ID != "" && mask>>(i%64)&1 == 1
		}
		out := list.Keep(kept)
		if !json.Valid(out) {
			t.Fatalf("%q becomes %q", body, out)
		}
		again, err := formats.ReadList("files", out)
		if err != nil {
			t.Fatalf("%q becomes %q: %v", body, out, err)
		}
		var left []meter.Resource
		for i, is := range kept {
			if is {
				left = append(left, list.Resources[i])
			}
		}
		if !slices.Equal(again.Resources, left) {
			t.Fatalf("%q becomes %q, which has %v, want %v", body, out, again.Resources, left)
		}
		for i := range list.Resources {
			list.Told("files", i)
		}
		formats.Told("batches", body)
	})
}
