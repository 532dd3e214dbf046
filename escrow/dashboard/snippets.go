package dashboard

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tallygate/tallygate/escrow/api"
)

// example is a request to show in snippets.
type example struct {
	Method string
	URL    string
	Base   string // of a language model's API, if the request is one to it
	Body   string // JSON; empty: none
	MCP    bool   // the request is one to an MCP server
}

// askModel is the path of a request to a language model, below the base of its API.
const askModel = "chat/completions"

// example returns a request to a language model, if the shop has one, or else to its first route.
func (s Shop) example() *example {
	var first *example
	for _, g := range s.goods() {
		for _, path := range g.Paths {
			e := s.exampleAt(g, path)
			if e != nil && e.Base != "" {
				return e
			}
			if first == nil {
				first = e
			}
		}
	}
	return first
}

// exampleAt returns a request to a path that is sold; nil if the path can't be known from its pattern.
func (s Shop) exampleAt(g goods, path string) *example {
	at := strings.TrimSuffix(path, "*")
	if strings.ContainsAny(at, "*{}") || !strings.HasPrefix(at, "/") {
		return nil
	}
	e := &example{Method: "GET", URL: s.Origin + at}
	switch {
	case g.tool:
		e.Method, e.MCP, e.Body = "POST", true, `{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}`
	case g.tokens && (at != path || strings.HasSuffix(at, "/"+askModel)):
		e.Base = s.Origin + strings.TrimSuffix(strings.TrimSuffix(at, askModel), "/")
		e.Method, e.URL = "POST", e.Base+"/"+askModel
		e.Body = `{"model": ` + strconv.Quote(g.model) + `, "messages": [{"role": "user", "content": "hello"}]}`
	}
	return e
}

// model is the name of a model that a tariff covers, for a request.
func modelOf(t api.Tariff) string {
	if t.Model == "" || strings.ContainsAny(t.Model, "*?") {
		return "MODEL"
	}
	return t.Model
}

// Curl is the request as a command.
func (e example) Curl() string {
	line := "curl -i "
	if usual := map[bool]string{true: "POST", false: "GET"}[e.Body != ""]; e.Method != usual {
		line += "-X " + e.Method + " "
	}
	line += shellWord(e.URL) + ` -H "Authorization: Bearer $TALLYGATE_KEY"`
	if e.MCP {
		line += ` -H "Accept: ` + acceptMCP + `"`
	}
	if e.Body != "" {
		line += " --json " + shellWord(e.Body)
	}
	return line
}

// acceptMCP is what an MCP server wants its clients to accept.
const acceptMCP = "application/json, text/event-stream"

// shellWord quotes a word for a shell, if it needs that.
func shellWord(text string) string {
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:/._-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// Python is the request as a program.
func (e example) Python() string {
	if e.Base != "" && e.Method == "POST" && e.URL == e.Base+"/"+askModel {
		return `import os
from openai import OpenAI

client = OpenAI(base_url=` + strconv.Quote(e.Base) + `, api_key=os.environ["TALLYGATE_KEY"])
answer = client.chat.completions.create(**` + pythonValue(e.Body) + `)
print(answer.choices[0].message.content)`
	}
	headers, data := `{"Authorization": "Bearer " + os.environ["TALLYGATE_KEY"]`, ""
	if e.MCP {
		headers += `, "Accept": "` + acceptMCP + `"`
	}
	imports := "import os, urllib.request"
	if e.Body != "" {
		imports, headers = "import json, os, urllib.request", headers+`, "Content-Type": "application/json"`
		data = ", data=json.dumps(" + pythonValue(e.Body) + ").encode()"
	}
	return imports + `

request = urllib.request.Request(` + strconv.Quote(e.URL) + data + `, headers=` + headers + `}, method="` + e.Method + `")
with urllib.request.urlopen(request) as answer:
    print(answer.headers["Tallygate-Charge"], answer.read().decode())`
}

// pythonValue returns JSON as Python writes it.
func pythonValue(text string) string {
	var b strings.Builder
	for text != "" {
		if text[0] == '"' {
			end := 1
			for end < len(text) && text[end] != '"' {
				if text[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(text))
			b.WriteString(text[:end])
			text = text[end:]
			continue
		}
		replaced := false
		for word, as := range map[string]string{"true": "True", "false": "False", "null": "None"} {
			if rest, is := strings.CutPrefix(text, word); is {
				b.WriteString(as)
				text, replaced = rest, true
				break
			}
		}
		if !replaced {
			b.WriteByte(text[0])
			text = text[1:]
		}
	}
	return b.String()
}

// JavaScript is the request as a program.
func (e example) JavaScript() string {
	headers := "Authorization: `Bearer ${process.env.TALLYGATE_KEY}`"
	if e.MCP {
		headers += `, Accept: "` + acceptMCP + `"`
	}
	more := ""
	if e.Body != "" {
		headers += `, "Content-Type": "application/json"`
		more = "\n  body: JSON.stringify(" + e.Body + "),"
	}
	if e.Method != "GET" {
		more = "\n  method: \"" + e.Method + "\"," + more
	}
	return `const answer = await fetch(` + strconv.Quote(e.URL) + `, {
  headers: { ` + headers + ` },` + more + `
});
console.log(answer.status, answer.headers.get("Tallygate-Charge"), await answer.text());`
}

// Go is the request as a program.
func (e example) Go() string {
	body, kind := "nil", ""
	if e.Body != "" {
		body, kind = "strings.NewReader("+goText(e.Body)+")", "request.Header.Set(\"Content-Type\", \"application/json\")\n"
	}
	if e.MCP {
		kind += "request.Header.Set(\"Accept\", \"" + acceptMCP + "\")\n"
	}
	return `request, err := http.NewRequest("` + e.Method + `", ` + strconv.Quote(e.URL) + `, ` + body + `)
if err != nil {
	log.Fatal(err)
}
request.Header.Set("Authorization", "Bearer "+os.Getenv("TALLYGATE_KEY"))
` + kind + `answer, err := http.DefaultClient.Do(request)
if err != nil {
	log.Fatal(err)
}
defer answer.Body.Close()
fmt.Println(answer.Status, answer.Header.Get("Tallygate-Charge"))`
}

func goText(text string) string {
	if strings.Contains(text, "`") {
		return strconv.Quote(text)
	}
	return "`" + text + "`"
}

// isJSON reports whether a text is JSON.
func isJSON(text string) bool { return json.Valid([]byte(text)) }
