package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// TestResourcesBelongToWhoMadeThem has two agents make one of each collection: each reads, uses, lists and deletes its own, and for the other it
// is not there.
func TestResourcesBelongToWhoMadeThem(t *testing.T) {
	t.Parallel()
	for _, c := range collections {
		for name, route := range map[string]func(*testing.T) gateway.Route{"a tariff": anyCall, "by the call": byCall} {
			t.Run(c.creates()+" "+name, func(t *testing.T) {
				t.Parallel()
				m := openStorehouse(t, route(t), c)
				alices, bobs := m.make("alice"), m.make("bob")
				m.lists("alice", alices)
				m.lists("bob", bobs)
				for _, id := range []string{alices, bobs} {
					at := c.path + "/" + last(id)
					is := id == alices
					m.serves(is, "alice", "GET", at, "")
					m.serves(is, "alice", "HEAD", at, "")
					m.serves(is, "alice", "GET", at+c.below, "")
					m.serves(is, "alice", "GET", strings.ToUpper(c.path[:2])+c.path[2:]+"//"+last(id), "")
					for _, u := range c.uses {
						body, path := u.body, u.path
						if strings.Contains(path, "%") {
							path = fmt.Sprintf(path, last(id))
						} else {
							body = fmt.Sprintf(body, id)
						}
						m.serves(is, "alice", "POST", path, body)
					}
				}
				m.serves(false, "alice", "DELETE", c.path+"/"+last(bobs), "")
				m.serves(false, "alice", "DELETE", c.path, "")
				m.serves(true, "alice", "DELETE", c.path+"/"+last(alices), "")
				m.serves(false, "alice", "GET", c.path+"/"+last(alices), "")
				m.lists("bob", bobs)
				m.serves(false, "alice", "GET", c.path+"/unknown", "")
				m.serves(false, "alice", "GET", c.path+"?after="+last(bobs), "")
				m.serves(true, "bob", "GET", c.path+"?after="+last(bobs), "")
			})
		}
	}
}

// TestSharedResources: what nobody made here is nobody's, but for what the provider shares.
func TestSharedResources(t *testing.T) {
	t.Parallel()
	files := collections[0]
	for _, test := range []struct {
		shared string
		ids    string // that alice may use
	}{
		{"none", ""}, {"file-a*", "file-a1"}, {"files/*", "file-a1 file-b1"}, {"vector_stores/*", ""}, {"*1", "file-a1 file-b1"}, {"f*-b*", "file-b1"}, {"FILES/file-b1", "file-b1"},
		{"*", "file-a1 file-b1 file-c2"}, {"file-a1 file-b1", "file-a1 file-b1"},
	} {
		route := anyCall(t)
		route.Shared = shared(t, strings.Fields(test.shared)...)
		m := openStorehouse(t, route, files)
		m.keeper.things[files.path] = []string{"file-a1", "file-b1"}
		for _, id := range []string{"file-a1", "file-b1"} {
			is := slices.Contains(strings.Fields(test.ids), id)
			m.serves(is, "alice", "GET", "/v1/files/"+id, "")
			m.serves(is, "alice", "POST", files.uses[0].path, fmt.Sprintf(files.uses[0].body, id))
		}
		if test.shared == "*" {
			continue
		}
		m.lists("alice", strings.Fields(test.ids)...)
	}
	for _, wrong := range []string{"", "none file-a", "nothing/*", "files/", "a\x00"} {
		if _, err := gateway.ParseShared(strings.Split(wrong, " ")); err == nil {
			t.Errorf("shared %q is taken", wrong)
		}
	}
	// What is shared stays so, also when an answer tells of it.
	route := anyCall(t)
	route.Shared = shared(t, "conv_old")
	m := openStorehouse(t, route, collections[1])
	m.keeper.shape.made = `{"id": %q, "conversation": {"id": "conv_old"}, "usage": {"input_tokens": 1, "output_tokens": 1}}`
	m.make("alice")
	m.serves(true, "bob", "GET", "/v1/conversations/conv_old/items", "")
}

// TestWhatCameOfResources: what an answer tells of, beside the thing that was asked for, belongs to the same payer.
func TestWhatCameOfResources(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		shape            collection
		get, told        string // %s is the id
		method, path     string
		body             string
		othersGetItFirst bool
	}{
		{collections[8], "/v1/batches/%s", `{"id":"x","output_file_id":"file-out","error_file_id":null}`, "GET", "/v1/files/file-out/content", "", false},
		{collections[11], "/v1/fine_tuning/jobs/%s", `{"fine_tuned_model":"ft:m:me::1","result_files":["file-out"]}`, "GET", "/v1/files/file-out", "", false},
		{collections[11], "/v1/fine_tuning/jobs/%s", `{"fine_tuned_model":"ft:m:me::1"}`, "POST", "/v1/chat/completions", `{"model":"ft:m:me::1","messages":[]}`, false},
		{collections[22], "/v1beta/models/veo/operations/%s", `{"done":true,"response":{"generateVideoResponse":{"generatedSamples":[{"video":{"uri":"https://generativelanguage.googleapis.com/v1beta/files/v1:download?alt=media"}}]}}}`,
			"GET", "/v1beta/files/v1:download", "", false},
		{collections[4], "/v1/threads/%s/messages", `{"data":[{"content":[{"image_file":{"file_id":"file-img"}}]}]}`, "GET", "/v1/files/file-img/content", "", false},
	} {
		m := openStorehouse(t, anyCall(t), test.shape)
		id := last(m.make("alice"))
		m.keeper.answer = func(w http.ResponseWriter, r *http.Request) bool {
			told := test.told
			if r.URL.Path != fmt.Sprintf(test.get, id) {
				told = `{"usage":{"prompt_tokens":1,"completion_tokens":1}}`
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, told)
			return true
		}
		m.serves(false, "alice", test.method, test.path, test.body)
		if _, answer, _ := m.ask("alice", "GET", fmt.Sprintf(test.get, id), ""); answer != test.told {
			t.Errorf("%s: %s", test.get, answer)
		}
		m.serves(true, "alice", test.method, test.path, test.body)
		m.serves(false, "bob", test.method, test.path, test.body)
	}
}

// TestResourcesOutliveTheServer: what belongs to whom is durable before the answer goes out, and all keys of an agent are the same payer.
func TestResourcesOutliveTheServer(t *testing.T) {
	t.Parallel()
	disk := newDisk()
	m := &storehouse{shop: &shop{t: t}, keeper: &keeper{things: map[string][]string{}, shape: collections[0]}, keys: map[string]string{}}
	open := func() (closed func()) {
		store, err := disk.open()
		must(t, err)
		books, err := ledger.New(store, ledger.Options{Currency: "USDC"})
		must(t, err)
		m.book = escrow.New(books, escrow.Rules{OpenRegistration: true})
		must(t, m.book.Reserve(t.Context(), "acme"))
		route := anyCall(t)
		route.Payee, route.Logger = "acme", slog.New(slog.DiscardHandler)
		server := httptest.NewServer(gateway.New(m.book, gateway.Options{}).Handler(&route, m.keeper))
		m.url = server.URL
		return func() { server.Close(); must(t, books.Close()) }
	}
	closed := open()
	m.keys["alice"], m.keys["bob"] = m.agent("alice", "1"), m.agent("bob", "1")
	id := m.make("alice")
	must(t, m.do(func(tx *escrow.Tx) (err error) {
		_, m.keys["alice again"], err = tx.CreateKey(escrow.Actor{Agent: "alice"}, "alice", escrow.KeyOrder{Name: "second"})
		return err
	}))
	closed()
	defer open()()
	m.serves(true, "alice", "GET", "/v1/files/"+id, "")
	m.serves(true, "alice again", "GET", "/v1/files/"+id, "")
	m.serves(false, "bob", "GET", "/v1/files/"+id, "")
}

// TestReplaysKeepTheirResources: an answer that is given again names what was made the first time.
func TestReplaysKeepTheirResources(t *testing.T) {
	t.Parallel()
	route := anyCall(t)
	route.Keep = &gateway.Keep{Size: 1 << 20, For: 1 << 40}
	m := openStorehouse(t, route, collections[0])
	_, first, _ := m.ask("alice", "POST", "/v1/files", `{}`, "Idempotency-Key", "k")
	_, again, forwarded := m.ask("alice", "POST", "/v1/files", `{}`, "Idempotency-Key", "k")
	if first != again || forwarded {
		t.Errorf("%s, then %s, forwarded %t", first, again, forwarded)
	}
	m.serves(true, "alice", "GET", "/v1/files/"+gjson.Get(first, "id").String(), "")
	m.serves(false, "bob", "GET", "/v1/files/"+gjson.Get(first, "id").String(), "")
}

// TestWhatNamesNoResource: words that a tool is called with, or that the caller keeps for itself, are no ids of the provider's; and a route that does
// not keep payers apart lets all pass.
func TestWhatNamesNoResource(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"model":"m","input":"x","metadata":{"file_id":"mine"}}`,
		`{"model":"m","input":[{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{\"file_id\":\"mine\"}"}]}`,
		`{"model":"m","input":"x","tools":[{"type":"function","name":"f","parameters":{"properties":{"file_id":{"enum":["mine"]}}}}]}`,
		`{"model":"m","input":"x","previous_response_id":null,"conversation":""}`,
		`{"model":"m","input":"x","prompt":{"id":"pmpt_1"}}`,
		`{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_url":"https://example.com/v1/files/x.pdf"}]}]}`,
	} {
		m := openStorehouse(t, anyCall(t), collections[1])
		m.serves(true, "alice", "POST", "/v1/responses", body)
	}
	for path, body := range map[string]string{
		"/v1/messages":                     `{"model":"m","max_tokens":9,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"file_id":"mine"}}]}]}`,
		"/v1beta/models/g:generateContent": `{"contents":[{"parts":[{"functionCall":{"name":"f","args":{"file_id":"mine"}}},{"fileData":{"fileUri":"https://youtu.be/x"}}]}]}`,
	} {
		m := openStorehouse(t, anyCall(t), collections[1])
		m.serves(true, "alice", "POST", path, body)
	}
	open := openStorehouse(t, gateway.Route{Rates: rates(t, "0.0001 per call")}, collections[0])
	open.keeper.things["/v1/files"] = []string{"file-old"}
	open.serves(true, "alice", "GET", "/v1/files/file-old", "")
	open.serves(true, "alice", "POST", "/v1/responses", `{"previous_response_id":"resp_old"}`)
}

// TestWhatCannotBeReadIsRefused: a request in which a provider may find the id of what is another's, and a list that can't be cut down.
func TestWhatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	m := openStorehouse(t, anyCall(t), collections[0])
	for _, test := range []struct{ path, body, kind string }{
		{"/v1/batches", "\xff\xfe{\x00", "application/json"},
		{"/v1/batches", "input_file_id=file-1", "application/x-www-form-urlencoded"},
		{"/v1/batches", `{"input_file_id":"file-1","Input_file_id":"file-2"}`, "application/json"},
		{"/v1/files?after=%zz", "", ""},
	} {
		method := "POST"
		if test.body == "" {
			method = "GET"
		}
		if status, answer, forwarded := m.ask("alice", method, test.path, test.body, "Content-Type", test.kind); status != 422 || forwarded {
			t.Errorf("%s %q: %d %s", test.path, test.body, status, answer)
		}
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	must(t, w.WriteField("file_id", "file-1"))
	must(t, w.Close())
	m.keeper.shape = collections[7]
	container := m.make("alice")
	m.serves(false, "alice", "POST", "/v1/containers/"+container+"/files", form.String(), "Content-Type", w.FormDataContentType())

	for _, answer := range []string{`no JSON`, `"text"`, `{"data":[{"id":"file-1"}]`, `{"data":[` + strings.Repeat(`{"id":"file-1"},`, 300_000) + `{}]}`} {
		m.keeper.answer = func(w http.ResponseWriter, _ *http.Request) bool { _, _ = io.WriteString(w, answer); return true }
		if status, told, _ := m.ask("alice", "GET", "/v1/files", ""); status != 422 || strings.Contains(told, "file-1") {
			t.Errorf("%.40s: %d %.200s", answer, status, told)
		}
	}
}

// TestFormsNameResources: what a form names is found wherever JSON would have it, in each way in which forms have objects and lists.
func TestFormsNameResources(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ path, field, value string }{ // %s is the id
		{"/v1/audio/transcriptions", "file_id", "%s"},
		{"/v1/audio/transcriptions", "File_ID", "%s"},
		{"/v1/audio/transcriptions", "file_ids[]", "%s"},
		{"/v1/audio/transcriptions", "file_ids[0]", "%s"},
		{"/v1/audio/transcriptions", "source", `{"file_id":"%s"}`},
		{"/v1/images/edits", "image[0][file_id]", "%s"},
		{"/v1/videos/edits", "video_id", "%s"},
		{"/v1/videos/edits", "video[id]", "%s"},
		{"/v1/videos/edits", "video.id", "%s"},
		{"/v1/videos/edits", "video", ` {"id":"%s"}`},
		{"/v1/videos/edits", "input_reference[file_id]", "%s"},
		{"/v1/fine_tuning/jobs", "training_file", "%s"},
		{"/v1/evals", "data_source[source][id]", "%s"},
		{"/v1/else", "file_id", "%s"},
	} {
		t.Run(test.path+" "+test.field, func(t *testing.T) {
			t.Parallel()
			kept := collections[0]
			if strings.HasPrefix(test.field, "video") {
				kept = collections[slices.IndexFunc(collections, func(c collection) bool { return c.path == "/v1/videos" })]
			}
			m := openStorehouse(t, byCall(t), kept)
			alices, bobs := m.make("alice"), m.make("bob")
			for _, id := range []string{alices, bobs} {
				var form bytes.Buffer
				w := multipart.NewWriter(&form)
				must(t, w.WriteField("model", "m"))
				must(t, w.WriteField("seconds", "4"))
				must(t, w.WriteField("metadata[file_id]", "mine"))
				must(t, w.WriteField(test.field, fmt.Sprintf(test.value, id)))
				must(t, w.Close())
				m.serves(id == alices, "alice", "POST", test.path, form.String(), "Content-Type", w.FormDataContentType())
			}
		})
	}
}

// TestANameIsNoID: a name that an agent chooses for what it makes does not make it the owner of what has such an id; and no cache in front gives one
// agent's list to another.
func TestANameIsNoID(t *testing.T) {
	t.Parallel()
	files := collections[0]
	files.made = `{"id": %q, "name": "file-old"}`
	m := openStorehouse(t, anyCall(t), files)
	m.keeper.things[files.path] = []string{"file-old"}
	m.make("alice")
	m.serves(false, "alice", "GET", "/v1/files/file-old", "")

	m.keeper.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Cache-Control", "public, max-age=60")
		return false
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.url+"/v1/files", nil)
	must(t, err)
	r.Header.Set("X-Api-Key", m.key)
	response, err := http.DefaultClient.Do(r)
	must(t, err)
	_ = response.Body.Close()
	want(t, "Cache-Control", response.Header.Get("Cache-Control"), "private, max-age=60")
}

// TestShadowModeKeepsNobodyOut: in shadow mode nothing is refused or left out.
func TestShadowModeKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	route := anyCall(t)
	route.Shadow = true
	m := openStorehouse(t, route, collections[0])
	id := m.make("alice")
	m.serves(true, "bob", "GET", "/v1/files/"+id, "")
	m.serves(true, "bob", "POST", "/v1/responses", `{"model":"m","input":"x","previous_response_id":"resp_x"}`)
	if _, list, _ := m.ask("bob", "GET", "/v1/files", ""); !strings.Contains(list, id) {
		t.Errorf("bob sees %s", list)
	}
}
