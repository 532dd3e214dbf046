package gateway_test

import (
	"net/http"
	"slices"
	"strings"
)

// understand is how a provider reads a request. It panics with errReading if it refuses the request.
func (g good) understand(m mood, r *http.Request, body []byte) work {
	read := m.reading
	v := read.body(r.Header.Get("Content-Type"), body)
	if list, ok := v.([]any); ok && g.name == toolsGood && len(list) > 0 {
		v = list[len(list)-1]
	}
	if _, ok := v.(*object); !ok {
		panic(errReading)
	}
	w := work{choices: 1, input: len(body) / 4}
	if g.name == toolsGood {
		if read.text(read.get(v, "method")) != "tools/call" {
			return work{} // nothing that costs
		}
		return work{model: knownModel(read.text(read.get(v, "params", "name"))), asked: 1}
	}
	named := map[string]string{"path": "", "body": read.text(read.get(v, "model")), "query": r.URL.Query().Get("model")}
	if list := r.URL.Query()["model"]; read.first == false && len(list) > 0 {
		named["query"] = list[len(list)-1]
	}
	for _, path := range g.paths {
		before, after, found := strings.Cut(path, "MODEL")
		if rest, ok := strings.CutPrefix(r.URL.Path, before); found && ok {
			named["path"], _ = strings.CutSuffix(rest, after)
		}
	}
	if list, ok := read.get(v, "models").([]any); ok && m.falls && len(list) > 0 {
		named["body"] = read.text(list[len(list)-1])
	}
	for _, place := range m.places {
		if named[place] != "" {
			w.model = knownModel(named[place])
			break
		}
	}
	if w.model == "" {
		panic(errReading)
	}
	if read.get(v, "image") != (missing{}) || read.text(read.get(v, "previous_response_id")) != "" {
		w.input += 500
	}
	if g.asks != "" {
		w.input, w.choices = 0, 0
		switch at := read.get(v, g.asks); {
		case g.asks == "input":
			w.asked = len([]rune(read.text(at)))
		default:
			if text, ok := at.(string); ok && g.form || ok && g.asks == "seconds" {
				w.asked = max(1, reading{lax: true}.integer(text))
			} else {
				w.asked = max(1, read.integer(at))
			}
		}
		if w.asked > 100 {
			panic(errReading)
		}
		return w
	}
	if len(g.bounds) == 0 {
		w.choices = 0
		return w
	}
	var configs []any
	switch g.name {
	case "gemini", "gemini, streamed":
		configs = []any{read.get(v, "generationConfig"), read.get(v, "generation_config")}
	case "ollama":
		configs = []any{read.get(v, "options")}
	case "converse":
		configs = []any{read.get(v, "inferenceConfig")}
	default:
		configs = []any{v}
	}
	if m.backwards {
		slices.Reverse(configs)
	}
	bound := 0
	for _, config := range configs {
		for _, name := range g.counts {
			w.choices = max(w.choices, read.integer(read.get(config, name)))
		}
		for _, name := range m.order(g.bounds) {
			if bound == 0 {
				bound = read.integer(read.get(config, name))
			}
		}
	}
	if w.choices > 8 {
		panic(errReading)
	}
	if w.each = m.wants; bound > 0 {
		w.each = min(w.each, bound)
	}
	w.hidden = min(m.hides, w.each-1)
	switch g.name {
	case "gemini, streamed":
		w.stream = true
	case "ollama":
		w.stream = read.get(v, "stream") == (missing{}) || read.get(v, "stream") == nil || read.boolean(read.get(v, "stream"))
	default:
		w.stream = read.boolean(read.get(v, "stream"))
	}
	w.told = read.boolean(read.get(v, "stream_options", "include_usage"))
	return w
}

// knownModel is a name as a provider looks it up that ignores case and spaces.
func knownModel(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name != "cheap" && name != "dear" {
		panic(errReading)
	}
	return name
}

// mood is how a provider handles a request.
type mood struct {
	reading   reading
	places    []string // of the model's name, by their order
	falls     bool     // a list of models is obeyed
	backwards bool
	wants     int // how many tokens its model says
	hides     int
}

func (m mood) order(names []string) []string {
	if m.backwards {
		names = slices.Clone(names)
		slices.Reverse(names)
	}
	return names
}
